"""What stops a training."""


class TrainingError(Exception):
    """The options name something that cannot be had or does not fit; the message says what to do."""
