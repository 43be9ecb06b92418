"""A config's `schedule` as each of its targets takes it, and the local daemon."""
