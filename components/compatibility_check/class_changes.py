"""How the classes of two models differ."""

from __future__ import annotations

from collections.abc import Sequence


def class_changes(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """A sentence for each kind of difference; none where the classes and their order are the same.

    Args:
        before: the labels of the served model, in the order of their probabilities.
        after: those of the candidate.
    """
    allowed = "or set data.spans.class_changes to allow"
    new = [label for label in after if label not in before]
    vanished = [label for label in before if label not in after]
    changes = []
    if new:
        changes.append(f"new class {_quoted(new)}; correct the label in the data, {allowed}")
    if vanished:
        changes.append(f"class {_quoted(vanished)} is gone; add examples of it, {allowed}")
    if not changes and list(before) != list(after):
        changes.append(
            f"the classes are in another order, {_quoted(after)}, before {_quoted(before)}; put "
            f"preprocessing.label.order back, {allowed}"
        )
    return changes


def _quoted(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels))
