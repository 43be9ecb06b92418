"""ServingPusher: publishes a blessed model into the model base path."""

__all__ = ["component"]
