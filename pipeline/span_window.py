"""Which spans a run learns from, and which of them are new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.errors import BrokenInput
from components.table_file import TableFile
from pipeline.config import DataOptions, PhotoDataOptions
from pipeline.find_spans import Span, find_spans
from pipeline.span_photos import span_photos
from serving.model_store import ModelVersion

# In the provenance of a version: the spans that it learned from, name -> fingerprint.
DATA_SPANS = "data_spans"


@dataclass(frozen=True)
class SpanWindow:
    """The spans of a run, each the oldest first.

    Attributes:
        spans: what the model learns from.
        empty: names of spans that were passed over, since they hold no row or no photo.
        unseen: those of `spans` that the served version did not learn from, as far as is known.
        previous: the newest span that it did learn from and that is still as it was; None where there is none.
        last_published: the newest version, served or withdrawn, if it learned from just these spans: nothing is new.
    """

    spans: tuple[Span, ...]
    empty: tuple[str, ...]
    unseen: tuple[Span, ...]
    previous: Span | None
    last_published: ModelVersion | None

    def fingerprints(self) -> dict[str, str]:
        """Name -> fingerprint, as the provenance has it."""
        return {span.name: span.fingerprint for span in self.spans}

    def __str__(self) -> str:
        names = [span.name for span in self.spans]
        said = f"span {names[0]}" if len(names) == 1 else f"{len(names)} spans, {names[0]} to {names[-1]}"
        return said + (f"; without rows: {', '.join(self.empty)}" if self.empty else "")


def span_window(data: DataOptions, versions: Sequence[ModelVersion]) -> SpanWindow:
    """Choose the newest spans that hold rows, or photos.

    Args:
        data: of a config with spans.
        versions: what is in the model base path, highest first: each says what it learned from.

    Raises:
        BrokenInput: there are no spans with rows or photos, or a file of one of them is no table.
    """
    assert data.spans is not None
    found = find_spans(data.spans.path)
    spans: list[Span] = []
    empty: list[str] = []
    for span in reversed(found):
        if _has_rows(span, data):
            spans.append(span)
        else:
            empty.append(span.name)
        if len(spans) == data.spans.window:
            break
    if not spans:
        raise BrokenInput(
            f"{data.spans.path}: no span holds a row or a photo, of {len(found)} that are there; expected one at least"
        )
    spans.reverse()
    served = _learned_from(next((version for version in versions if not version.withdrawn), None))
    known = [span for span in found if span.name in served and served[span.name] == span.fingerprint]
    return SpanWindow(
        spans=tuple(spans),
        empty=tuple(reversed(empty)),
        unseen=tuple(span for span in spans if span not in known),
        previous=known[-1] if known else None,
        last_published=_newest_of_same_data(spans, versions),
    )


def _newest_of_same_data(spans: Sequence[Span], versions: Sequence[ModelVersion]) -> ModelVersion | None:
    if not versions:
        return None
    return versions[0] if _learned_from(versions[0]) == {span.name: span.fingerprint for span in spans} else None


def _learned_from(version: ModelVersion | None) -> Mapping[str, str]:
    return version.provenance.get(DATA_SPANS, {}) if version else {}


def _has_rows(span: Span, data: DataOptions) -> bool:
    if isinstance(data, PhotoDataOptions):
        return any(True for _ in span_photos(span))
    return any(next(TableFile(path, data.format).rows(), None) is not None for path in span.files)
