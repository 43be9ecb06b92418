"""Evaluator: TFMA's metrics of the graph that is served, their bounds, and the change against the baseline."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

from components.evaluator.eval_config import (
    BASELINE,
    CANDIDATE,
    LABEL_KEY,
    PREDICTION_KEY,
    SLICE_BOUNDS_FILE,
    WEIGHT_KEY,
    aligned,
    eval_config,
    example_weight,
    slice_bounds,
    threshold_failures,
)
from components.evaluator.options import EvaluationOptions
from serving.answers import read_decision
from serving.session_model import SessionModel
from serving.signatures.common import (
    LABEL,
    SERVE_EXAMPLES,
    TRANSFORM_FEATURES,
    read_labels,
)
from serving.signatures.image import ERROR

IMAGES_AT_ONCE = 32


class PredictExamples(beam.DoFn):
    """Batches of serialized tf.Examples -> what is measured of those with a usable label and photo, for TFMA.

    Runs the signatures of the SavedModels in sessions, as TensorFlow Serving does. TFMA takes every column of a batch
    apart, row by row: so there are only those of labels, probabilities, weights and slices.

    Args:
        paths: SavedModel directories, by model name; the label numbers are those of CANDIDATE.
        weight: the column of the examples' weights; "" where all count the same.
        columns: those that slices are made by.
    """

    def __init__(self, paths: Mapping[str, str], weight: str = "", columns: Sequence[str] = ()) -> None:
        super().__init__()
        self._weight = weight
        self._columns = list(columns)
        self._paths = dict(paths)
        self._left_out = beam.metrics.Metrics.counter("evaluator", "examples_left_out")

    def setup(self) -> None:
        self._models = {name: SessionModel(path) for name, path in self._paths.items()}
        self._labels = read_labels(self._paths[CANDIDATE])
        self._has_errors = ERROR in self._models[CANDIDATE].signatures[TRANSFORM_FEATURES].outputs
        self._baseline_labels = read_labels(self._paths[BASELINE]) if BASELINE in self._paths else self._labels
        self._decoder = ExamplesToRecordBatchDecoder()

    def process(self, batch: Sequence[bytes]) -> Iterator[pa.RecordBatch]:
        examples = np.asarray(batch, dtype=object)
        # Photos are decoded in the model: a few at a time, or they would fill the memory.
        at_once = IMAGES_AT_ONCE if self._has_errors else len(batch)
        for start in range(0, len(batch), at_once):
            found = self._predicted(examples[start : start + at_once])
            if found.num_rows:
                yield found

    def _predicted(self, examples: np.ndarray) -> pa.RecordBatch:
        labels, usable = self._labels_of(examples)
        self._left_out.inc(len(examples) - len(usable))
        probabilities = {
            name: model.run(SERVE_EXAMPLES, {"examples": examples})["probabilities"]
            for name, model in self._models.items()
        }
        if BASELINE in probabilities:
            probabilities[BASELINE] = aligned(probabilities[BASELINE], self._baseline_labels, self._labels)
        kept = examples[usable].tolist()
        columns = {LABEL_KEY: _lists(labels[usable].astype(np.int64)[:, None])}
        for name, values in probabilities.items():
            columns[PREDICTION_KEY.format(model=name)] = _lists(values[usable].astype(np.float32))
        if self._weight:
            weights = [example_weight(tf.train.Example.FromString(record), self._weight) for record in kept]
            columns[WEIGHT_KEY] = _lists(np.array(weights, np.float32)[:, None])
        if self._columns and kept:
            decoded = self._decoder.DecodeBatch(kept)
            columns |= {name: decoded.column(name) for name in self._columns if name in decoded.schema.names}
        return pa.RecordBatch.from_pydict(columns)

    def _labels_of(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of each label, and the rows that can be measured by it."""
        wanted = [LABEL, ERROR] if self._has_errors else [LABEL]
        features = self._models[CANDIDATE].run(TRANSFORM_FEATURES, {"examples": examples}, wanted)
        usable = features[LABEL] >= 0
        if self._has_errors:
            usable &= features[ERROR] == b""
        return features[LABEL], np.flatnonzero(usable)

    def teardown(self) -> None:
        for model in self._models.values():
            model.close()


def _lists(rows: np.ndarray) -> pa.Array:
    """A column of lists, one of each row of numbers [n, width]."""
    starts = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
    return pa.LargeListArray.from_arrays(starts, rows.ravel())


