"""Configs: what they say, what is refused, and Beam's options."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from components.errors import BrokenInput
from pipeline.config import load_config, quick_config
from pipeline.runners.beam_engine import BeamOptions
from trainers.image.options import FineTuneOptions

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

CONTENT = {
    "name": "mine",
    "task": "tabular",
    "data": {"path": "mine.csv"},
    "preprocessing": {"label": {"column": "bought"}, "columns": {"age": "z_score"}},
    "evaluation": {"at_least": {"auc": 0.8}},
}


@pytest.fixture
def config_path(tmp_path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(CONTENT))
    return str(path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_that_ships_is_valid(path):
    assert load_config(str(path)).name == path.stem


def test_paths_are_relative_to_the_config_file(config_path, tmp_path):
    assert load_config(config_path).data.path == str(tmp_path / "mine.csv")
    assert load_config(config_path, ["data.path=gs://bucket/mine.csv"]).data.path == "gs://bucket/mine.csv"


def test_the_signing_key_is_relative_to_the_config_file_and_in_no_record_of_the_config(config_path, tmp_path):
    config = load_config(config_path, ["push.signing_key=keys/mine.pem"])
    assert config.push.signing_key == str(tmp_path / "keys/mine.pem")
    for record in (config.model_dump_json(), str(config.model_dump()), repr(config)):
        assert "push" in record and "mine.pem" not in record


def test_an_override_reaches_a_nested_key_and_is_typed_as_yaml(config_path):
    config = load_config(
        config_path, ["trainer.epochs=7", "trainer.hidden_units=[8, 4]", "evaluation.at_least.auc=0.5"]
    )
    assert config.trainer.epochs == 7
    assert config.trainer.hidden_units == (8, 4)
    assert config.evaluation.at_least == {"auc": 0.5}


def test_a_kind_alone_stands_for_the_column(config_path):
    assert load_config(config_path).preprocessing.columns["age"].kind == "z_score"


def test_a_config_is_frozen(config_path):
    with pytest.raises(ValueError, match="frozen"):
        load_config(config_path).name = "other"


def test_a_config_that_never_ends_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (str(tmp_path / "pipe.yaml"), "/dev/zero"):
        with pytest.raises(BrokenInput, match=f"{path}: no regular file; expected a config"):
            load_config(path)


def test_a_key_of_an_override_stands_once(config_path):
    with pytest.raises(BrokenInput, match="the key 'a' stands twice"):
        load_config(config_path, ["trainer={a: 1, a: 2}"])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainer.epoch=3", "unknown key 'trainer.epoch'; did you mean 'epochs'?"),
        ("trainer.modle=linear", "unknown key 'trainer.modle'; did you mean 'model'?"),
        ("nonsense=3", "unknown key 'nonsense'; known here: name, task, data"),
        ("trainer.epochs=0", "trainer.epochs: Input should be greater than or equal to 1, received 0"),
        ("data.dataset=hearts", "data: give either path (your own file) or dataset"),
        ("evaluation.at_least={}", "evaluation: no threshold"),
        ("evaluation.at_least.gini=0.5", "evaluation.at_least.gini"),
        ("evaluation.at_least.f1=0.5", "evaluation.at_least.f1 is about one label; name it: preprocessing.label.pos"),
        ("evaluation.slices=[{columns: [sex], at_most: {recall: 1}}]", "evaluation.slices.at_most.recall is about one"),
        (
            "evaluation.slices=[{columns: [sex], undecided: fail}]",
            "undecided is about bounds: give at_least or at_most",
        ),
        (
            "preprocessing.label={column: bought, order: [a, b], positive: c}",
            "positive is 'c', which is none of the la",
        ),
        ('preprocessing.label={column: bought, names: {"1": yep}, positive: "1"}', "write positive: yep"),
        ("preprocessing.columns.bought=categorical", "columns lists the label 'bought'"),
        ("preprocessing.columns.age={kind: quantiles}", "buckets goes with kind: quantiles"),
        ("preprocessing.columns.age={kind: boundaries, boundaries: [2, 1]}", "boundaries must ascend"),
        ("skew.maximum_of.age=1.5", "the bound of 'age' is 1.5; a divergence lies between 0 and 1"),
        ("preprocessing.crosses=[[age]]", "a cross takes two columns or more"),
        ("preprocessing.crosses=[[age, city]]", "crosses names 'age', which is z_score"),
        ('preprocessing.label.order=["yes", "yes"]', "order lists a label twice"),
        ("preprocessing.label.order=[yes, no]", "put the label in quotes"),
        ("preprocessing.label.names={1: yes}", "put the label in quotes"),
        ("data.weight=bought", "data.weight is 'bought', which preprocessing.label.column names; a weight is neither"),
        ("data.weight=age", "data.weight is 'age', which preprocessing.columns.age names"),
        ("serving.decision={threshold: 0.3}", "serving.decision is about one label; name it: preprocessing.label.pos"),
        ("serving.decision={}", "give one of threshold: 0.3, maximise: f1 (or accuracy), and at_least"),
        ("serving.decision={threshold: 0.3, maximise: f1}", "give one of threshold: 0.3"),
        ("serving.decision={at_least: {precision: 0.9, recall: 0.5}}", "at_least: {precision: 0.9} with one metric"),
        ("serving.decision.maximise=auc", "serving.decision.maximise"),
        ("trainer.class_weights=even", "trainer.class_weights"),
        ("name=../up", "name: String should match pattern"),
        ("trainer", "--set trainer: expected key=value"),
        ("name.of=x", "'name' holds a value, not keys"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_key(config_path, override, sentence):
    with pytest.raises(BrokenInput) as refused:
        load_config(config_path, [override])
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("config", "override", "sentence"),
    [
        ("reviews", "data.weight=stars", "data: weight is for task: tabular"),
        ("digits", "data.weight=stars", "unknown key 'data.weight'"),
        ("reviews", "serving.decision={threshold: 0.3}", "serving.decision is for task: tabular; texts and photos get"),
        ("digits", "serving.decision={maximise: f1}", "serving.decision is for task: tabular; texts and photos get"),
    ],
)
def test_what_a_task_does_not_know_is_refused(config, override, sentence):
    with pytest.raises(BrokenInput, match=sentence):
        load_config(str(CONFIGS / f"{config}.yaml"), [override])


def test_a_missing_key_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in CONTENT.items() if key != "evaluation"}))
    with pytest.raises(BrokenInput, match="the key 'evaluation' is missing"):
        load_config(str(path))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1", "found list"),
        ("", "found None"),
        ("name: a\ndata: {path: x}\nname: b\n", "the key 'name' stands twice; expected it once"),
        ("name: a\ndata: {path: x, 'path': y}\n", "the key 'path' stands twice"),
        ("a: " + "[" * 5000, "it is nested deeper than any config"),
        ("a: " + "{b: " * 2000 + "1" + "}" * 2000, "it is nested deeper than any config"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, content, sentence):
    (tmp_path / "broken.yaml").write_text(content)
    with pytest.raises(BrokenInput, match=sentence):
        load_config(str(tmp_path / "broken.yaml"))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainer.epoch=3", "unknown key 'trainer.epoch'; did you mean 'epochs'?"),
        ("trainer={model: encoder, l2: 1}", "unknown key 'trainer.l2'; known here: learning_rate"),
        ("trainer.model=hub", "the key 'trainer.handle' is missing"),
        ("trainer.model=trees", "trainer: Input tag 'trees' found using 'model' does not match"),
        (
            "data.format=xml",
            "data.format: Input should be 'csv', 'tsv', 'jsonl', 'parquet' or 'tfrecord', received 'xml'",
        ),
        ("preprocessing.vocabulary=alphabet", "preprocessing.vocabulary: Input should be 'frequency'"),
    ],
)
def test_the_options_of_a_model_of_texts_are_named_as_they_are_written(override, sentence):
    with pytest.raises(BrokenInput) as refused:
        load_config(str(CONFIGS / "reviews.yaml"), [override])
    assert sentence in str(refused.value)


def test_the_model_of_texts_decides_about_the_features():
    reviews = str(CONFIGS / "reviews.yaml")
    assert load_config(reviews).preprocessing.features == "terms"
    assert load_config(reviews, ["trainer.model=encoder"]).preprocessing.word_ngrams == 1
    hub = load_config(reviews, ["trainer={model: hub, handle: nnlm}"])
    assert hub.trainer.handle == str(CONFIGS / "nnlm")
    assert hub.preprocessing.features == "text"


def test_a_trainer_of_photos_says_its_mode():
    with pytest.raises(BrokenInput, match=r"the key 'trainer\.mode' is missing; expected fine_tune or wrap"):
        load_config(str(CONFIGS / "digits.yaml"), ["trainer={weights: none}"])


def test_the_pixels_follow_the_backbone_where_the_config_does_not_give_them():
    digits, flowers = (str(CONFIGS / f"{name}.yaml") for name in ("digits", "flowers"))
    followed = load_config(flowers, ["trainer.backbone=ResNet50"]).preprocessing
    assert (followed.height, followed.width, followed.scaling) == (224, 224, "raw")
    given = load_config(digits).preprocessing
    assert (given.height, given.width, given.scaling) == (75, 75, "minus_one_to_one")


def test_weights_of_a_backbone_are_relative_to_the_config_file():
    flowers = str(CONFIGS / "flowers.yaml")
    assert load_config(flowers, ["trainer.weights=my.weights.h5"]).trainer.weights == str(CONFIGS / "my.weights.h5")
    assert load_config(flowers).trainer.weights == "imagenet"


ELSEWHERE = {"job_endpoint": "localhost:1", "environment_type": "EXTERNAL", "environment_config": "localhost:2"}


def test_options_become_arguments_lists_are_repeated_and_false_is_left_out():
    options = BeamOptions(runner="DataflowRunner", options={"a": 1, "b": ["x", "y"], "c": True, "d": False})
    assert options.pipeline_args("registry/ingraph:1") == [
        "--runner=DataflowRunner", "--a=1", "--b=x", "--b=y", "--c", "--sdk_container_image=registry/ingraph:1",
    ]  # fmt: skip


def test_the_image_that_the_options_name_wins():
    options = BeamOptions(runner="DataflowRunner", options={"sdk_container_image": "mine"})
    assert options.pipeline_args("registry/ingraph:1") == ["--runner=DataflowRunner", "--sdk_container_image=mine"]


@pytest.mark.parametrize("options", [{"runner": "DataflowRunner"}, {"runner": "PortableRunner"}])
def test_workers_in_containers_without_an_image_are_refused(options):
    with pytest.raises(BrokenInput, match=rf"beam\.runner is {options['runner']}, .* `--set cluster\.image="):
        BeamOptions(**options).pipeline_args()


def test_workers_that_are_no_containers_need_no_image():
    arguments = BeamOptions(runner="PortableRunner", options=ELSEWHERE).pipeline_args()
    assert arguments[:2] == ["--runner=PortableRunner", "--job_endpoint=localhost:1"]


HERE, BESIDE = ["--environment_type=LOOPBACK"], ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"]


@pytest.mark.parametrize(
    ("runner", "master", "expected"),
    [
        ("flink", "localhost:8081", ["--runner=FlinkRunner", "--flink_master=http://localhost:8081", *HERE]),
        ("flink", "https://flink:443", ["--runner=FlinkRunner", "--flink_master=https://flink:443", *BESIDE]),
        ("flink", "[local]", ["--runner=FlinkRunner", "--flink_master=[local]", *HERE]),
        ("spark", "10.0.0.7:7077", ["--runner=SparkRunner", "--spark_master_url=spark://10.0.0.7:7077", *BESIDE]),
        ("spark", "local[2]", ["--runner=SparkRunner", "--spark_master_url=local[2]", *HERE]),
        ("spark", "local", ["--runner=SparkRunner", "--spark_master_url=local", *HERE]),
    ],
)
def test_a_master_stands_for_the_runner_the_option_and_the_workers_of_its_cluster(runner, master, expected):
    assert BeamOptions(runner=runner, master=master).pipeline_args() == [*expected, "--sdk_container_image=unused"]


def test_options_win_over_what_a_master_stands_for():
    pool = {"environment_type": "EXTERNAL", "environment_config": "localhost:6", "parallelism": 4}
    arguments = BeamOptions(runner="flink", master="localhost:8081", options=pool).pipeline_args()
    assert arguments[2:5] == ["--environment_type=EXTERNAL", "--environment_config=localhost:6", "--parallelism=4"]
    with pytest.raises(BrokenInput, match=r"beam\.runner is flink, whose workers are containers"):
        BeamOptions(runner="flink", master="flink:8081", options={"environment_type": "DOCKER"}).pipeline_args()


@pytest.mark.parametrize(
    "options", [{"runner": "flink"}, {"master": "a:1"}, {"runner": "FlinkRunner", "master": "a:1"}]
)
def test_a_master_goes_with_its_runner(options):
    with pytest.raises(ValueError, match="expected master: HOST:PORT with runner: flink or spark, and with no other"):
        BeamOptions(**options)


def test_names_with_dashes_are_refused():
    with pytest.raises(ValueError, match="'--project': give names without dashes"):
        BeamOptions(options={"--project": "p"})


def test_request_logs_and_late_labels_are_relative_to_the_config(config_path):
    folder = str(Path(config_path).resolve().parent)
    loaded = load_config(
        config_path,
        ["evaluation.replay.logs=logs/heart-*", "evaluation.truth={logs: [/l, gs://b/l], labels: late.csv, key: id}"],
    )
    assert loaded.evaluation.replay.logs == (f"{folder}/logs/heart-*",)
    assert loaded.evaluation.truth.logs == ("/l", "gs://b/l")
    assert (loaded.evaluation.truth.labels, loaded.evaluation.truth.key) == ((f"{folder}/late.csv",), ("id",))
    with pytest.raises(BrokenInput, match="when_below needs the accuracy that is expected: give at_least"):
        load_config(config_path, ["evaluation.truth={logs: l, labels: l, when_below: retrain}"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["serving.unknown.label=unsure"], "give either confidence, `confidence: 0.7`, or coverage"),
        (["serving.unknown={confidence: 0.7, coverage: 0.9}"], "give either confidence"),
        (["serving.unknown={coverage: 1.0}"], "less than 1"),
        (["serving.unknown={confidence: 0.7, label: ' '}"], "expected a label"),
        (["serving.explain=64"], r"serving.explain: expected true, false or \{samples: 64\}, received 64"),
        (["serving.explain.samples=7"], "serving.explain.samples: Input should be a multiple of 2"),
        (["serving.explain.samples=5000"], "serving.explain.samples: Input should be less than or equal to 1024"),
        (["serving.explain.sample=8"], "unknown key 'serving.explain.sample'; did you mean 'samples'"),
        (
            ["serving.unknown={confidence: 0.7, label: sick}", "preprocessing.label.names={1: sick}"],
            "serving.unknown.label is 'sick', which is one of the model's labels; choose a name that no label has",
        ),
    ],
)
def test_a_label_for_unknown_or_explanations_that_make_no_sense_are_refused(config_path, settings, said):
    with pytest.raises(BrokenInput, match=said):
        load_config(config_path, settings)
    assert load_config(config_path, ["serving.unknown.coverage=0.9"]).serving.unknown.label == "unknown"
    explained = [
        load_config(config_path, [f"serving.explain={value}"]).serving for value in ("true", "false", "{samples: 64}")
    ]
    assert [serving.explain_samples(128) for serving in explained] == [128, None, 64]


@pytest.mark.parametrize(
    ("name", "examples", "epochs"), [("heart", 500, 5), ("reviews", 500, 2), ("digits", 200, 1), ("flowers", 200, 5)]
)
def test_a_quick_run_has_few_examples_and_epochs_that_its_trainer_takes_and_a_folder_of_its_own(name, examples, epochs):
    overrides = ["tuner={space: {class_weights: [none, balanced]}}", "data.minimum_examples=1000"]
    config = quick_config(load_config(f"{CONFIGS}/{name}.yaml", overrides))
    assert (config.data.sample, config.data.minimum_examples) == (examples, 10)
    assert config.trainer.epochs == epochs
    # As the Trainer reads them: what it does not take together would be refused there.
    assert type(config.trainer).model_validate_json(config.trainer.model_dump_json()) == config.trainer
    assert config.tuner.trials == 2
    assert (config.runs, config.models) == (f"runs/{name}/quick", f"runs/{name}/quick/models")
    assert config.serving_check.maximum_examples == 100


def test_a_sample_that_is_smaller_than_a_quick_runs_stays():
    config = load_config(f"{CONFIGS}/heart.yaml", ["data.sample=50", "trainer.epochs=1"])
    assert (quick_config(config).data.sample, quick_config(config).trainer.epochs) == (50, 1)


def test_a_choice_of_backbones_takes_the_largest_size_of_those_in_the_folder_and_raw_pixels(tmp_path):
    def load(*settings: str):
        every = ["trainer.backbone=auto", "data.path=flowers", *settings]
        return load_config(f"{CONFIGS}/flowers.yaml", every)

    (tmp_path / "InceptionV3.weights.h5").touch()
    (tmp_path / "MobileNetV2.weights.h5").touch()
    config = load(f"trainer.weights={tmp_path}")
    assert (config.preprocessing.height, config.preprocessing.scaling) == (299, "raw")
    assert list(config.trainer.candidates()) == ["InceptionV3", "MobileNetV2"]
    assert load().preprocessing.width == 384  # EfficientNetV2S is among those that Keras downloads
    with pytest.raises(BrokenInput, match="makes each of raw pixels; take scaling out"):
        load(f"trainer.weights={tmp_path}", "preprocessing.scaling=zero_to_one")
    with pytest.raises(BrokenInput, match="auto tries backbones as they are"):
        load(f"trainer.weights={tmp_path}", "tuner={space: {label_smoothing: [0, 0.1]}}", "trainer.trained_blocks=1")
    (tmp_path / "inceptionv4.weights.h5").touch()
    with pytest.raises(BrokenInput, match=r"called 'inceptionv4'; .* InceptionV3.weights.h5 for example"):
        load(f"trainer.weights={tmp_path}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BrokenInput, match="empty has none"):
        load(f"trainer.weights={tmp_path}/empty")


def test_options_of_photos_survive_their_json():
    options = FineTuneOptions(mode="fine_tune", trained_blocks=2, epochs=3, blocks=["mixed5"])
    assert FineTuneOptions.model_validate_json(options.model_dump_json()) == options
    assert json.loads(options.model_dump_json())["blocks"] == ["mixed5"]


def test_a_precision_that_there_is_not_is_said_with_those_that_there_are():
    expected = "trainer.precision: Input should be 'float32', 'bfloat16' or 'int8', received 'int4'"
    with pytest.raises(BrokenInput, match=expected):
        load_config("configs/flowers.yaml", ["trainer.precision=int4"])
