"""The console script `ingraph`."""

from __future__ import annotations

import importlib

import click

# The module of each command that is not pipeline/commands/<name>.py. Modules are imported when they are used, since
# TensorFlow and TFX take seconds to load.
_MODULES = {
    "audit": "doctor",
    "report": "runs",
    "retrain": "run",
    "tune": "run",
    "compile": "cluster",
    "rehearse": "cluster",
    "submit": "cluster",
}
COMMANDS = {
    "init": "Look at data, and write a config to begin with.",
    "run": "Train, check and publish the model that a config describes.",
    "retrain": "Train on new data, if some came, and publish what passes.",
    "tune": "Search for the trainer's options that suit the data best.",
    "compile": "Write a pipeline spec for Kubeflow Pipelines or Vertex AI.",
    "rehearse": "Run a compiled pipeline here, without a cluster.",
    "submit": "Start a run on Kubeflow Pipelines or Vertex AI.",
    "schedule": "Train anew by daemon, cron, systemd, Kubeflow, Vertex AI or Airflow.",
    "report": "Make the report of a run anew, or compare two runs.",
    "runs": "List past runs, or show one.",
    "serve": "Serve published models over REST and gRPC.",
    "predict": "Ask a served model for labels.",
    "score": "Score files with a published model.",
    "skew": "Compare what a served model is asked with what it learned from.",
    "replay": "Ask a new model what the served one was asked, and say what changes.",
    "truth": "Join late labels with what was answered: how good the model is in the field.",
    "models": "List, withdraw, restore and prune published versions.",
    "audit": "Say what is known against the dependencies, and their licences.",
    "doctor": "Say whether this machine has what ingraph needs.",
}


class LazyGroup(click.Group):
    """A command group that imports a command's module only when that command is used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"pipeline.commands.{_MODULES.get(name, name)}"), name)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ingraph")
def main() -> None:
    """Raw data in, a label out: train with TFX, serve with TensorFlow Serving."""
