"""One HTML page a run: whether the new model may go live, and why."""

__all__ = ["component", "dataset", "finished_run", "pages", "statistics"]
