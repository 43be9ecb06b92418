"""Exit statuses of the commands, and which error leads to which."""

from __future__ import annotations

import errno
import os
from enum import IntEnum

from components.errors import (
    AnomaliesFound,
    BrokenInput,
    IncompatibleModel,
    NoNewData,
    NotPublished,
    NotSubmitted,
    RunStopped,
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


def run_status(error: BaseException) -> ExitStatus:
    """The status of a run that an error ended."""
    status = status_of_error(error)
    return ExitStatus.NOT_PUBLISHED if status is ExitStatus.UNEXPECTED and _disk_is_full(error) else status


def run_reason(error: BaseException) -> str:
    """What a person reads of an error that ended a run, in one sentence."""
    if isinstance(error, RunStopped | PreprocessingError | TrainingError):
        return str(error).partition(" [while running ")[0]  # Beam says in which of its steps
    if _disk_is_full(error):
        return "the disk is full; free some space and run the same command again, finished steps are not repeated"
    return f"unexpected: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def _disk_is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # Beam, TensorFlow and SQLite leave only the text.
    if os.strerror(errno.ENOSPC) in str(error) or "database or disk is full" in str(error):
        return True
    return error.__cause__ is not None and _disk_is_full(error.__cause__)
