"""What is measured, and how; each prints a table."""
