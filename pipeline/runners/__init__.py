"""Runners: where a pipeline runs, in this process, on Beam's job service, or on a cluster."""

__all__ = ["beam_speedups", "compile", "job_service", "kubeflow", "local", "rehearsal", "vertex"]
