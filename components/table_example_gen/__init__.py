"""TableExampleGen: reads tables and texts, of any common format, into examples."""

__all__ = ["column_defaults", "component", "executor", "facts", "options", "serialization", "sources"]
