"""`ingraph doctor`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the checks as one JSON document.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Say whether this machine has what ingraph needs.

    One line per point: Python, glibc, libstdc++, TensorFlow, TFX, kfp, the model loader, disk space in the current
    directory, network; and what to do where something is not fine. Takes about 15 seconds.

    Exit status: 0 when everything needed is fine (warnings included), 1 when there is a problem.
    """
    from pipeline.doctor import State, diagnose

    checks = []
    for check in diagnose(Path.cwd()):
        checks.append(check)
        if not as_json:
            state = click.style(f"{check.state:8}", fg=COLOURS[check.state])
            click.echo(f"{state} {check.name:13} {check.detail}" + (f". {check.advice}" if check.advice else ""))
    fine = all(check.state != State.PROBLEM for check in checks)
    if as_json:
        click.echo(json.dumps({"fine": fine, "checks": [dataclasses.asdict(check) for check in checks]}, indent=2))
    context.exit(0 if fine else 1)
