"""TableExampleGen and BigQueryExampleGen: read tables and texts into examples."""

__all__ = [
    "bigquery",
    "column_defaults",
    "component",
    "executor",
    "facts",
    "options",
    "serialization",
    "sources",
]
