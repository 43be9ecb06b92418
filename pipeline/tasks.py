"""The tasks: one row each, with all that a run does differently for tables, texts and images.

A further task is a folder in transform, trainers and serving/signatures, and a row here. `preprocessing_fn`, `run_fn`
and `tuner_fn` are found by the row's name: `transform.<task>.preprocessing_fn`, `trainers.<task>.run_fn`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import field_validator, model_validator

from components import image_example_gen
from components.data_gate.leaks import LeakSearch
from components.errors import BrokenInput
from components.evaluator.options import EvaluationOptions
from pipeline import demo_data
from pipeline.data import (
    IMAGE_MEASURES,
    TEXT_MEASURES,
    Measures,
    RawData,
    SampleRequest,
    convert_images,
    image_data,
    input_patterns,
    measure_images,
    measure_texts,
    sample_image,
    sample_row,
    table_data,
    table_inputs,
)
from pipeline.options import (
    ImageDataOptions,
    RunConfig,
    TableDataOptions,
    TableRunConfig,
)
from pipeline.spans import IMAGE_SPANS, TABLE_SPANS, TEXT_SPANS, SpanContent
from trainers.image.options import ImageTrainerOptions
from trainers.options import TOLERANCES, Objective
from trainers.tabular.options import AnyTabularTrainerOptions, TabularTrainerOptions, with_mode
from trainers.text.options import NgramOptions, TextTrainerOptions, with_model
from transform.columns import Column
from transform.options import ImageOptions, TabularOptions, TextOptions

if TYPE_CHECKING:
    import tensorflow_data_validation as tfdv
    from tfx.dsl.components.base.base_component import BaseComponent

    from serving.client.metadata import TensorDescription


class TabularRunConfig(TableRunConfig):
    """A run on rows of a table."""

    chooses_columns: ClassVar[bool] = True
    decides: ClassVar[bool] = True
    not_tuned: ClassVar[frozenset[str]] = frozenset({"mode", "warm_start"})

    preprocessing: TabularOptions
    trainer: AnyTabularTrainerOptions = TabularTrainerOptions()

    @model_validator(mode="before")
    @classmethod
    def _optional_evaluation(cls, content: Any) -> Any:
        """What is wrapped may be served without being measured."""
        trainer = content.get("trainer") if isinstance(content, dict) else None
        wraps = isinstance(trainer, dict) and trainer.get("mode") == "wrap"
        return {"evaluation": {}, **content} if wraps else content

    @field_validator("trainer", mode="before")
    @classmethod
    def _default_mode(cls, trainer: Any) -> Any:
        return with_mode(trainer)

    @property
    def learns(self) -> bool:
        return self.trainer.mode == "train"

    @model_validator(mode="after")
    def _complete_preprocessing(self) -> TabularRunConfig:
        if self.trainer.mode == "train":
            if self.preprocessing.raw:
                raise ValueError("preprocessing.raw is for trainer.mode: wrap, which fills it in; leave it out")
            if self.data.weight is not None:
                without = self.preprocessing.without(self.data.weight, "data.weight", "a weight")
                object.__setattr__(self, "preprocessing", without)
            return self
        # TensorFlow and the libraries of models are for this mode alone.
        from trainers.tabular.wrap import raw_preprocessing

        object.__setattr__(self, "preprocessing", raw_preprocessing(self.trainer, self.preprocessing))
        if self.data.weight in (*self.preprocessing.raw, self.preprocessing.label.column):
            raise ValueError(
                f"data.weight is {self.data.weight!r}, which is the label or a column that the model takes; expected a "
                "column of its own"
            )
        return self

    def model_columns(self) -> Mapping[str, str]:
        return self.preprocessing.raw

    def with_kinds(self, kinds: Mapping[str, str | Mapping[str, str]]) -> RunConfig:
        if not self.learns:
            return self
        found = {name: {"kind": kind} if isinstance(kind, str) else dict(kind) for name, kind in kinds.items()}
        columns = {name: Column.model_validate(options) for name, options in found.items()}
        preprocessing = self.preprocessing.model_copy(update={"columns": columns | self.preprocessing.columns})
        return self.model_copy(update={"preprocessing": preprocessing})


class TextRunConfig(TableRunConfig):
    """A run on texts; the model decides about the features."""

    as_text: ClassVar[bool] = True
    not_tuned: ClassVar[frozenset[str]] = frozenset({
        "model", "handle", "encoder", "precision", "maximum_length", "vector_width", "ngrams", "warm_start",
    })  # fmt: skip

    preprocessing: TextOptions
    trainer: TextTrainerOptions = NgramOptions()

    @field_validator("trainer", mode="before")
    @classmethod
    def _default_model(cls, trainer: Any) -> Any:
        return with_model(trainer)

    @model_validator(mode="before")
    @classmethod
    def _optional_evaluation(cls, content: Any) -> Any:
        """What is wrapped may be served without being measured."""
        trainer = content.get("trainer") if isinstance(content, dict) else None
        wraps = isinstance(trainer, dict) and "wrap" in (trainer.get("mode"), trainer.get("model"))
        return {"evaluation": {}, **content} if wraps else content

    @property
    def learns(self) -> bool:
        return self.trainer.model != "wrap"

    @field_validator("data")
    @classmethod
    def _no_weight(cls, data: TableDataOptions) -> TableDataOptions:
        if data.weight is not None:
            raise ValueError("weight is for task: tabular; each text counts the same, so leave it out")
        return data

    def open_texts(self) -> Sequence[str]:
        return (self.preprocessing.column,) if self.preprocessing.leaves_terms_open else ()

    def with_kinds(self, kinds: Mapping[str, str | Mapping[str, str]]) -> RunConfig:
        terms = kinds.get(self.preprocessing.column)
        if not isinstance(terms, str):
            return self
        preprocessing = self.preprocessing.with_terms(terms)
        return self.model_copy(update={"preprocessing": preprocessing})

    @model_validator(mode="after")
    def _complete_preprocessing(self) -> TextRunConfig:
        object.__setattr__(self, "preprocessing", self.preprocessing.completed(self.trainer.features))
        if self.trainer.model == "wrap":
            # TensorFlow is for this mode alone.
            from trainers.text.wrap import raw_preprocessing

            object.__setattr__(self, "preprocessing", raw_preprocessing(self.trainer, self.preprocessing))
        return self

    @model_validator(mode="after")
    def _searched_epochs(self) -> TextRunConfig:
        """Where a search chooses epochs, no steps are added to them."""
        if self.tuner is not None and self.trainer.model == "auto":
            raise ValueError("tuner: trainer.model: auto tries models as they are; name one, or take tuner out")
        if self.tuner is not None and ("epochs" in self.tuner.space or self.tuner.method == "hyperband"):
            object.__setattr__(self, "trainer", self.trainer.model_copy(update={"minimum_steps": 0}))
        return self

    @model_validator(mode="after")
    def _complete_tolerance(self) -> TextRunConfig:
        if self.trainer.tolerance is not None:
            _tolerate(self, self.trainer.tolerance)
        return self


class ImageRunConfig(RunConfig):
    """A run on photos; the model decides about the pixels, and about its labels, where the config does not."""

    objective: ClassVar[Objective] = "accuracy"
    not_tuned: ClassVar[frozenset[str]] = frozenset(
        {"mode", "backbone", "prefer", "weights", "warm_start", "precision"}
    )

    data: ImageDataOptions
    preprocessing: ImageOptions = ImageOptions()
    trainer: ImageTrainerOptions
    # What is wrapped may be served without being measured.
    evaluation: EvaluationOptions = EvaluationOptions()

    @property
    def learns(self) -> bool:
        return self.trainer.mode == "fine_tune"

    @model_validator(mode="after")
    def _complete_preprocessing(self) -> ImageRunConfig:
        labels = self.trainer.label_order()
        if labels and self.preprocessing.label.order:
            raise ValueError("preprocessing.label.order: trainer.labels lists the labels of a classifier; give one")
        completed = self.preprocessing.completed(self.trainer.pixel_format(), labels)
        object.__setattr__(self, "preprocessing", completed)
        if self.trainer.mode == "fine_tune" and self.trainer.backbone == "auto":
            if self.tuner is not None:
                raise ValueError(
                    "tuner: trainer.backbone: auto tries backbones as they are; name one, or take tuner out"
                )
            if completed.scaling != "raw":
                raise ValueError(
                    f"preprocessing.scaling: {completed.scaling}: trainer.backbone: auto tries backbones that take "
                    "different ranges, and makes each of raw pixels; take scaling out"
                )
        return self

    @model_validator(mode="after")
    def _complete_tolerance(self) -> ImageRunConfig:
        _tolerate(self, TOLERANCES[self.trainer.precision])
        return self


def _tolerate(config: RunConfig, tolerance: float) -> None:
    """Set how far served probabilities may be from the trained model's, where the config does not."""
    if "tolerance" not in config.serving_check.model_fields_set:
        checked = config.serving_check.model_copy(update={"tolerance": tolerance})
        object.__setattr__(config, "serving_check", checked)


