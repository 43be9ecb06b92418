"""What a search for hyperparameters found, for the Trainer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfx.components.trainer.fn_args_utils import FnArgs

from trainers.trial_values import trial_values


@dataclass(frozen=True)
class BestHyperparameters:
    """What the Trainer is to use.

    Attributes:
        values: option -> value, {} where no search was made.
        code_fingerprint: of the config, the code and these values, which make the model.
    """

    code_fingerprint: str
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, fn_args: FnArgs) -> BestHyperparameters:
        """Those that TFX gives a Trainer: what keras-tuner's HyperParameters.get_config gives, or None."""
        code_fingerprint = fn_args.custom_config["code_fingerprint"]
        if not fn_args.hyperparameters:
            return cls(code_fingerprint)
        values = trial_values(fn_args.hyperparameters["values"])
        digest = hashlib.sha256(f"{code_fingerprint}\0{json.dumps(values, sort_keys=True)}".encode())
        return cls(digest.hexdigest(), values)
