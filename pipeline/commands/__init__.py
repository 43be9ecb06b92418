"""The commands of `ingraph`."""
