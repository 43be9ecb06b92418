"""The pipeline's graph, from raw data to a published model."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorflow_metadata.proto.v0 import path_pb2
from tfx import types
from tfx.components import (
    DistributionValidator,
    ExampleValidator,
    SchemaGen,
    Trainer,
    Transform,
)
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.proto.distribution_validator_pb2 import DistributionValidatorConfig
from tfx.proto.trainer_pb2 import EvalArgs, TrainArgs

from components.baseline import Baseline
from components.compatibility_check import CompatibilityCheck
from components.data_gate.component import DataGate
from components.drift import PREVIOUS
from components.drift_gate import DriftGate
from components.errors import display_path
from components.evaluator.component import Evaluator
from components.replay_gate.component import ReplayGate
from components.serving_check.component import ServingCheck
from components.serving_pusher import ServingPusher
from components.statistics_gen import StatisticsGen
from components.table_example_gen.component import TableExampleGen
from components.tuner import Tuner
from pipeline.fingerprints import code_fingerprint, content_fingerprint
from pipeline.history import artifact_role
from pipeline.options import RunConfig
from pipeline.spans import SpanFiles
from pipeline.tasks import TASKS


def report_step(components: Sequence[BaseComponent], config: RunConfig, run_id: str) -> BaseComponent:
    """Makes the report of a run on a cluster, which leaves nothing else for people; `ingraph run` makes it at its end.

    Args:
        components: all other steps.
        config: of the run.
        run_id: what the run is called.
    """
    # Its plotting library would make every other run begin later.
    from components.run_report.component import RunReport, RunReportSpec

    outputs = {
        artifact_role(component.id, key): channel
        for component in components
        for key, channel in component.outputs.items()
    }
    inputs = {role: channel for role, channel in outputs.items() if role in RunReportSpec.INPUTS}
    return RunReport(config=config.model_dump_json(), run_id=run_id, **inputs)


def distribution_comparators(bounds: Mapping[str, float]) -> DistributionValidatorConfig:
    """A comparison by Jensen-Shannon divergence of each column.

    Args:
        bounds: column -> the largest divergence, above 0 and at most 1.
    """
    config = DistributionValidatorConfig()
    for column, bound in bounds.items():
        feature = config.default_slice_config.feature.add(path=path_pb2.Path(step=[column]))
        feature.distribution_comparator.jensen_shannon_divergence.threshold = bound
    return config


class SpanExampleGen(TableExampleGen):
    """A split for each span: of the run's own examples nobody knows from which span they came."""


class SpanStatisticsGen(StatisticsGen):
    """Of the spans that are compared."""


def drift_check(spans: SpanFiles) -> list[BaseComponent]:
    """The steps, the last of which stops the run where a column drifted; none where there is nothing to compare."""
    if not spans.previous:
        return []
    patterns = {PREVIOUS: spans.previous_tables, **spans.compared}
    example_gen = SpanExampleGen(str(spans.folder), patterns, spans.ingestion)
    statistics_gen = SpanStatisticsGen(examples=example_gen.outputs["examples"])
    statistics = statistics_gen.outputs["statistics"]
    validator = DistributionValidator(
        statistics=statistics,
        baseline_statistics=statistics,
        config=distribution_comparators(spans.bounds),
        include_split_pairs=[(name, PREVIOUS) for name in spans.compared],
    )
    gate = DriftGate(anomalies=validator.outputs["anomalies"], statistics=statistics, previous_span=spans.previous)
    return [example_gen, statistics_gen, validator, gate]


@dataclass(frozen=True)
class Locations:
    """Where one run reads and writes.

    Attributes:
        data: the file of the table or its place in BigQuery, or where the photos are.
        data_fingerprint: of the photos, see components.image_example_gen.image_files, or of rows of BigQuery.
        schema_file: a copy of the curated schema in a folder whose name changes with its content, or None.
        artifacts: the pipeline root.
        metadata: the SQLite file of ML Metadata; None where a cluster has its own.
        base_path: the model base path.
        spans: what the data are of, where they came in spans.
    """

    data: str
    data_fingerprint: str
    schema_file: str | None
    artifacts: str
    metadata: str | None
    base_path: str
    spans: SpanFiles | None = None


