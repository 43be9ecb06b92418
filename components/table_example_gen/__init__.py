"""TableExampleGen and BigQueryExampleGen: read tables and texts into examples."""

__all__ = [
    "bigquery",
    "component",
    "executor",
    "facts",
    "options",
    "serialization",
    "sources",
    "splits",
]
