"""May the new model go live? The answer first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from components.run_report.finished_run import FinishedRun
from components.run_report.gate import Gate


@dataclass(frozen=True)
class Headline:
    """The answer of a report.

    Attributes:
        mood: `good` where a model of this run is live, `bad` where none is.
        title: the answer, a short sentence.
        reasons: why.
        consequence: what is served now.
    """

    mood: Literal["good", "bad"]
    title: str
    reasons: tuple[str, ...]
    consequence: str


def headline(run: FinishedRun, gates: Sequence[Gate]) -> Headline:
    """The answer, from the gates and what is served."""
    served = f"Version {run.served.version} is served now." if run.served else "No version is served now."
    pushed = run.artifacts.get("pushed_model")
    if pushed and pushed.flag("pushed"):
        passed = [gate for gate in gates if gate.verdict == "passed"]
        reason = f"All {len(passed)} gates passed. {pushed.text('reason').capitalize()}."
        left_out = (f"{gate.name} had nothing to judge." for gate in gates if gate.verdict == "not needed")
        return Headline("good", "The new model may go live.", (reason, *left_out, *_demands(gates)), served)
    stopped = next((gate for gate in gates if gate.verdict == "failed"), None)
    if stopped is not None:
        return Headline("bad", f"The new model may not go live: {stopped.name} says no.", stopped.reasons, served)
    failed = next((step.name for step in run.steps if step.state == "failed"), "")
    where = f"the run ended in {failed}" if failed else "the run did not come to its end"
    return Headline("bad", f"There is no new model: {where}.", tuple(run.ended.splitlines()), served)


def _demands(gates: Sequence[Gate]) -> tuple[str, ...]:
    """How good the model had to be, and how good it is."""
    checks = [check for gate in gates if gate.name == "Evaluator" for check in gate.checks]
    if not checks:
        return ()
    return ("It is as good as the config demands: " + "; ".join(f"{one.demand}: {one.found}" for one in checks) + ".",)
