"""Where the model of photos comes from: trained here, or made elsewhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from trainers.fine_tune_options import FineTuneOptions
from trainers.wrap_options import WrapOptions

ImageTrainerOptions = Annotated[FineTuneOptions | WrapOptions, Field(discriminator="mode")]


def read_trainer_options(content: str) -> FineTuneOptions | WrapOptions:
    """The options out of their JSON."""
    options: FineTuneOptions | WrapOptions = TypeAdapter(ImageTrainerOptions).validate_json(content)
    return options
