"""`ingraph compile`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.config_options import config_options
from pipeline.status_of_error import status_of_error

if TYPE_CHECKING:
    from pipeline.cluster_pipeline import Target


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
    from pipeline.cluster_pipeline import cluster_pipeline
    from pipeline.config import load_config
    from pipeline.quiet_output import quiet_output

    try:
        loaded = load_config(config, overrides)
        with quiet_output(Path(os.devnull)):
            from pipeline.runners.write_job import write_job

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