def create_pipeline(config: RunConfig, locations: Locations, run_id: str, beam_pipeline_args: list[str]) -> Pipeline:
    """The pipeline of one run.

    Args:
        config: what to run.
        locations: where.
        run_id: a string that no earlier run had.
        beam_pipeline_args: Beam's runner and its options.
    """
    prepared = _preparation(config, locations)
    baseline = Baseline(base_path=locations.base_path, run_id=run_id)
    tuner = _tuner(config, prepared)
    trainer = Trainer(
        run_fn=f"trainers.{config.task}.run_fn",
        examples=prepared.examples,
        transform_graph=prepared.transform_graph,
        schema=prepared.schema,
        base_model=baseline.outputs["model"] if getattr(config.trainer, "warm_start", False) else None,
        hyperparameters=tuner[0].outputs["best_hyperparameters"] if tuner else None,
        train_args=TrainArgs(splits=["train"]),
        eval_args=EvalArgs(splits=["eval"]),
        custom_config=prepared.options.trainer,
    )
    model = trainer.outputs["model"]
    evaluator = Evaluator(
        examples=prepared.examples,
        model=model,
        baseline_model=baseline.outputs["model"],
        options=config.evaluation,
        positive=config.preprocessing.label.positive or "",
        weight=_weight(config),
    )
    serving_check = ServingCheck(
        model=model,
        examples=prepared.examples,
        tolerance=config.serving_check.tolerance,
        maximum_examples=config.serving_check.maximum_examples,
        feature_of_input=config.preprocessing.renamed_inputs(),
    )
    # Request logs have this name; the pipeline may have another one on a cluster.
    served_name = posixpath.basename(locations.base_path)
    replay = _replay_gate(config, baseline, evaluator, serving_check, model, served_name, run_id)
    serving_pusher = ServingPusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=serving_check.outputs["blessing"],
        replay_blessing=replay[0].outputs["blessing"] if replay else None,
        evaluation=evaluator.outputs["evaluation"],
        base_path=locations.base_path,
        model_name=served_name,
        run_id=run_id,
        data_spans=locations.spans.fingerprints if locations.spans else None,
    )
    compatibility = _compatibility_check(config, model, baseline)
    for check in compatibility:
        evaluator.add_upstream_node(check)
    checks = [*compatibility, evaluator, serving_check, *replay]
    steps = [*prepared.steps, baseline, *tuner, trainer, *checks, serving_pusher]
    if locations.metadata is None:
        steps.append(report_step(steps, config, run_id))
    return _pipeline(config, locations, steps, beam_pipeline_args)


def create_tuning_pipeline(config: RunConfig, locations: Locations, beam_pipeline_args: list[str]) -> Pipeline:
    """The steps of `create_pipeline` up to the Tuner, whose results it then takes over."""
    prepared = _preparation(config, locations)
    return _pipeline(config, locations, [*prepared.steps, *_tuner(config, prepared)], beam_pipeline_args)


@dataclass(frozen=True)
class _Preparation:
    """What there is before any training."""

    options: _ModuleOptions
    examples: types.BaseChannel
    schema: types.BaseChannel
    transform_graph: types.BaseChannel
    steps: list[BaseComponent]


def _preparation(config: RunConfig, locations: Locations) -> _Preparation:
    options = _module_options(config, locations)

    task = TASKS[config.task]
    example_gen = task.example_gen(config, locations.data, locations.data_fingerprint)
    examples = example_gen.outputs["examples"]
    statistics_gen = StatisticsGen(examples=examples, stats_options=task.statistics_options())
    statistics = statistics_gen.outputs["statistics"]
    if locations.schema_file:
        schema_gen = ImportSchemaGen(schema_file=locations.schema_file)
    else:
        schema_gen = SchemaGen(statistics=statistics, infer_feature_shape=False, exclude_splits=["eval"])
    schema = schema_gen.outputs["schema"]
    example_validator = ExampleValidator(statistics=statistics, schema=schema)
    data_gate = DataGate(
        examples=examples,
        anomalies=example_validator.outputs["anomalies"],
        statistics=statistics,
        schema=schema,
        label=config.preprocessing.label.column if config.learns else "",
        schema_is_curated=locations.schema_file is not None,
        minimum_examples=config.data.minimum_examples,
        schema_path=display_path(config.data.schema_file or ""),
        leak_search=task.leak_search(config),
    )
    transform = Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn=f"transform.{config.task}.preprocessing_fn",
        # Examples stay raw on disk; the Trainer applies the graph in its input pipeline.
        materialize=False,
        disable_statistics=True,
        custom_config=options.transform,
    )
    transform.add_upstream_node(data_gate)
    drift_steps = drift_check(locations.spans) if locations.spans else []
    for gate in drift_steps[-1:]:
        transform.add_upstream_node(gate)
    return _Preparation(
        options=options,
        examples=examples,
        schema=schema,
        transform_graph=transform.outputs["transform_graph"],
        steps=[
            example_gen,
            statistics_gen,
            schema_gen,
            example_validator,
            data_gate,
            *drift_steps,
            transform,
        ],
    )


