"""Whether the exported model answers, as a server loads it, what the trained model says."""
