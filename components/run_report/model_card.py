"""What a person should know before using a model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ModelCard(BaseModel):
    """The part of a model card that no measurement knows; the report adds the measurements.

    After Mitchell et al., Model Cards for Model Reporting, 2019.

    Attributes:
        intended_use: what the model is for.
        not_for: what it must not be used for.
        data: where the data comes from, who is in it, under which licence.
        limits: what is known to go wrong.
        owner: whom to ask.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    intended_use: str = ""
    not_for: str = ""
    data: str = ""
    limits: str = ""
    owner: str = ""