@dataclass(frozen=True)
class Task:
    """What a run does for one kind of data.

    Attributes:
        config: the class of its configs.
        raw_data: finds and checks the data: config, path -> RawData.
        spans: how the files of spans are read.
        schema_file: the schema of its examples where no data change it; None where one is inferred.
        example_gen: config, path of the data, their fingerprint -> the ExampleGen.
        statistics_options: for StatisticsGen; None for TFDV's own.
        sample_request: config, path of the data, inputs of the served signature -> a request for one example.
        leak_search: where DataGate looks for leaks; None for nowhere.
        measures: what `ingraph skew` compares instead of the inputs themselves; None where it compares these.
        uses_onednn: whether training is faster with oneDNN also on CPUs for which TensorFlow leaves it off.
        convert: makes files that can be read of those that cannot: config, path of the data -> what a person is to know
            of it; None where there is nothing to convert.
        quick_examples: how many examples of each split `ingraph run --quick` takes.
    """

    config: type[RunConfig]
    raw_data: Callable[[RunConfig, str], RawData]
    spans: SpanContent
    example_gen: Callable[[RunConfig, str, str], BaseComponent]
    sample_request: Callable[[RunConfig, str, Mapping[str, TensorDescription]], SampleRequest]
    schema_file: str | None = None
    statistics_options: Callable[[], tfdv.StatsOptions | None] = lambda: None
    leak_search: Callable[[RunConfig], LeakSearch | None] = lambda config: None
    measures: Measures | None = None
    uses_onednn: bool = False
    convert: Callable[[RunConfig, str], list[str]] | None = None
    quick_examples: int = 500


