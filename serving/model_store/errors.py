"""What goes wrong with a model base path: each error carries one sentence for the person who reads it."""


class ModelStoreError(Exception):
    """The model base path, or what was to be done with it, is unusable; a server sees the same versions as before."""


class WithdrawnModelError(ModelStoreError):
    """The model to publish was withdrawn before."""
