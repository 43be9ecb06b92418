"""The playground: a page on which people try the served models."""

__all__ = ["routes"]
