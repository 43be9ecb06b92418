"""What of a schedule a target does otherwise than the config says."""

from __future__ import annotations

from typing import Literal

from tzlocal import get_localzone_name

from pipeline.schedule_options import ScheduleOptions

Target = Literal["local", "crontab", "systemd", "kubeflow", "vertex", "airflow"]

_OVERLAP: dict[tuple[str, str], str] = {
    ("systemd", "queue"): "systemd keeps no run waiting: one that falls due while another runs is skipped",
    ("kubeflow", "skip"): "Kubeflow Pipelines starts a run that fell due while another ran when that one has ended",
}
_CATCH_UP: dict[tuple[str, str], str] = {
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


def unheeded(options: ScheduleOptions, target: Target) -> list[str]:
    """A sentence for each key of a schedule that a target cannot do as it stands."""
    sentences = []
    if sentence := _OVERLAP.get((target, options.overlap)):
        sentences.append(f"schedule.overlap is {options.overlap}: {sentence}")
    if target == "airflow" and (options.overlap, options.catch_up) == ("skip", "all"):
        sentences.append("schedule.overlap is skip: Airflow, which catches up on all runs, keeps them waiting instead")
    if sentence := _CATCH_UP.get((target, options.catch_up)):
        sentences.append(f"schedule.catch_up is {options.catch_up}: {sentence}")
    if target == "crontab" and options.time_zone.removeprefix("Etc/") != get_localzone_name().removeprefix("Etc/"):
        sentences.append(
            f"schedule.time_zone is {options.time_zone}: only a cron that knows CRON_TZ (cronie, not Debian's) heeds "
            f"it, others take the machine's zone, which is {get_localzone_name()} here"
        )
    return sentences
