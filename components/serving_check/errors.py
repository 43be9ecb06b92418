"""Errors of a candidate that cannot answer; each becomes a reason in the report."""

from __future__ import annotations


class ModelUnavailable(Exception):
    """The model does not load, or what runs it has ended: nothing more can be asked."""


class RequestRefused(Exception):
    """The model is there and refuses this request."""
