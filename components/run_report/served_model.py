"""The model that is served, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServedModel:
    """The lineage of a published version; "" for what is not recorded.

    Attributes:
        version: its number in the model base path.
        path: where it lies.
        published_at: when, in ISO 8601.
        run_id: the run that made it.
        data_fingerprint: of the examples it was trained and evaluated on.
        code_fingerprint: of the code and the config that made it.
        data_spans: the spans that it learned from, the oldest first; () where its data did not come in spans.
    """

    version: int
    path: str
    published_at: str = ""
    run_id: str = ""
    data_fingerprint: str = ""
    code_fingerprint: str = ""
    data_spans: tuple[str, ...] = ()
