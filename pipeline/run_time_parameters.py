"""Runtime parameters of a compiled pipeline, as a person types them."""

from __future__ import annotations

from collections.abc import Iterable

from components.errors import BrokenInput


def run_time_parameters(pairs: Iterable[str]) -> dict[str, str]:
    """`NAME=VALUE` strings as a dict.

    Raises:
        BrokenInput: one has no `=` or no name.
    """
    parameters = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise BrokenInput(f"--parameter {pair}: expected NAME=VALUE, data=gs://BUCKET/data for example")
        parameters[name] = value
    return parameters
