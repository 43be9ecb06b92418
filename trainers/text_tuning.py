"""A search for the options that suit texts best."""

from __future__ import annotations

from pathlib import Path

import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.v1.components import TunerFnResult

from serving.labels import VOCABULARY
from trainers.hyperparameter_search import hyperparameter_search
from trainers.learning_curves import learning_curves
from trainers.reference_predictions import reference_predictions
from trainers.text import fit_classifier, read_training_split
from trainers.text_embedding import TextEmbedding
from trainers.text_options import EncoderOptions, HubOptions, NgramOptions, read_trainer_options
from trainers.transform_graph import TransformGraph
from trainers.trial_outcome import TrialOutcome
from trainers.tuner_options import TunerOptions
from trainers.tuning_split import tuning_split


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Train on a part of the train split, and compare on the rest of it.

    `fn_args.custom_config` carries `trainer` and `tuner`, the JSON of TextTrainerOptions and TunerOptions.
    """
    options = read_trainer_options(fn_args.custom_config["trainer"])
    tuner = TunerOptions.model_validate_json(fn_args.custom_config["tuner"])
    transform_output = tft.TFTransformOutput(fn_args.transform_graph_path)
    labels = [label.decode() for label in transform_output.vocabulary_by_name(VOCABULARY)]
    embedding = TextEmbedding(options.handle) if isinstance(options, HubOptions) else None
    train, held_out = tuning_split(
        read_training_split(fn_args.train_files, TransformGraph(transform_output), options, embedding), tuner
    )

    def trial(candidate: NgramOptions | EncoderOptions | HubOptions, _: Path) -> TrialOutcome:
        model = fit_classifier(train, transform_output, len(labels), candidate, embedding).model
        predictions = reference_predictions(model, held_out, labels)
        return TrialOutcome(learning_curves(model), held_out.labels, predictions.probabilities)

    return hyperparameter_search(trial, options, tuner, fn_args.working_dir)
