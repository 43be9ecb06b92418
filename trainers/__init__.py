"""Training of each task: run_fn and its options."""
