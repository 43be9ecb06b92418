"""`ingraph compile`, `ingraph rehearse` and `ingraph submit`: a pipeline for Kubeflow Pipelines and Vertex AI."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from components.errors import BrokenInput
from pipeline.commands.run import config_options
from pipeline.exit_status import status_of_error

if TYPE_CHECKING:
    from pipeline.runners.compile import Target


def run_time_parameters(pairs: Iterable[str]) -> dict[str, str]:
    """`NAME=VALUE` strings as a dict.

    Raises:
        BrokenInput: one has no `=` or no name.
    """
    parameters = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise BrokenInput(f"--parameter {pair}: expected NAME=VALUE, data=gs://BUCKET/data for example")
        parameters[name] = value
    return parameters


@click.command(
    epilog="Exit status: 0 the file was written; 2 the config or the data cannot be used, or say too little."
)
@config_options("Override a key: cluster.image=….", "Where runs/ is made.")
@click.option("--target", required=True, type=click.Choice(["kubeflow", "vertex"]), help="What is going to run it.")
@click.option(
    "-o", "--output", required=True, type=click.Path(), help="The file: .json for Vertex, .yaml for Kubeflow."
)
@click.option(
    "--stage", is_flag=True, help="Copy the files of this machine that a run needs, as `ingraph submit` does."
)
def compile(config: str, target: Target, output: str, overrides: tuple[str, ...], stage: bool, workdir: str) -> None:
    """Write the pipeline that CONFIG describes as a pipeline spec; nothing is sent anywhere, unless --stage is given.

    Says which files of this machine a run needs, and where.

    \b
    ingraph compile configs/heart.yaml --target kubeflow -o heart.yaml \\
        --set cluster.image=REGISTRY/ingraph:TAG --set cluster.pipeline_root=gs://BUCKET/ingraph
    """
    from components.errors import RunStopped
    from pipeline.config import load_config
    from pipeline.runners.compile import cluster_pipeline
    from serving.loading import quiet_output

    try:
        loaded = load_config(config, overrides)
        with quiet_output(Path(os.devnull)):
            from pipeline.runners.compile import write_job

            compiled = cluster_pipeline(loaded, target, Path(workdir, loaded.runs, loaded.name, "data"))
            write_job(compiled.job, output)
            for file in compiled.staged if stage else []:
                file.copy()
    except RunStopped as stopped:
        click.echo(str(stopped), err=True)
        sys.exit(status_of_error(stopped))
    click.echo(f"{output}: {len(compiled.job['pipelineSpec']['root']['dag']['tasks'])} steps, for {target}")
    click.echo(f"publishes into {compiled.base_path}")
    for file in compiled.staged:
        click.echo(f"{'has' if stage else 'needs'} {file.remote}, a copy of {file.local}")


@click.command(
    epilog="Exit status: 0 every step ended well; otherwise that of the step that failed, as `ingraph run` has them."
)
@click.argument("spec", type=click.Path())
@click.option("--root", default="rehearsal", show_default=True, type=click.Path(), help="Takes artifacts and logs.")
@click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A runtime parameter: data=DIR.")
def rehearse(spec: str, root: str, parameters: tuple[str, ...]) -> None:
    """Run what `ingraph compile` wrote without a cluster: every step's container command, one after the other, here.

    The commands run in this Python instead of the image, forked from a process that has loaded TFX. Compile with a
    pipeline root of this machine:

    \b
    ingraph compile configs/heart.yaml --target kubeflow -o heart.yaml --stage \\
        --set cluster.image=unused --set cluster.pipeline_root=$PWD/rehearsal
    ingraph rehearse heart.yaml
    """
    from components.errors import RunStopped
    from serving.loading import quiet_output

    with quiet_output(Path(os.devnull)) as screen:
        from pipeline.runners.rehearsal import StepFailed, rehearse_spec

        def step_ended(step: str, seconds: float) -> None:
            print(f"  {step:<18}{seconds:6.1f} s", file=screen, flush=True)

        try:
            outputs = rehearse_spec(spec, Path(root), run_time_parameters(parameters), step_ended)
        except RunStopped as stopped:
            print(f"stopped    {stopped}", file=screen)
            sys.exit(stopped.status if isinstance(stopped, StepFailed) else status_of_error(stopped))
        from components.run_report.component import REPORT_PAGE  # with all of TFX

        for step, output in outputs.items():
            for artifacts in output.artifacts.values():
                reason = artifacts.artifacts[0].metadata.fields["reason"].string_value
                if reason:
                    print(f"{step}: {reason}", file=screen)
        for artifact in outputs["RunReport"].artifacts["report"].artifacts if "RunReport" in outputs else ():
            print(f"report     {artifact.uri}/{REPORT_PAGE}", file=screen)


@click.command(
    epilog="""Exit status: 0 the run was started; 2 the config or the data cannot be used, or there are no credentials;
    7 the cluster could not be reached, or did not take the run."""
)
@config_options("Override a key: cluster.project=….", "Where runs/ is made.")
@click.option("--target", required=True, type=click.Choice(["kubeflow", "vertex"]), help="What runs the pipeline.")
@click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A runtime parameter: data=DIR.")
def submit(config: str, target: Target, overrides: tuple[str, ...], parameters: tuple[str, ...], workdir: str) -> None:
    """Compile CONFIG, copy the files of this machine that it needs, and start a run on a cluster.

    \b
    ingraph submit configs/heart.yaml --target vertex --set cluster.image=REGISTRY/ingraph:TAG \\
        --set cluster.pipeline_root=gs://BUCKET/ingraph --set cluster.project=PROJECT --set cluster.region=europe-west4
    """
    from components.errors import RunStopped
    from pipeline.config import load_config
    from pipeline.runners.compile import RunRequest, cluster_pipeline
    from pipeline.runners.kubeflow import submit_to_kubeflow
    from pipeline.runners.vertex import submit_to_vertex
    from serving.loading import quiet_output

    submit_to, ending = {"kubeflow": (submit_to_kubeflow, ".yaml"), "vertex": (submit_to_vertex, ".json")}[target]
    try:
        loaded = load_config(config, overrides)
        with quiet_output(Path(os.devnull)), tempfile.TemporaryDirectory() as folder:
            from pipeline.runners.compile import write_job

            compiled = cluster_pipeline(loaded, target, Path(workdir, loaded.runs, loaded.name, "data"))
            file = str(Path(folder, f"{loaded.name}{ending}"))
            write_job(compiled.job, file)
            request = RunRequest(file, loaded.name, run_time_parameters(parameters), loaded.cluster)
            for staged in compiled.staged:
                staged.copy()
            address = submit_to(request)
    except RunStopped as stopped:
        click.echo(str(stopped), err=True)
        sys.exit(status_of_error(stopped))
    click.echo(f"started {address}")
    click.echo(f"publishes into {compiled.base_path}")
