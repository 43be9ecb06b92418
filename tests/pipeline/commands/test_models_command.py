""""""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from serving.model_store import label, labels, list_versions, publish, read_signing_key, withdraw


@pytest.fixture
def base(tmp_path: Path) -> str:
    """Four versions: 4 withdrawn, 3 served, 2 and 1 kept."""
    model = tmp_path / "saved_model"
    model.mkdir()
    (model / "saved_model.pb").write_text("graph")
    base = str(tmp_path / "heart")
    for number in range(1, 5):
        provenance = {
            "run_id": f"run-{number}",
            "data_fingerprint": f"{number}" * 64,
            "code_fingerprint": "c0de" * 16,
            "metrics": {"example_count": 60.0, "accuracy": 0.81, "auc": 0.90 + number / 1000, "cross_entropy": 0.4},
        }
        publish(base, str(model), provenance)
    withdraw(base, 4, "wrong on [new] patients")
    return base


def ingraph(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(main, ["models", *arguments])


def one_sentence(result: Result) -> str:
    """What was printed on standard error by a command that the store refused."""
    assert result.exit_code == ExitStatus.NOT_PUBLISHED
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_list_shows_state_time_run_metrics_and_shortened_fingerprints(base):
    result = ingraph("list", base)
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert "4 withdrawn: wrong on [new] patients 20" in words
    assert [f"{number} {state} 20" in words for number, state in ((3, "served"), (2, "kept"), (1, "kept"))] == [
        True
    ] * 3
    assert "accuracy 0.81 run run-3 auc 0.903 data 33333333 cross_entropy 0.4 code c0dec0de" in words
    assert "example_count" not in result.stdout


def test_list_json_holds_everything_known(base):
    described = json.loads(ingraph("list", base, "--json").stdout)
    assert [(version["version"], version["state"], version["reason"]) for version in described] == [
        (4, "withdrawn", "wrong on [new] patients"),
        (3, "served", ""),
        (2, "kept", ""),
        (1, "kept", ""),
    ]
    assert described[1]["path"] == f"{base}/3"
    assert described[1]["provenance"]["data_fingerprint"] == "3" * 64
    assert "differing_files" not in described[1]


def test_a_key_is_made_and_says_whose_versions_are_whose(base, tmp_path):
    made = ingraph("keygen", str(tmp_path / "mine.pem"))
    assert made.exit_code == 0
    name = made.stdout.removeprefix("Key ").partition(":")[0]
    assert (len(name), (tmp_path / "mine.pem").exists()) == (16, True)
    assert "File exists" in one_sentence(ingraph("keygen", str(tmp_path / "mine.pem")))

    public = str(tmp_path / "mine.pem.pub")
    unsigned = ingraph("verify", base, "--key", public)
    assert unsigned.exit_code == ExitStatus.NOT_PUBLISHED
    assert unsigned.stderr == "Error: 4 of 4 versions are not as a holder of the key published them.\n"
    key = read_signing_key(tmp_path / "mine.pem")
    publish(base, f"{base}/3", {"data_fingerprint": "d", "code_fingerprint": "c"}, key=key)
    assert ingraph("verify", base, "5", "--key", public).stdout == f"Version 5 is signed by {name}.\n"
    assert f"key {name}" in " ".join(ingraph("list", base).stdout.split())
    Path(base, "5/saved_model.pb").write_text("something else")
    changed = ingraph("verify", base, "5", "--key", public)
    assert changed.stdout == (
        f"Version 5: {base}/5 was changed after it was signed: not as they were signed: saved_model.pb; publish the "
        "model again.\n"
    )
    assert "there is no version 9 in" in one_sentence(ingraph("verify", base, "9", "--key", public))
    assert "public key cannot be read: No such" in one_sentence(ingraph("verify", base, "--key", f"{public}.no"))


def test_list_verify_names_damaged_files(base):
    result = ingraph("list", base, "--verify")
    assert (result.exit_code, result.stdout.count("as published")) == (0, 4)
    Path(base, "2/saved_model.pb").write_text("something else")
    result = ingraph("list", base, "--verify")
    assert f"not as published: {base}/2/saved_model.pb;" in one_sentence(result)
    assert (result.stdout.count("as published"), result.stdout.count("1 damaged")) == (3, 1)
    result = ingraph("list", base, "--verify", "--json")
    assert [version["differing_files"] for version in json.loads(result.stdout)] == [[], [], ["saved_model.pb"], []]


def test_list_verify_says_where_nothing_can_be_compared(tmp_path):
    (tmp_path / "5").mkdir()
    (tmp_path / "5/saved_model.pb").write_text("pushed by something else")
    result = ingraph("list", str(tmp_path), "--verify")
    assert "no checksums" in result.stdout


@pytest.mark.parametrize("checksums", [["saved_model.pb"], "abc", {"saved_model.pb": 7}, None])
def test_list_verify_names_provenance_that_holds_no_checksums(base, checksums):
    file = Path(base, "3", "assets.extra", "provenance.json")
    file.write_text(json.dumps({"checksums": checksums}))

    refused = one_sentence(ingraph("list", base, "--verify"))

    assert f"{file} must hold the SHA-256 of each file by its name as `checksums`, received" in refused


def test_what_provenance_holds_does_not_reach_the_terminal_as_its_commands(base):
    file = Path(base, "3", "assets.extra", "provenance.json")
    hostile = "run\x1b[2J\x1b]0;title\x07 :x: [b] \u202e"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"run_id": hostile, "published_at": hostile}))

    shown = ingraph("list", base).stdout

    assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert ":x: [b]" in shown and "\\x1b[2J" in shown


