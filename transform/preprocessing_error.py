"""Why data cannot be preprocessed as the options say."""


class PreprocessingError(ValueError):
    """The options and the columns do not fit; the message names the column, and what to change."""
