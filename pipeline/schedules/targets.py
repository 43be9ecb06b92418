"""Targets of a schedule: what each is given, what it does, and which options it does not support.

The modules beside this one hold one or two targets each, a `ScheduleTarget` in capitals.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tzlocal import get_localzone_name

from components.errors import BrokenInput
from pipeline.options import RunConfig, ScheduleOptions


def _breaks_lines(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


@dataclass(frozen=True)
class ScheduledCommand:
    """A command and when to start it.

    Attributes:
        name: of the model.
        options: when.
        command: the program, by its absolute path, and its arguments.
        workdir: where it runs, an absolute path.

    Raises:
        BrokenInput: one of them has a character that would begin another line in a crontab, a unit or a DAG file.
    """

    name: str
    options: ScheduleOptions
    command: tuple[str, ...]
    workdir: str

    def __post_init__(self) -> None:
        for text in (self.name, *self.command, self.workdir):
            if control := next((character for character in text if _breaks_lines(character)), None):
                raise BrokenInput(
                    f"{text!r} has the control character {control!r}, which would begin another line of a schedule: "
                    "expected a name, path or value without any; give it another name"
                )

    @property
    def schedule_name(self) -> str:
        """The name of its systemd units, DAG, recurring run: `ingraph-` and that of the model."""
        return f"ingraph-{self.name}"


def scheduled_command(config: RunConfig, path: str, overrides: Sequence[str], workdir: str) -> ScheduledCommand:
    """`ingraph retrain` of a config as its `schedule` says.

    Args:
        config: as loaded.
        path: of its file.
        overrides: of its keys, as given to the command line.
        workdir: where runs/ and models/ are.

    Raises:
        BrokenInput: the config has no schedule.
    """
    if config.schedule.cron is None:
        raise BrokenInput(f'{path}: schedule.cron is missing: say when, `schedule: {{cron: "0 3 * * *"}}` for example')
    ingraph = str(Path(sys.executable).with_name("ingraph"))
    settings = [part for override in overrides for part in ("--set", override)]
    command = (ingraph, "retrain", str(Path(path).resolve()), *settings)
    return ScheduledCommand(config.name, config.schedule, command, str(Path(workdir).resolve()))


def require_spans(config: RunConfig, path: str) -> None:
    """Refuse a config that `ingraph retrain` cannot use, before the first run is due.

    Raises:
        BrokenInput: its data do not come in spans.
    """
    if config.data.spans is None:
        raise BrokenInput(
            f"{path}: data.spans is missing: a schedule on this machine or Airflow runs `ingraph retrain`, which "
            "trains on the newest spans"
        )


@dataclass(frozen=True)
class ScheduleRequest:
    """What a target is asked to show, apply or remove.

    Attributes:
        config: of the model.
        path: of the config's file.
        scheduled: the command to start, and when.
        folder: where files go, None for the target's usual place.
    """

    config: RunConfig
    path: str
    scheduled: ScheduledCommand
    folder: Path | None


@dataclass(frozen=True)
class ScheduleTarget:
    """What starts the runs of a schedule; each function returns what to print, and raises RunStopped.

    Attributes:
        show: what `apply` would hand over; changes nothing.
        apply: hands the schedule over, in place of the one that is there for the same model.
        remove: takes it away; runs that go on are left alone.
    """

    show: Callable[[ScheduleRequest], str]
    apply: Callable[[ScheduleRequest], str]
    remove: Callable[[ScheduleRequest], str]


Target = Literal["local", "crontab", "systemd", "kubeflow", "vertex", "airflow"]

_OVERLAP_NOTES: dict[tuple[str, str], str] = {
    ("systemd", "queue"): "systemd keeps no run waiting: one that falls due while another runs is skipped",
    ("kubeflow", "skip"): "Kubeflow Pipelines starts a run that fell due while another ran when that one has ended",
}
_CATCH_UP_NOTES: dict[tuple[str, str], str] = {
    ("crontab", "latest"): "cron makes up for no missed run",
    ("crontab", "all"): "cron makes up for no missed run",
    ("systemd", "all"): "systemd makes up for the latest missed run only",
    ("kubeflow", "none"): "Kubeflow Pipelines makes up for the latest missed run always",
    (
        "vertex",
        "latest",
    ): "Vertex AI makes up for missed runs only where a paused schedule is resumed so, and then for all",
    ("vertex", "all"): "Vertex AI makes up for missed runs only where a paused schedule is resumed so",
    ("airflow", "none"): "Airflow makes up for the latest missed run always",
}


def unsupported_options(options: ScheduleOptions, target: Target) -> list[str]:
    """A sentence for each option of a schedule that a target does not support as it stands."""
    sentences = []
    if sentence := _OVERLAP_NOTES.get((target, options.overlap)):
        sentences.append(f"schedule.overlap is {options.overlap}: {sentence}")
    if target == "airflow" and (options.overlap, options.catch_up) == ("skip", "all"):
        sentences.append("schedule.overlap is skip: Airflow, which catches up on all runs, keeps them waiting instead")
    if sentence := _CATCH_UP_NOTES.get((target, options.catch_up)):
        sentences.append(f"schedule.catch_up is {options.catch_up}: {sentence}")
    if target == "crontab" and options.time_zone.removeprefix("Etc/") != get_localzone_name().removeprefix("Etc/"):
        sentences.append(
            f"schedule.time_zone is {options.time_zone}: only a cron that knows CRON_TZ (cronie, not Debian's) heeds "
            f"it, others take the machine's zone, which is {get_localzone_name()} here"
        )
    return sentences


def write_schedule_files(folder: Path, files: Mapping[str, str]) -> str:
    """Write files, each in place of the one of its name; returns what was written, a line each.

    Raises:
        BrokenInput: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            part = folder / f".{name}.part"
            part.write_text(content, encoding="utf-8")
            part.rename(folder / name)
    except OSError as error:
        raise BrokenInput(f"{folder}: the schedule cannot be written: {error.strerror}") from error
    return "\n".join(f"wrote {folder / name}" for name in files)


def remove_schedule_files(folder: Path, names: Iterable[str]) -> str:
    """Remove files; returns what was removed, a line each.

    Raises:
        BrokenInput: one cannot be removed.
    """
    lines = []
    for name in names:
        path = folder / name
        try:
            path.unlink()
        except FileNotFoundError:
            lines.append(f"there is no {path}")
        except OSError as error:
            raise BrokenInput(f"{path}: cannot be removed: {error.strerror}") from error
        else:
            lines.append(f"removed {path}")
    return "\n".join(lines)
