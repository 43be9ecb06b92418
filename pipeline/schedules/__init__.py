"""Schedules: when a model is trained anew, and the targets that start its runs."""

__all__ = ["airflow", "cluster", "cron", "daemon", "journal", "targets", "units"]
