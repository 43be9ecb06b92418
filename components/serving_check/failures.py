"""Why a candidate cannot answer; each becomes a reason in the report."""


class ModelUnavailable(Exception):
    """The model does not load, or what runs it has ended: nothing more can be asked."""


class RequestRefused(Exception):
    """The model is there and refuses this request."""
