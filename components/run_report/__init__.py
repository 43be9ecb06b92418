"""One HTML page a run: whether the new model may go live, and why."""
