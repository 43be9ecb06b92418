"""Stops a run whose model the clients of the served one could not use."""

__all__ = ["component"]
