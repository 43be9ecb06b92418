"""The hearts as TFX's own components have them, with the obvious preprocessing and everything at its default."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
import tensorflow_model_analysis as tfma
import tensorflow_transform as tft
from tfx import v1 as tfx
from tfx_bsl.public import tfxio

from benchmarks.plain_keras import BATCH_SIZE, CATEGORIES, EPOCHS, L2, LABEL, STEP_SIZE
from benchmarks.timed_run import TimedRun
from pipeline.beam_options import IN_MEMORY_RUNNER
from pipeline.metadata_store import open_metadata_store
from pipeline.recorded_run import read_recorded_run
from pipeline.run_ids import run_ids

MODULE = "benchmarks.stock_pipeline"


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
