"""ServingCheck: whether the exported model answers, as a server loads it, what the trained model says."""

__all__ = ["candidate", "check", "component", "model_process"]
