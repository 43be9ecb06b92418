"""`ingraph rehearse`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pipeline.run_time_parameters import run_time_parameters
from pipeline.status_of_error import status_of_error


@click.command(
    epilog="Exit status: 0 every step ended well; otherwise that of the step that failed, as `ingraph run` has them."
)
@click.argument("spec", type=click.Path())
@click.option("--root", default="rehearsal", show_default=True, type=click.Path(), help="Takes artifacts and logs.")
@click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A runtime parameter: data=DIR.")
def rehearse(spec: str, root: str, parameters: tuple[str, ...]) -> None:
    """Run what `ingraph compile` wrote without a cluster: every step's container command, one after the other, here.

    The commands run in this Python instead of the image. Compile with a pipeline root of this machine:

    \b
    ingraph compile configs/heart.yaml --target kubeflow -o heart.yaml --stage \\
        --set cluster.image=unused --set cluster.pipeline_root=$PWD/rehearsal
    ingraph rehearse heart.yaml
    """
    from components.errors import RunStopped
    from pipeline.quiet_output import quiet_output

    with quiet_output(Path(os.devnull)) as screen:
        from components.run_report.report_artifact import REPORT_PAGE
        from pipeline.runners.rehearsal import StepFailed, rehearse_spec

        def step_ended(step: str, seconds: float) -> None:
            print(f"  {step:<18}{seconds:6.1f} s", file=screen, flush=True)

        try:
            outputs = rehearse_spec(spec, Path(root), run_time_parameters(parameters), step_ended)
        except RunStopped as stopped:
            print(f"stopped    {stopped}", file=screen)
            sys.exit(stopped.status if isinstance(stopped, StepFailed) else status_of_error(stopped))
        for step, output in outputs.items():
            for artifacts in output.artifacts.values():
                reason = artifacts.artifacts[0].metadata.fields["reason"].string_value
                if reason:
                    print(f"{step}: {reason}", file=screen)
        for artifact in outputs["RunReport"].artifacts["report"].artifacts if "RunReport" in outputs else ():
            print(f"report     {artifact.uri}/{REPORT_PAGE}", file=screen)
