"""`ingraph submit`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.config_options import config_options
from pipeline.run_time_parameters import run_time_parameters
from pipeline.status_of_error import status_of_error

if TYPE_CHECKING:
    from pipeline.cluster_pipeline import Target


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
    from pipeline.cluster_pipeline import cluster_pipeline
    from pipeline.config import load_config
    from pipeline.quiet_output import quiet_output
    from pipeline.runners.kubeflow import submit_to_kubeflow
    from pipeline.runners.run_request import RunRequest
    from pipeline.runners.vertex import submit_to_vertex

    submit_to, ending = {"kubeflow": (submit_to_kubeflow, ".yaml"), "vertex": (submit_to_vertex, ".json")}[target]
    try:
        loaded = load_config(config, overrides)
        with quiet_output(Path(os.devnull)), tempfile.TemporaryDirectory() as folder:
            from pipeline.runners.write_job import write_job

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
