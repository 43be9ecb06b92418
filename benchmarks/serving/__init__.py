"""Benchmarks of the embedded server."""
