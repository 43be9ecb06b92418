"""Publish a blessed model into the model base path."""