def _tuner(config: RunConfig, prepared: _Preparation) -> list[Tuner]:
    if config.tuner is None:
        return []
    return [
        Tuner(
            tuner_fn=f"trainers.{config.task}.tuner_fn",
            examples=prepared.examples,
            transform_graph=prepared.transform_graph,
            schema=prepared.schema,
            train_args=TrainArgs(splits=["train"]),
            # What decides whether a model goes live has no part in making it.
            eval_args=EvalArgs(splits=["train"]),
            custom_config={**prepared.options.trainer, "tuner": config.tuner.model_dump_json()},
        )
    ]


def _pipeline(
    config: RunConfig, locations: Locations, steps: list[BaseComponent], beam_pipeline_args: list[str]
) -> Pipeline:
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=locations.artifacts,
        components=steps,
        enable_cache=True,
        metadata_connection_config=locations.metadata and sqlite_metadata_connection_config(locations.metadata),
        beam_pipeline_args=beam_pipeline_args,
    )


def _compatibility_check(config: RunConfig, model: types.BaseChannel, baseline: Baseline) -> list[CompatibilityCheck]:
    """What retrains by itself must not surprise its clients; who starts a run by hand may change what is served."""
    if config.data.spans is None:
        return []
    return [
        CompatibilityCheck(
            model=model,
            baseline_model=baseline.outputs["model"],
            class_changes=config.data.spans.class_changes,
        )
    ]


def _replay_gate(
    config: RunConfig,
    baseline: Baseline,
    evaluator: Evaluator,
    serving_check: ServingCheck,
    model: types.BaseChannel,
    model_name: str,
    run_id: str,
) -> list[ReplayGate]:
    """None where no request log is configured."""
    if config.evaluation.replay is None:
        return []
    return [
        ReplayGate(
            model=model,
            baseline_model=baseline.outputs["model"],
            model_blessing=evaluator.outputs["blessing"],
            infra_blessing=serving_check.outputs["blessing"],
            options=config.evaluation.replay,
            slices=[one.columns for one in config.evaluation.slices],
            feature_of_input=config.preprocessing.renamed_inputs(),
            model_name=model_name,
            run_id=run_id,
        )
    ]


@dataclass(frozen=True)
class _ModuleOptions:
    """The custom_config of each function of ours."""

    transform: dict[str, str]
    trainer: dict[str, str]


def _module_options(config: RunConfig, locations: Locations) -> _ModuleOptions:
    preprocessing = config.preprocessing.model_dump_json()
    trainer = config.trainer.model_dump_json()
    # What is not set is left out, and the fingerprint of a model stays what it was before there were such options.
    serving = config.serving.model_dump_json(exclude_defaults=True)
    serving_options = () if serving == "{}" else (serving,)
    schema = posixpath.basename(posixpath.dirname(locations.schema_file)) if locations.schema_file else ""
    return _ModuleOptions(
        transform={
            "preprocessing": preprocessing,
            "code_fingerprint": code_fingerprint(f"transform.{config.task}"),
        },
        trainer={
            "preprocessing": preprocessing,
            "trainer": trainer,
            "weight": _weight(config),
            **({"serving": serving} if serving_options else {}),
            "code_fingerprint": code_fingerprint(
                f"trainers.{config.task}",
                preprocessing,
                trainer,
                schema,
                _files(config),
                _weight(config),
                *serving_options,
            ),
        },
    )


def _weight(config: RunConfig) -> str:
    """The column of the rows' weights, "" for none."""
    return getattr(config.data, "weight", None) or ""


def _files(config: RunConfig) -> str:
    """A fingerprint of the weights and models that the trainer's options name."""
    values = config.trainer.model_dump().values()
    return content_fingerprint(value for value in values if isinstance(value, str) and value.startswith(("/", "gs://")))
