"""Which exit status an error means."""

from __future__ import annotations

from components.errors import (
    AnomaliesFound,
    BrokenInput,
    IncompatibleModel,
    NoNewData,
    NotPublished,
    NotSubmitted,
    RunUnderWay,
)
from pipeline.exit_status import ExitStatus
from trainers.training_error import TrainingError
from transform.preprocessing_error import PreprocessingError

_STATUS: dict[type[Exception], ExitStatus] = {
    BrokenInput: ExitStatus.BROKEN_INPUT,
    PreprocessingError: ExitStatus.BROKEN_INPUT,
    TrainingError: ExitStatus.BROKEN_INPUT,
    AnomaliesFound: ExitStatus.ANOMALIES,
    NotPublished: ExitStatus.NOT_PUBLISHED,
    NotSubmitted: ExitStatus.NOT_SUBMITTED,
    NoNewData: ExitStatus.NO_NEW_DATA,
    RunUnderWay: ExitStatus.UNDER_WAY,
    IncompatibleModel: ExitStatus.INCOMPATIBLE,
}


def status_of_error(error: BaseException) -> ExitStatus:
    """The status for an error that says why a run was stopped; UNEXPECTED for every other."""
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), ExitStatus.UNEXPECTED)
