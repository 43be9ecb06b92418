"""Whole pipelines beside scripts.

    .venv/bin/python -m benchmarks.pipelines hearts [--turns 3]
    .venv/bin/python -m benchmarks.pipelines reviews

The hearts three ways: ingraph, TFX's own components with the obvious preprocessing, and a plain Keras script. The same
rows, the same kind of model, as many epochs; beside them ingraph with the model that it chooses by itself. They take
turns, each in a process of its own whose imports are not timed; told are medians. The script checks nothing and has no
graph for raw rows to be checked against; TFX's components do neither look at what is served now nor at whether the
export serves what was trained.

The reviews beside a script that reads the same file, fits scikit-learn's logistic regression on tf-idf of words and
pairs of words to four fifths of the texts, and classifies the rest; it checks nothing and leaves nothing that could be
served.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_model_analysis as tfma
import tensorflow_transform as tft
from sklearn.model_selection import train_test_split
from tfx import v1 as tfx
from tfx_bsl.public import tfxio

from benchmarks.edit_loop import BATCH_SIZE, CATEGORIES, EPOCHS, L2, LABEL, STEP_SIZE, plain_keras
from benchmarks.harness.pipelines import TimedRun, beside_script, timed_run
from benchmarks.harness.results import Goal, Measurement
from benchmarks.harness.running import own_process, report
from pipeline import demo_data
from pipeline.history import open_metadata_store, read_recorded_run, run_ids
from pipeline.runners.beam_engine import IN_MEMORY_RUNNER

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


MODULE = "benchmarks.pipelines"


def stock_run(csv_file: str, folder: str) -> TimedRun:
    """Run CsvExampleGen to Pusher on a CSV file.

    Raises:
        RuntimeError: nothing was pushed.
    """
    (Path(folder) / "data").mkdir()
    shutil.copy(csv_file, f"{folder}/data/rows.csv")
    pipeline = _pipeline(folder)
    started = time.perf_counter()
    tfx.orchestration.LocalDagRunner().run(pipeline)
    seconds = time.perf_counter() - started
    if not list(Path(folder, "pushed").glob("*/saved_model.pb")):
        raise RuntimeError("TFX's own components pushed nothing")
    recorded = read_recorded_run(open_metadata_store(f"{folder}/metadata.sqlite"), run_ids(Path(folder))[0])
    steps = {step.name: step.seconds for step in recorded.steps if step.seconds is not None}
    return TimedRun(seconds, steps, {})


def preprocessing_fn(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A z-score for each number, a vocabulary for each category."""
    outputs = {LABEL: inputs[LABEL]}
    for name in sorted(inputs.keys() - outputs.keys()):
        column = inputs[name]
        if name in CATEGORIES:
            text = column if column.dtype == tf.string else tf.strings.as_string(column)
            outputs[name] = tft.compute_and_apply_vocabulary(text, num_oov_buckets=1, vocab_filename=name)
        else:
            outputs[name] = tft.scale_to_z_score(column)
    return outputs


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Train on the materialised examples, and export with Transform's graph in front."""
    transform = tft.TFTransformOutput(fn_args.transform_output)
    keras.utils.set_random_seed(0)
    model = _model(transform)
    model.compile(keras.optimizers.Adam(STEP_SIZE), "binary_crossentropy")
    rows = fn_args.data_accessor.tf_dataset_factory(
        fn_args.train_files,
        tfxio.TensorFlowDatasetOptions(batch_size=BATCH_SIZE, label_key=LABEL),
        transform.transformed_metadata.schema,
    )
    model.fit(rows, steps_per_epoch=1, epochs=EPOCHS, verbose=0)

    archive = keras.export.ExportArchive()
    layer = transform.transform_features_layer()
    archive.track(model)
    archive.track(layer)
    spec = transform.raw_feature_spec()
    spec.pop(LABEL)

    def probabilities(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": model(layer(tf.io.parse_example(examples, spec)))}

    archive.add_endpoint("serving_default", probabilities, [tf.TensorSpec([None], tf.string, name="examples")])
    archive.write_out(fn_args.serving_model_dir, verbose=False)


def _model(transform: tft.TFTransformOutput) -> keras.Model:
    inputs, encoded = {}, []
    for name in sorted(transform.transformed_feature_spec().keys() - {LABEL}):
        category = name in CATEGORIES
        inputs[name] = keras.Input([1], name=name, dtype="int64" if category else "float32")
        if category:
            size = transform.vocabulary_size_by_name(name) + 1
            encoded.append(keras.layers.CategoryEncoding(size, output_mode="one_hot")(inputs[name]))
        else:
            encoded.append(inputs[name])
    output = keras.layers.Dense(1, activation="sigmoid", kernel_regularizer=keras.regularizers.L2(L2))
    return keras.Model(inputs, output(keras.layers.concatenate(encoded)))


def _pipeline(folder: str) -> tfx.dsl.Pipeline:
    example_gen = tfx.components.CsvExampleGen(input_base=f"{folder}/data")
    examples = example_gen.outputs["examples"]
    statistics_gen = tfx.components.StatisticsGen(examples=examples)
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = tfx.components.SchemaGen(statistics=statistics)
    schema = schema_gen.outputs["schema"]
    transform = tfx.components.Transform(
        examples=examples, schema=schema, preprocessing_fn=f"{MODULE}.preprocessing_fn"
    )
    trainer = tfx.components.Trainer(
        run_fn=f"{MODULE}.run_fn",
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        train_args=tfx.proto.TrainArgs(splits=["train"]),
        eval_args=tfx.proto.EvalArgs(splits=["eval"]),
    )
    model = trainer.outputs["model"]
    evaluator = tfx.components.Evaluator(examples=examples, model=model, eval_config=_eval_config())
    pusher = tfx.components.Pusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=f"{folder}/pushed")
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name="stock",
        pipeline_root=f"{folder}/artifacts",
        components=[
            example_gen,
            statistics_gen,
            schema_gen,
            tfx.components.ExampleValidator(statistics=statistics, schema=schema),
            transform,
            trainer,
            evaluator,
            pusher,
        ],
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            f"{folder}/metadata.sqlite"
        ),
        # Beam's default would look for a binary on the network first.
        beam_pipeline_args=[f"--runner={IN_MEMORY_RUNNER}"],
    )


