"""Options of a trainer as keras-tuner holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

# What keras-tuner's Hyperband adds to the values of a trial.
_HYPERBAND, _EPOCHS = "tuner/", "tuner/epochs"


def encoded(values: Sequence[Any]) -> list[Any]:
    """What stands for values in keras-tuner, which takes numbers, all of one type, and texts: JSON for all else."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float} and len(kinds) == 2:
        return [float(value) for value in values]
    return list(values) if len(kinds) == 1 and kinds <= {int, float, bool} else [json.dumps(value) for value in values]


def trial_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a trial by name; for hyperband with the epochs that the trial had."""
    options = {
        name: json.loads(value) if isinstance(value, str) else value
        for name, value in values.items()
        if not name.startswith(_HYPERBAND)
    }
    return options | ({"epochs": values[_EPOCHS]} if _EPOCHS in values else {})