def test_list_of_a_base_path_without_versions(tmp_path):
    assert ingraph("list", str(tmp_path)).stdout == f"No versions in {tmp_path}.\n"
    assert json.loads(ingraph("list", str(tmp_path), "--json").stdout) == []


def test_withdraw_rolls_back_and_restore_undoes_it(base):
    assert ingraph("withdraw", base, "--reason", "too slow").stdout == (
        "Version 3 is withdrawn. Version 2 is served now.\n"
    )
    assert ingraph("restore", base, "4").stdout == "Version 4 is restored. Version 4 is served now.\n"
    assert ingraph("withdraw", base, "1").stdout == "Version 1 is withdrawn. Version 4 is served now.\n"
    described = json.loads(ingraph("list", base, "--json").stdout)
    assert [version["reason"] for version in described] == ["", "too slow", "", ""]


def test_withdrawing_the_last_version_says_that_nothing_is_served(base):
    for _ in range(2):
        ingraph("withdraw", base)
    assert ingraph("withdraw", base).stdout == "Version 1 is withdrawn. No version is left to serve.\n"
    assert "serves no version" in one_sentence(ingraph("withdraw", base))


def test_prune_says_what_it_removed(base):
    assert ingraph("prune", base, "--keep", "1").stdout == "Removed: 2, 1.\n"
    assert ingraph("prune", base, "--keep", "1").stdout == "Nothing to remove.\n"


def test_what_the_store_refuses_is_one_sentence_with_its_own_exit_status(base):
    assert "there is no version 9" in one_sentence(ingraph("withdraw", base, "9"))
    assert "version 3 in" in one_sentence(ingraph("restore", base, "3"))
    assert "a file is in its place" in one_sentence(ingraph("list", f"{base}/3/saved_model.pb"))
    assert "there is no directory" in one_sentence(ingraph("prune", f"{base}t", "--keep", "1"))


def test_a_wrong_command_line_is_broken_input(base):
    for arguments in (["prune", base], ["prune", base, "--keep", "0"], ["restore", base, "newest"]):
        assert ingraph(*arguments).exit_code == ExitStatus.BROKEN_INPUT


