"""Why a candidate cannot answer; each becomes a reason in the report."""


class ModelUnavailable(Exception):  # noqa: N818 (an outcome of the check, not a fault of it)
    """The model does not load, or what runs it has ended: nothing more can be asked."""


class RequestRefused(Exception):  # noqa: N818
    """The model is there and refuses this request."""