def raw_data(config: RunConfig) -> RawData:
    """Find the data that a config names.

    Raises:
        BrokenInput: there are none, or they cannot be used; the message says where and why.
    """
    return TASKS[config.task].raw_data(config, data_path(config))


def convert_data(config: RunConfig) -> list[str]:
    """Make files that can be read of the data that cannot, see Task.convert.

    Raises:
        BrokenInput: there is nothing to convert of such data, or it cannot be written.
    """
    convert = TASKS[config.task].convert
    if convert is None:
        raise BrokenInput(f"--convert makes JPEGs of photos; task: {config.task} reads its files as they are")
    return convert(config, data_path(config))


def data_path(config: RunConfig) -> str:
    """Where a config's data are, a line each where they are several files; "" for spans and BigQuery."""
    return config.data.path or (str(demo_data.fetch(config.data.dataset)) if config.data.dataset else "")


def schema_file(config: RunConfig) -> str | None:
    """The config's curated schema, or that of the task; None: one is inferred."""
    return config.data.schema_file or TASKS[config.task].schema_file


def _table_example_gen(config: RunConfig, data: str, data_fingerprint: str) -> BaseComponent:
    from components.table_example_gen.component import BigQueryExampleGen, TableExampleGen

    assert isinstance(config, TableRunConfig)
    if config.data.bigquery:
        return BigQueryExampleGen(_runtime_parameter("data", data), data_fingerprint, config.ingestion())
    base, patterns = input_patterns(table_inputs(config, data))
    return TableExampleGen(_runtime_parameter("data", base), patterns, config.ingestion())


