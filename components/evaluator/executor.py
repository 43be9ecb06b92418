"""Runs the Evaluator."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import apache_beam as beam
import tensorflow_model_analysis as tfma
from tfx import types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils
from tfx_bsl.public import tfxio

from components.evaluator.eval_config import (
    BASELINE,
    CANDIDATE,
    SLICE_BOUNDS_FILE,
    eval_config,
    slice_bounds,
    threshold_failures,
)
from components.evaluator.options import EvaluationOptions
from components.evaluator.predictions import PredictExamples
from serving.signatures.common import read_labels


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
            classes=len(labels),
            has_baseline=BASELINE in models,
            positive=labels.index(positive) if positive else None,
            weighted=bool(exec_properties["weight"]),
        )
        examples = artifact_utils.get_split_uris(input_dict["examples"], exec_properties["split"])
        with self._make_beam_pipeline() as pipeline:
            _evaluate(pipeline, examples, PredictExamples(models, exec_properties["weight"]), config, evaluation)

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


def _evaluate(
    pipeline: beam.Pipeline, examples: list[str], predict: PredictExamples, config: tfma.EvalConfig, output: str
) -> None:
    with_predictions = tfxio.TFExampleBeamRecord(
        physical_format="inmem",
        telemetry_descriptors=["ingraph", "Evaluator"],
        raw_record_column_name=tfma.constants.ARROW_INPUT_COLUMN,
    )
    (
        [
            pipeline | f"Read[{index}]" >> beam.io.ReadFromTFRecord(io_utils.all_files_pattern(uri))
            for index, uri in enumerate(examples)
        ]
        | "Flatten" >> beam.Flatten()
        | "Batch" >> beam.BatchElements(min_batch_size=32, max_batch_size=1024)
        | "Predict" >> beam.ParDo(predict)
        | "Arrow" >> with_predictions.BeamSource()
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
