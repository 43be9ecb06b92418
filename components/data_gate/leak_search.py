"""What the search for leaks looks at, as a component is told; a config says it, and waits for no library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

DUPLICATES = "duplicates"


@dataclass(frozen=True)
class LeakSearch:
    """Which columns are searched for leaks, and which findings are known already.

    Attributes:
        columns: those that a model sees; () for each but the label and what is ignored.
        ignored: columns of which no model sees anything.
        label_names: raw value of the label -> what it is called, where that is something else.
        allow: columns of which nothing is to be said; DUPLICATES for rows that stand in both splits.
    """

    columns: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    label_names: Mapping[str, str] = field(default_factory=dict)
    allow: tuple[str, ...] = ()

    @property
    def can_ignore(self) -> bool:
        """Whether a config can leave a column out: not where it names the one column that there is."""
        return not self.columns

    @property
    def allows_duplicates(self) -> bool:
        """Whether rows that stand in both splits are known."""
        return DUPLICATES in self.allow

    def as_json(self) -> str:
        """A parameter of a component."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> LeakSearch:
        """What `as_json` wrote."""
        given = json.loads(text)
        lists = {name: tuple(given[name]) for name in ("columns", "ignored", "allow")}
        return cls(label_names=given["label_names"], **lists)
