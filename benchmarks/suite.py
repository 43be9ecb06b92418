"""What `make bench` runs."""

from __future__ import annotations

from benchmarks.harness.benchmark import Benchmark

SUITE = (
    Benchmark(
        "start-up",
        "Start-up",
        "benchmarks.start_up",
        arguments=("--turns", "3"),
        short=("--turns", "1"),
    ),
    Benchmark(
        "tabular-pipelines",
        "Hearts: ingraph, a plain Keras script and TFX's own components",
        "benchmarks.tabular_pipelines",
        arguments=("--turns", "2"),
        short=("--turns", "1"),
    ),
    Benchmark(
        "text-pipeline",
        "Reviews: the whole pipeline",
        "benchmarks.text_pipeline",
    ),
    Benchmark(
        "image-pipeline",
        "Digits: the whole pipeline, beside scikit-learn on the same split",
        "benchmarks.image_quality",
    ),
    Benchmark(
        "flowers",
        "Flowers: the whole pipeline, 15 photos of each of 12 species",
        "benchmarks.image_quality",
        arguments=("--flowers", "--photos-per-class", "15"),
        needs_photos=True,
    ),
    Benchmark(
        "tabular-scale",
        "Rows: time and memory by their number",
        "benchmarks.tabular_scale",
        arguments=("--rows", "10000", "100000", "1000000"),
        short=("--rows", "1000", "10000"),
    ),
    Benchmark(
        "text-scale",
        "Texts: time and memory by their number",
        "benchmarks.text_scale",
        arguments=("--documents", "5000", "20000"),
    ),
    Benchmark(
        "image-scale",
        "Photos: time and memory by their number",
        "benchmarks.image_scale",
        arguments=("--photos", "500", "5000"),
    ),
    Benchmark(
        "serving-overhead",
        "Serving: what a request costs on top of the model",
        "benchmarks.serving_overhead",
        arguments=("--requests", "2000"),
        short=("--requests", "300"),
    ),
    Benchmark(
        "serving-throughput",
        "Serving: photos of 16 clients",
        "benchmarks.serving_throughput",
        arguments=("--photos", "48"),
    ),
    Benchmark(
        "image-graph",
        "Photos: the served graph beside its network",
        "benchmarks.image_graph",
        arguments=("--turns", "9"),
    ),
    Benchmark(
        "tabular-quality",
        "Hearts: quality beside scikit-learn",
        "benchmarks.tabular_quality",
        arguments=("--splits", "5"),
    ),
    Benchmark(
        "text-quality",
        "Reviews: quality beside scikit-learn",
        "benchmarks.text_quality",
        arguments=("--splits", "2"),
    ),
)
