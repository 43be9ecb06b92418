"""What the exit status of `ingraph run` says."""

from enum import IntEnum


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
