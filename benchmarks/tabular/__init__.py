"""Benchmarks of tables."""
