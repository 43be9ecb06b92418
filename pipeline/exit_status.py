"""Exit statuses of the commands, and which error leads to which."""

from __future__ import annotations

from enum import IntEnum

from components.errors import (
    AnomaliesFound,
    BrokenInput,
    IncompatibleModel,
    NoNewData,
    NotPublished,
    NotSubmitted,
    RunUnderWay,
)
from trainers.errors import TrainingError
from transform.errors import PreprocessingError


class ExitStatus(IntEnum):
    """The outcome of a run; docs/command-line.md lists the same table for people."""

    PUBLISHED = 0  # a version was published, or the published one is already of this run
    UNEXPECTED = 1  # a fault of ingraph or its libraries; the log file has the trace
    BROKEN_INPUT = 2  # the config, the command line or the data cannot be used
    ANOMALIES = 3  # DataGate stopped the run
    NOT_BLESSED = 4  # the Evaluator's thresholds were not met
    SERVING_CHECK_FAILED = 5  # the model does not serve what was trained
    NOT_PUBLISHED = 6  # the model base path refused it: not writable, disk full, or a withdrawn model
    NOT_SUBMITTED = 7  # a cluster could not be reached, or did not take the run
    NO_NEW_DATA = 8  # `ingraph retrain`: the published model learned from the same data
    UNDER_WAY = 9  # another process runs the same pipeline
    INCOMPATIBLE = 10  # clients of the served model could not use the new one
    VULNERABLE = 11  # `ingraph audit`: an advisory concerns a dependency
    ANSWERS_CHANGED = 12  # ReplayGate: the new model answers logged requests otherwise than it may
    FELL = 13  # `ingraph truth`: the live accuracy is below its bound


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
