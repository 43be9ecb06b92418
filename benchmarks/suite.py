"""The suite that `make bench` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from benchmarks.harness.running import Benchmark

SUITE = (
    Benchmark(
        "start-up",
        "Start-up",
        "benchmarks.start_up",
        arguments=("--turns", "3"),
        short=("--turns", "1"),
    ),
    Benchmark(
        "edit-loop",
        "From an edit to an answer, as a person waits for it",
        "benchmarks.edit_loop",
        arguments=("--turns", "2"),
        short=("--turns", "1"),
    ),
    Benchmark(
        "tabular-pipelines",
        "Hearts: ingraph, a plain Keras script and TFX's own components",
        "benchmarks.pipelines",
        arguments=("hearts", "--turns", "2"),
        short=("hearts", "--turns", "1"),
    ),
    Benchmark(
        "text-pipeline",
        "Reviews: the whole pipeline",
        "benchmarks.pipelines",
        arguments=("reviews",),
    ),
    Benchmark(
        "image-pipeline",
        "Digits: the whole pipeline, beside scikit-learn on the same split",
        "benchmarks.image.quality",
    ),
    Benchmark(
        "flowers",
        "Flowers: the whole pipeline, 15 photos of each of 12 species",
        "benchmarks.image.quality",
        arguments=("--flowers", "--photos-per-class", "15"),
        needs_images=True,
    ),
    Benchmark(
        "tabular-reading",
        "Tables: read and written as examples, beside pyarrow",
        "benchmarks.tabular.reading",
        arguments=("--rows", "1000000"),
        short=("--rows", "100000"),
    ),
    Benchmark(
        "tabular-scale",
        "Rows: time and memory by their number",
        "benchmarks.scale",
        arguments=("rows", "10000", "100000", "1000000"),
        short=("rows", "1000", "10000"),
    ),
    Benchmark(
        "text-scale",
        "Texts: time and memory by their number",
        "benchmarks.scale",
        arguments=("texts", "5000", "20000"),
    ),
    Benchmark(
        "image-scale",
        "Photos: time and memory by their number",
        "benchmarks.scale",
        arguments=("photos", "500", "5000"),
    ),
    Benchmark(
        "serving-overhead",
        "Serving: what a request costs on top of the model",
        "benchmarks.serving.overhead",
        arguments=("--requests", "2000"),
        short=("--requests", "300"),
    ),
    Benchmark(
        "serving-throughput",
        "Serving: photos of 16 clients",
        "benchmarks.serving.throughput",
        arguments=("--photos", "48"),
    ),
    Benchmark(
        "image-graph",
        "Photos: the served graph beside its network",
        "benchmarks.image.graph",
        arguments=("--turns", "9"),
    ),
    Benchmark(
        "tabular-quality",
        "Tables: quality beside five libraries, of few splits",
        "benchmarks.tabular.quality",
        arguments=("--splits", "2", "--tables", "heart", "breast_cancer", "abalone", "penguins"),
    ),
    Benchmark(
        "text-quality",
        "Reviews: quality beside scikit-learn",
        "benchmarks.text.quality",
        arguments=("--splits", "2"),
    ),
)


def chosen_benchmarks(only: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of these names, all where there are none."""
    return [benchmark for benchmark in SUITE if not only or benchmark.name in only]


def suite_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options `--short` and `--only`."""
    names = click.Choice([benchmark.name for benchmark in SUITE])
    only = click.option("--only", type=names, multiple=True, help="Only this one; may be given several times.")
    short = click.option("--short", is_flag=True, help="Smaller sizes, fewer turns, and not all of them.")
    return short(only(command))
