"""Reads texts and their labels into examples."""
