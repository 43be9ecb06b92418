"""Where a search for hyperparameters looks."""

from __future__ import annotations

import keras_tuner
from pydantic import BaseModel

from trainers.option_type import option_type
from trainers.trial_values import encoded
from trainers.tuner_options import TunerOptions


def search_space(tuner: TunerOptions, trainer: BaseModel) -> keras_tuner.HyperParameters:
    """The candidates of each option, as keras-tuner has them."""
    space = keras_tuner.HyperParameters()
    for name, candidates in tuner.space.items():
        if candidates.values is not None:
            space.Choice(name, encoded(candidates.values))
        else:
            kind = option_type(trainer, name)
            number = space.Int if kind is int else space.Float
            step = kind(candidates.step) if candidates.step else None
            number(name, kind(candidates.min), kind(candidates.max), step=step, sampling=candidates.sampling)
    return space
