"""The screen of a run: what a person sees while it runs and when it has ended, with a sample prediction."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import yaml
from rich.console import Console
from rich.markup import escape as _without_markup
from rich.table import Table

from components.errors import printable
from pipeline.options import RunConfig
from pipeline.tasks import TASKS

if TYPE_CHECKING:
    from components.tuner import Trials
    from pipeline.history import RunOutcome


STEP = "  {:<18}"


def escape(text: str) -> str:
    """A text that rich shows as it is: no markup, no characters that control a terminal."""
    return _without_markup(printable(text))


class RunScreen:
    """Prints the progress and the end of a run, a line at a time.

    Args:
        stream: where to print.
        log: the file that the libraries write to.
    """

    def __init__(self, stream: TextIO, log: Path | None) -> None:
        self._console = Console(file=stream, highlight=False, soft_wrap=True, emoji=False)
        self._log = log

    @classmethod
    def without_log(cls) -> RunScreen:
        """A screen for what goes wrong before there is a log file."""
        return cls(sys.stdout, None)

    def begin(self, name: str, run_id: str) -> None:
        self._print(f"[bold]{name}[/bold]: run {run_id}")
        self._print(f"the libraries' full log is {escape(str(self._log))}")

    def data(self, findings: str) -> None:
        """What the data file holds."""
        self._print(f"data: {escape(findings)}")

    def warning(self, finding: str) -> None:
        """What a person should know of the data."""
        self._print(f"[yellow]warning[/yellow]    {escape(finding)}")

    def loading(self) -> None:
        self._print("loading TFX …")

    def node_started(self, node: str) -> None:
        if self._console.is_terminal:
            self._console.print(STEP.format(node) + "…", end="\r")

    def node_ended(self, node: str, seconds: float, cached: bool) -> None:
        # A blank ends the longest names, too.
        self._print(STEP.format(f"{node} ") + ("unchanged" if cached else f"{seconds:6.1f} s"))

    def outcome(self, outcome: RunOutcome, seconds: float, wraps: bool = False, published: bool = True) -> None:
        """The verdicts, and where the model lies.

        Args:
            outcome: of the run.
            seconds: that its pipeline took.
            wraps: whether the model came from elsewhere.
            published: whether it was to be published.
        """
        self._print(STEP.format("pipeline") + f"{seconds:6.1f} s\n")
        for warning in outcome.warnings:
            self._print(f"[yellow]warning[/yellow]    {escape(warning)}")
        metrics = ", ".join(f"{escape(name)} {value:.4g}" for name, value in sorted(outcome.metrics.items()))
        self._print(f"metrics    {metrics or 'none: no example of the eval split has a label of the model'}")
        self._verdict("evaluation", outcome.blessed, "every threshold holds", outcome.evaluation_reason)
        # What a wrapped model is compared with is itself: nothing was trained.
        fine = "answers as the wrapped model does in its own library" if wraps else "answers as the training graph does"
        self._verdict("serving", outcome.infra_blessed, fine, outcome.infra_reason)
        if outcome.infra_remark:
            self._print(f"{'':<10} {escape(outcome.infra_remark)}")
        if outcome.replay_blessed is not None:
            self._verdict("replay", outcome.replay_blessed, escape(outcome.replay_remark), outcome.replay_reason)
        if not published:
            self._print("publishing nothing: this was a quick run, whose verdict on quality does not count")
        elif outcome.pushed:
            where = escape(f"{outcome.pushed_reason}: {outcome.pushed_destination}")
            self._print(f"[green]publishing[/green] {where}")
        else:
            self._print(f"[red]publishing[/red] {escape(outcome.pushed_reason)}")

    def trials(self, trials: Trials, tensorboard: str, seconds: float) -> None:
        """A search for hyperparameters: each trial, the best first, and what to do with the best."""
        best = trials.ranked[0]
        options, metrics = list(best.values), sorted(best.metrics, key=lambda name: name != trials.objective)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("trial", *metrics, *options):
            table.add_column(heading, overflow="fold")
        for trial in trials.ranked:
            found = [f"{trial.metrics[name]:.4f}" for name in metrics] if trial.metrics else ["failed", "", ""]
            table.add_row(trial.number, *found, *(_option(trial.values[name]) for name in options))
        self._print(STEP.format("pipeline") + f"{seconds:6.1f} s\n")
        # A pipe has no width; lines must stay whole there.
        width = None if self._console.is_terminal else 400
        Console(file=self._console.file, width=width, highlight=False, emoji=False).print(table)
        for trial in trials.ranked:
            if trial.failure:
                self._print(f"[yellow]warning[/yellow]    trial {trial.number} failed: {escape(trial.failure)}")
        found_values = yaml.safe_dump({"trainer": _nested(best.values)}, default_flow_style=None, sort_keys=False)
        self._print(f"\nbest values, which `ingraph run` with the same config trains with:\n{escape(found_values)}")
        self._print(f"tensorboard --logdir {escape(shlex.quote(tensorboard))}")

    def answers(self, sample: SamplePrediction) -> None:
        """What the served model said to a raw row."""
        for protocol, label in (("REST", sample.rest), ("gRPC", sample.grpc)):
            self._print(f"{protocol:<10} {escape(_pairs(sample.shown))} -> [bold green]{escape(label)}[/bold green]")

    def tried_out(self, examples: int) -> None:
        """That a quick run came to its end, and what to type next."""
        self._print(
            f"\nquick      every step works, with at most {examples} examples of each split and few epochs; without "
            "--quick, `ingraph run` learns from all of them and publishes"
        )

    def sample(self, name: str, base_path: str, sample: SamplePrediction) -> None:
        """What the served model said to a raw row, and what to type next."""
        for line in _tried_models(base_path):
            self._print(escape(line))
        self.answers(sample)
        commands = (
            ("serve", "--model", f"{name}={base_path}"),
            ("predict", name, *sample.arguments),
            ("models", "list", base_path),
        )
        self._print("\nnext:")
        for command in commands:
            self._print(f"  ingraph {escape(shlex.join(command))}")

    def repeats(self, run_id: str) -> None:
        """That nothing has changed since an earlier run."""
        self._print(f"nothing has changed since run {escape(run_id)}, whose model is served: no step runs again")

    def stopped(self, reason: str) -> None:
        """Why the run ended without a model."""
        self._print(f"[red]stopped[/red]    {escape(reason)}")
        if self._log:
            self._print(f"the full log is {escape(str(self._log))}")

    def report(self, path: Path) -> None:
        """Where the report lies."""
        self._print(f"\nreport     {escape(str(path))}")

    def no_report(self, reason: str) -> None:
        """Why there is none."""
        self._print(f"\nno report  {escape(reason)}")

    def _verdict(self, gate: str, blessed: bool | None, fine: str, reason: str) -> None:
        mark = "[green]" if blessed else "[red]"
        self._print(f"{mark}{gate:<10}[/] {fine if blessed else f'no: {escape(reason)}'}")

    def _print(self, line: str) -> None:
        self._console.print(line)
        self._console.file.flush()


def _option(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(json.dumps(value).strip('"'))


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"augmentation.crop": 0.1} as {"augmentation": {"crop": 0.1}}."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *holders, last = name.split(".")
        section = nested
        for holder in holders:
            section = section.setdefault(holder, {})
        section[last] = value
    return nested


def _pairs(row: Mapping[str, str]) -> str:
    return " ".join(shlex.quote(f"{name}={value}") for name, value in row.items())


@dataclass(frozen=True)
class SamplePrediction:
    """What a published model answers to the first example of its data.

    Attributes:
        shown: input -> value, for people.
        rest: the label over REST.
        grpc: the label over gRPC.
        arguments: of `ingraph predict`.
    """

    shown: Mapping[str, str]
    rest: str
    grpc: str
    arguments: Sequence[str]


def _tried_models(base_path: str) -> list[str]:
    """What `auto` tried for the served model of texts or photos, a line each; [] where nothing was."""
    from serving.model_store import served_version

    served = served_version(base_path)
    provenance = served.provenance if served is not None else {}
    if tried := provenance.get("texts", {}).get("tried"):
        first = f"{'model':<10} {tried['kept']}, for {tried['why']}; on {tried['rows']:,} rows that it did not see:"
        unit = "text"
    elif tried := provenance.get("backbones"):
        photos = tried["members"][tried["kept"]]["photos"]
        first = f"{'backbone':<10} {tried['kept']}, for {tried['why']}; by {photos:,} photos, each left out:"
        unit = "photo"
    else:
        return []
    lines = [first]
    for name, one in tried["members"].items():
        accuracy, low, high = one["accuracy"]
        loss = f"cross_entropy {one['cross_entropy'][0]:.3f}, " if "cross_entropy" in one else ""
        lines.append(
            f"{'':<10} {name}: accuracy {accuracy:.3f} ({low:.3f} to {high:.3f}), {loss}"
            f"{one['milliseconds']:.2f} ms a {unit}"
        )
    if tried.get("left_out"):
        lines.append(f"{'':<10} there are no weights of {', '.join(tried['left_out'])}")
    return lines


def sample_prediction(config: RunConfig, base_path: str, data: str) -> SamplePrediction:
    """Serve a model for a moment, and ask it for the first example of its data over REST and over gRPC.

    Args:
        config: of the run that published it.
        base_path: the model base path.
        data: what the run learned from, the path of pipeline.data.RawData.
    """
    from serving.client.grpc import GrpcClient
    from serving.client.rest import RestClient
    from serving.server.app import EmbeddedServer
    from serving.server.config import LoadPolicy
    from serving.server.options import ServerOptions

    name = config.name
    options = ServerOptions(rest_port=0, grpc_port=0, load_policy=LoadPolicy(load_retries=0, warm_up=False))
    with (
        EmbeddedServer({name: base_path}, options) as server,
        RestClient(server.host, server.rest_port) as rest,
        GrpcClient(server.host, server.grpc_port) as grpc,
    ):
        inputs = rest.metadata(name).signatures["serving_default"].inputs
        sample = TASKS[config.task].sample_request(config, data, inputs)
        return SamplePrediction(
            shown=sample.shown,
            rest=rest.predict(name, sample.rest)["output_0"][0],
            grpc=grpc.predict(name, sample.grpc)["output_0"][0].decode(),
            arguments=sample.arguments,
        )
