"""Preprocessing of each task: preprocessing_fn and its options."""
