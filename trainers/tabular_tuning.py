"""A search for the options that suit tables best."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.v1.components import TunerFnResult

from serving.labels import VOCABULARY
from trainers.hyperparameter_search import hyperparameter_search
from trainers.learning_curves import learning_curves
from trainers.reference_predictions import reference_predictions
from trainers.tabular import build_model, fit, known_categories
from trainers.tabular_options import TabularTrainerOptions
from trainers.transform_graph import TransformGraph
from trainers.transformed_split import read_transformed_split
from trainers.trial_outcome import TrialOutcome
from trainers.tuner_options import TunerOptions
from trainers.tuning_split import tuning_split


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Train on a part of the train split, and compare on the rest of it.

    `fn_args.custom_config` carries `trainer` and `tuner`, the JSON of TabularTrainerOptions and TunerOptions.
    """
    options = TabularTrainerOptions.model_validate_json(fn_args.custom_config["trainer"])
    tuner = TunerOptions.model_validate_json(fn_args.custom_config["tuner"])
    transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
    labels = [label.decode() for label in transform_output.vocabulary_by_name(VOCABULARY)]
    train, held_out = tuning_split(read_transformed_split(fn_args.train_files, TransformGraph(transform_output)), tuner)
    categories = known_categories(transform_output, train.features)

    def trial(candidate: TabularTrainerOptions, _: Path) -> TrialOutcome:
        keras.utils.set_random_seed(candidate.seed)
        model = build_model(train.features, len(categories), len(labels), candidate)
        fit(model, train, candidate)
        predictions = reference_predictions(model, held_out, labels)
        return TrialOutcome(learning_curves(model), held_out.labels, predictions.probabilities)

    return hyperparameter_search(trial, options, tuner, fn_args.working_dir)