class Executor(base_beam_executor.BaseBeamExecutor):
    """See component.py."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        self._log_startup(input_dict, output_dict, exec_properties)
        model = artifact_utils.get_single_instance(input_dict["model"])
        baseline = artifact_utils.get_single_instance(input_dict["baseline_model"])
        evaluation = artifact_utils.get_single_uri(output_dict["evaluation"])
        models = {CANDIDATE: path_utils.serving_model_path(model.uri)}
        if baseline.get_int_custom_property("has_model"):
            models[BASELINE] = path_utils.serving_model_path(baseline.uri)

        options = EvaluationOptions.model_validate_json(exec_properties["options"])
        labels, positive = read_labels(models[CANDIDATE]), exec_properties["positive"]
        config = eval_config(
            options,
            has_baseline=BASELINE in models,
            positive=labels.index(positive) if positive else None,
            weighted=bool(exec_properties["weight"]),
            decisions={name: made for name, path in models.items() if (made := _decision(path, labels))},
        )
        examples = artifact_utils.get_split_uris(input_dict["examples"], exec_properties["split"])
        sliced_by = dict.fromkeys(column for one in options.slices for column in one.columns)
        predict = PredictExamples(models, exec_properties["weight"], [*sliced_by])
        with self._make_beam_pipeline() as pipeline:
            _evaluate(pipeline, examples, predict, config, evaluation)

        # Without a threshold there may be nothing to measure either, which TFMA takes for a failure.
        failures = threshold_failures(tfma.load_validation_result(evaluation)) if options.has_thresholds else []
        if options.has_slice_bounds:
            found = slice_bounds(options, evaluation)
            io_utils.write_string_file(
                f"{evaluation}/{SLICE_BOUNDS_FILE}", json.dumps({"bounds": [asdict(one) for one in found]})
            )
            failures += [one.failure for one in found if one.fails]
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        _bless(blessing, model, failures)


def _decision(saved_model: str, labels: list[str]) -> tuple[int, float] | None:
    """The number of the label that a model decides about, and the threshold; None where it decides about none."""
    decision = read_decision(saved_model)
    return (labels.index(decision.label), decision.threshold) if decision and decision.label in labels else None


def _evaluate(
    pipeline: beam.Pipeline, examples: list[str], predict: PredictExamples, config: tfma.EvalConfig, output: str
) -> None:
    (
        [
            pipeline | f"Read[{index}]" >> beam.io.ReadFromTFRecord(io_utils.all_files_pattern(uri))
            for index, uri in enumerate(examples)
        ]
        | "Flatten" >> beam.Flatten()
        | "Batch" >> beam.BatchElements(min_batch_size=32, max_batch_size=1024)
        | "Predict" >> beam.ParDo(predict).with_output_types(pa.RecordBatch)
        | "Evaluate"
        >> tfma.ExtractEvaluateAndWriteResults(
            eval_shared_model=[
                tfma.EvalSharedModel(model_name=model.name, model_type=tfma.constants.MATERIALIZED_PREDICTION)
                for model in config.model_specs
            ],
            eval_config=config,
            output_path=output,
        )
    )


def _bless(blessing: types.Artifact, model: types.Artifact, failures: list[str]) -> None:
    blessed = not failures
    name = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    io_utils.write_string_file(os.path.join(blessing.uri, name), "")  # noqa: PTH118 (may be an object store's path)
    blessing.set_int_custom_property(
        constants.ARTIFACT_PROPERTY_BLESSED_KEY, constants.BLESSED_VALUE if blessed else constants.NOT_BLESSED_VALUE
    )
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
    blessing.set_string_custom_property("reason", "; ".join(failures))


class EvaluatorSpec(ComponentSpec):
    """See component.py."""

    PARAMETERS = {
        "options": ExecutionParameter(type=str),
        "positive": ExecutionParameter(type=str),
        "weight": ExecutionParameter(type=str),
        "split": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model),
    }
    OUTPUTS = {
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class Evaluator(base_beam_component.BaseBeamComponent):
    """Measures `model` on a split of raw examples, and blesses it where every threshold holds.

    TFX's own Evaluator runs a model by Python's SavedModel loader; this one by a session, as TensorFlow Serving does,
    so that what is measured is what is served. It leaves examples without a usable label out, and lines up the classes
    of a baseline that knows other labels.

    Args:
        examples: raw examples.
        model: the candidate.
        baseline_model: the output of Baseline; one without a model (`has_model` 0) is no baseline.
        options: thresholds and slices.
        positive: the label that precision, recall and the like are about; "" for none.
        weight: the column of the examples' weights; "" where all count the same.
        split: the split of `examples` to measure on.

    Outputs:
        evaluation: TFMA's files, as TFX's Evaluator writes them.
        blessing: `blessed` 1 or 0, as TFX's Evaluator sets it, and `reason`, why not.
    """

    SPEC_CLASS = EvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        model: types.BaseChannel,
        baseline_model: types.BaseChannel,
        options: EvaluationOptions,
        positive: str = "",
        weight: str = "",
        split: str = "eval",
    ) -> None:
        super().__init__(
            EvaluatorSpec(
                examples=examples,
                model=model,
                baseline_model=baseline_model,
                options=options.model_dump_json(exclude={"replay", "truth"}),
                positive=positive,
                weight=weight,
                split=split,
                evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
                blessing=types.Channel(type=standard_artifacts.ModelBlessing),
            )
        )