def _eval_config() -> tfma.EvalConfig:
    threshold = tfma.MetricThreshold(value_threshold=tfma.GenericValueThreshold(lower_bound={"value": 0.5}))
    return tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(signature_name="serving_default", label_key=LABEL)],
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=["sex"])],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name="ExampleCount"),
                    tfma.MetricConfig(class_name="BinaryAccuracy"),
                    tfma.MetricConfig(class_name="BinaryCrossentropy"),
                    tfma.MetricConfig(class_name="AUC", threshold=threshold),
                ]
            )
        ],
    )


# A component that takes less is compared with all: a ratio of two short times is chance.
LEAST_SECONDS = 1.0
SCRIPT, STOCK, OURS = "plain Keras script", "TFX's own components", "ingraph"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=["hearts", "reviews"])
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    if options.data == "reviews":
        seconds = own_process(reviews_script_seconds)
        report("reviews: a whole pipeline", beside_script(own_process(timed_run, "reviews"), "scikit-learn", seconds))
        return
    csv_file = str(demo_data.fetch("hearts"))
    scripts, stocks, ours, chosen = [], [], [], []
    for _ in range(options.turns):
        scripts.append(own_process(script_seconds, csv_file))
        stocks.append(own_process(timed_stock_run, csv_file))
        ours.append(own_process(timed_run, "heart", ("trainer.model=linear",)))
        chosen.append(own_process(timed_run, "heart"))
    report("hearts: a pipeline three ways", compared(scripts, stocks, ours, chosen))


def reviews_script_seconds() -> float:
    """Seconds from the file to the probabilities of a fifth of it."""
    from benchmarks.text.quality import read_texts, scikit_learn_probabilities

    path = demo_data.fetch("reviews")
    started = time.perf_counter()
    texts, labels = read_texts(path)
    train, test, learned, _ = train_test_split(texts, labels, test_size=0.2, random_state=0)
    scikit_learn_probabilities(train, learned, test)
    return time.perf_counter() - started


def script_seconds(csv_file: str) -> float:
    """Seconds of the plain Keras script."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        plain_keras(csv_file, folder)
        return time.perf_counter() - started


def timed_stock_run(csv_file: str) -> TimedRun:
    """A run of TFX's own components."""
    with tempfile.TemporaryDirectory() as folder:
        return stock_run(csv_file, folder)


def compared(
    scripts: Sequence[float], stocks: Sequence[TimedRun], ours: Sequence[TimedRun], chosen: Sequence[TimedRun]
) -> list[Measurement]:
    """The wholes, then each component beside its counterpart, or where there is none beside all of TFX's own."""
    script = statistics.median(scripts)
    stock = statistics.median(run.seconds for run in stocks)
    our = statistics.median(run.seconds for run in ours)
    automatic = statistics.median(run.seconds for run in chosen)
    found = [
        Measurement(SCRIPT, script, "s", "time"),
        Measurement(STOCK, stock, "s", "time", stock / script, SCRIPT),
        Measurement(OURS, our, "s", "time", our / stock, STOCK, Goal(1)),
        Measurement(f"{OURS} beside the script", our, "s", "time", our / script, SCRIPT),
        Measurement(f"{OURS}, model: auto", automatic, "s", "time", automatic / script, SCRIPT),
    ]
    stock_steps = medians(stocks)
    found += [
        Measurement(f"{name}: {STOCK}", seconds, "s", "step", seconds / script, SCRIPT)
        for name, seconds in stock_steps.items()
    ]
    for name, seconds in medians(ours).items():
        same = stock_steps.get(name, 0.0) >= LEAST_SECONDS
        ratio = seconds / (stock_steps[name] if same else stock)
        beside = f"{STOCK}, {'the same' if same else 'all'}"
        found.append(Measurement(f"{name}: {OURS}", seconds, "s", "step", ratio, beside))
    return found


def medians(runs: Sequence[TimedRun]) -> Mapping[str, float]:
    """Component -> seconds."""
    return {name: statistics.median(run.steps[name] for run in runs) for name in runs[0].steps}


if __name__ == "__main__":
    main()
