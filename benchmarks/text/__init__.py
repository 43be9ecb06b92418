"""Benchmarks of texts."""
