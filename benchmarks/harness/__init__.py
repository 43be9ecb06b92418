"""What all benchmarks share: figures, their tables, their comparison."""
