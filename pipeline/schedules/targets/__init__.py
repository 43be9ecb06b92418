"""What can keep a schedule: each with the same three functions."""
