"""Replays logged requests: what would be answered otherwise, and how fast."""

__all__ = ["component", "replay", "replayed_model"]