def _image_example_gen(config: RunConfig, data: str, data_fingerprint: str) -> BaseComponent:
    from components.image_example_gen.component import ImageExampleGen

    assert isinstance(config, ImageRunConfig)
    return ImageExampleGen(
        path=_runtime_parameter("data", data),
        input_fingerprint=_runtime_parameter("data_fingerprint", data_fingerprint),
        eval_share=config.data.eval_share,
        max_unreadable_share=config.data.max_unreadable_share,
        max_pixels=config.preprocessing.max_pixels,
        labels_required=config.learns,
        sample=config.data.sample or 0,
    )


def _convert_photos(config: RunConfig, data: str) -> list[str]:
    assert isinstance(config, ImageRunConfig)
    return convert_images(data, config.preprocessing.max_pixels)


def _runtime_parameter(name: str, default: str) -> Any:
    """What may be another in each run of a compiled pipeline."""
    from tfx.orchestration.data_types import RuntimeParameter

    return RuntimeParameter(name=name, ptype=str, default=default)


def _label_statistics() -> tfdv.StatsOptions:
    """Statistics of encoded images would hold whole images, as their most frequent values."""
    import tensorflow_data_validation as tfdv

    return tfdv.StatsOptions(feature_allowlist=["label"])


def _search_rows(config: RunConfig) -> LeakSearch | None:
    assert isinstance(config, TabularRunConfig)
    if not config.learns:
        return None
    ignored = tuple(sorted(config.preprocessing.ignored_columns()))
    texts = tuple(sorted(name for name, column in config.preprocessing.columns.items() if column.kind == "text"))
    names = config.preprocessing.label.names
    return LeakSearch(ignored=ignored, label_names=names, allow=config.data.allow, texts=texts)


def _search_texts(config: RunConfig) -> LeakSearch:
    names = config.preprocessing.label.names
    column = _text_feature(config)
    return LeakSearch(columns=(column,), label_names=names, allow=config.data.allow, texts=(column,))


def _text_feature(config: RunConfig) -> str:
    assert isinstance(config, TextRunConfig)
    return config.preprocessing.column


TASKS: dict[str, Task] = {
    "tabular": Task(
        config=TabularRunConfig,
        raw_data=table_data,
        spans=TABLE_SPANS,
        example_gen=_table_example_gen,
        sample_request=sample_row,
        leak_search=_search_rows,
    ),
    "text": Task(
        config=TextRunConfig,
        raw_data=table_data,
        spans=TEXT_SPANS,
        example_gen=_table_example_gen,
        sample_request=sample_row,
        leak_search=_search_texts,
        measures=Measures(("text",), _text_feature, TEXT_MEASURES, measure_texts),
    ),
    "image": Task(
        config=ImageRunConfig,
        raw_data=image_data,
        spans=IMAGE_SPANS,
        example_gen=_image_example_gen,
        sample_request=sample_image,
        schema_file=str(Path(image_example_gen.__file__).parent / "schema.pbtxt"),
        statistics_options=_label_statistics,
        measures=Measures(("image_bytes",), lambda config: "image", IMAGE_MEASURES, measure_images),
        uses_onednn=True,
        convert=_convert_photos,
        quick_examples=200,
    ),
}
