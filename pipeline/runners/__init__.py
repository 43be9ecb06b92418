"""Runners: where a pipeline runs, in this process, on Beam's job service, or on a cluster."""

__all__ = ["beam_engine", "beam_speedups", "compile", "kubeflow", "local", "rehearsal", "vertex"]
