"""The signatures each task exports."""