def test_labels_are_given_moved_promoted_and_removed(base):
    assert ingraph("label", base, "stable", "1").stdout == "stable points to version 1.\n"
    assert ingraph("label", base, "canary", "2").stdout == "canary points to version 2.\n"
    assert labels(base) == {"stable": 1, "canary": 2}
    assert ingraph("promote", base).stdout == "stable points to version 2 instead of version 1.\n"
    assert labels(base) == {"stable": 2, "canary": 2}
    assert ingraph("promote", base, "--from", "stable", "--to", "oldest").stdout == "oldest points to version 2.\n"
    assert ingraph("label", base, "oldest", "--remove").stdout == "oldest no longer points to version 2.\n"
    assert labels(base) == {"stable": 2, "canary": 2}


def test_list_shows_labels(base):
    label(base, "stable", 2)
    label(base, "canary", 3)

    words = " ".join(ingraph("list", base).stdout.split())
    assert "3 served, canary 20" in words
    assert "2 kept, stable 20" in words
    described = json.loads(ingraph("list", base, "--json").stdout)
    assert {version["version"]: version["labels"] for version in described} == {
        4: [], 3: ["canary"], 2: ["stable"], 1: []
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["label", "canary", "9"], "there is no version 9 in"),
        (["label", "canary", "4"], "is withdrawn already"),
        (["label", "a/b", "3"], "a label is made of letters, digits, '_', '-' and '.', received 'a/b'"),
        (["label", "canary", "--remove"], "there is no label canary in"),
        (["promote"], "there is no label canary in"),
    ],
)
def test_a_label_that_cannot_be_is_refused_with_one_sentence(base, arguments, message):
    assert message in one_sentence(ingraph(arguments[0], base, *arguments[1:]))
    assert labels(base) == {}


def test_a_labelled_version_is_neither_withdrawn_nor_pruned(base):
    label(base, "stable", 1)
    label(base, "canary", 3)

    refused = one_sentence(ingraph("withdraw", base))
    assert f"version 3 in {base} is labelled canary" in refused
    assert f"ingraph models label {base} canary VERSION" in refused
    assert ingraph("prune", base, "--keep", "1").stdout == "Removed: 2.\n"
    assert [version.number for version in list_versions(base)] == [4, 3, 1]
    label(base, "canary", 1)
    assert ingraph("withdraw", base).stdout.startswith("Version 3 is withdrawn.")


def read_config(text: str) -> model_server_config_pb2.ModelServerConfig:
    return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())


def test_the_config_keeps_what_labels_point_to_and_the_largest_version(base):
    label(base, "stable", 1)
    label(base, "canary", 2)

    result = ingraph("config", base)
    assert result.exit_code == 0
    [config] = read_config(result.stdout).model_config_list.config
    assert (config.name, config.base_path, config.model_platform) == ("heart", base, "tensorflow")
    assert list(config.model_version_policy.specific.versions) == [1, 2, 3]
    assert dict(config.version_labels) == {"stable": 1, "canary": 2}


def test_the_config_of_models_without_labels_serves_the_latest_version_of_each(base, monkeypatch):
    monkeypatch.chdir(Path(base).parent)

    result = ingraph("config", "heart", "liver=heart")
    assert result.exit_code == 0
    configs = read_config(result.stdout).model_config_list.config
    assert [(config.name, config.base_path) for config in configs] == [("heart", base), ("liver", base)]
    assert not any(config.HasField("model_version_policy") for config in configs)


def test_the_config_names_the_paths_at_which_a_container_finds_the_models(base):
    result = ingraph("config", f"heart-2={base}", "--mounted-at", "/models/")

    assert [config.base_path for config in read_config(result.stdout).model_config_list.config] == ["/models/heart-2"]


def test_a_config_of_what_cannot_be_served_is_refused(base, tmp_path):
    assert "has no version to serve" in one_sentence(ingraph("config", str(tmp_path / "nothing")))
    assert ingraph("config", base, base).exit_code == ExitStatus.BROKEN_INPUT
    label(base, "stable", 1)
    shutil.rmtree(Path(base, "1"))
    assert "label stable" in one_sentence(ingraph("config", base))
