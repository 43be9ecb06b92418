"""A benchmark of the suite."""

from __future__ import annotations

from dataclasses import dataclass

TEST_DATA = "INGRAPH_TEST_DATA"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, and how much of it is run.

    Attributes:
        name: what `--only` takes.
        title: what it is about.
        module: run by `python -m`.
        arguments: of the whole suite, which is to end in 40 minutes on two cores.
        short: of the short form, which is to end in five; None where it is left out of it.
        needs_photos: whether it needs the photos in $INGRAPH_TEST_DATA, see CONTRIBUTING.md.
    """

    name: str
    title: str
    module: str
    arguments: tuple[str, ...] = ()
    short: tuple[str, ...] | None = None
    needs_photos: bool = False
