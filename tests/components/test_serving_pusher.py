import json
from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from components.dependencies import BILL_FILE, environment_bill
from components.errors import NotPublished
from components.serving_pusher import Executor
from serving.model_store import (
    KEY_VARIABLE,
    list_versions,
    make_key,
    publish,
    restore,
    served_version,
    verify,
    verify_signature,
    withdraw,
)


@pytest.fixture
def base_path(tmp_path):
    return str(tmp_path / "models" / "colours")


@pytest.fixture
def push(artifact, base_path):
    """Runs the executor; answers the PushedModel's properties."""

    def run(model, run_id="run-1", base_path=base_path, **blessings):
        pushed = artifact(standard_artifacts.PushedModel, "pushed")
        Executor().Do(
            {"model": [model]} | {name: [blessing] for name, blessing in blessings.items()},
            {"pushed_model": [pushed]},
            {"base_path": base_path, "run_id": run_id, "model_name": "colours"},
        )
        return {
            "pushed": pushed.get_int_custom_property("pushed"),
            "destination": pushed.get_string_custom_property("pushed_destination"),
            "version": pushed.get_string_custom_property("pushed_version"),
            "reason": pushed.get_string_custom_property("reason"),
        }

    return run


@pytest.fixture
def blessing(artifact):
    def make(artifact_type, blessed, reason=""):
        made = artifact(artifact_type, f"{artifact_type.TYPE_NAME}-{blessed}")
        made.set_int_custom_property("blessed", blessed)
        made.set_string_custom_property("reason", reason)
        return made

    return make


def published(base_path):
    return [version.number for version in list_versions(base_path)]


def test_a_model_is_published_with_its_origin(trained, push, base_path):
    model = trained()
    assert push(model, run_id="run-7") == {
        "pushed": 1,
        "destination": f"{base_path}/1",
        "version": "1",
        "reason": "published as version 1",
    }
    version = served_version(base_path)
    assert verify(version) == []
    origin = dict(version.provenance)
    assert {"saved_model.pb", "assets/labels", BILL_FILE} <= set(origin.pop("checksums"))
    assert Path(version.path, origin.pop("bill_of_materials")).read_bytes() == environment_bill()
    assert origin.pop("published_at")
    assert origin == {
        "data_fingerprint": "data-1",
        "code_fingerprint": "code-1",
        "trained_rows": 40,
        "model_name": "colours",
        "run_id": "run-7",
        "metrics": {},
        "serving_check": {},
        "version": 1,
    }


def test_the_stamped_model_is_what_is_published(trained, push, blessing, base_path):
    model = trained()
    infra_blessing = blessing(standard_artifacts.InfraBlessing, 1)
    infra_blessing.set_int_custom_property("has_model", 1)
    Path(model.uri, "Format-Serving").rename(Path(infra_blessing.uri, "stamped_model"))
    warmup = Path(infra_blessing.uri, "stamped_model", "assets.extra", "tf_serving_warmup_requests")
    warmup.parent.mkdir()
    warmup.write_bytes(b"requests")
    Path(infra_blessing.uri, "report.json").write_text(json.dumps({"blessed": True, "checked": 40}))
    assert push(model, infra_blessing=infra_blessing)["version"] == "1"
    version = served_version(base_path)
    assert Path(version.path, "assets.extra", "tf_serving_warmup_requests").read_bytes() == b"requests"
    assert version.provenance["serving_check"] == {"blessed": True, "checked": 40}


def test_the_served_model_is_not_published_twice(trained, push, base_path):
    push(trained())
    assert push(trained(name="again"), run_id="run-2") == {
        "pushed": 1,
        "destination": f"{base_path}/1",
        "version": "1",
        "reason": "already published as version 1",
    }
    assert published(base_path) == [1]


def test_a_model_is_signed_with_the_key_of_the_environment_which_nothing_records(
    trained, push, base_path, tmp_path, monkeypatch
):
    push(trained())
    keys = [make_key(tmp_path / name) for name in ("first.pem", "second.pem")]
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "first.pem"))
    # What is served is not signed: a server that requires it would not have it.
    assert push(trained(name="again"))["reason"] == "published as version 2"
    assert push(trained(name="once-more"))["reason"] == "already published as version 2"
    version = served_version(base_path)
    assert verify_signature(version.path, 2, keys) == keys[0]
    assert version.provenance["signed_by"] == keys[0].fingerprint
    secret = (tmp_path / "first.pem").read_bytes().splitlines()[1]
    for file in (path for path in Path(version.path).rglob("*") if path.is_file()):
        assert b"first.pem" not in file.read_bytes() and secret not in file.read_bytes()
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "second.pem"))
    assert push(trained(name="new key"))["reason"] == "published as version 3"
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "secret-place/lost.pem"))
    with pytest.raises(NotPublished, match="the signing key cannot be read: No such file") as raised:
        push(trained(name="no key"))
    assert "secret-place" not in str(raised.value)
    assert published(base_path) == [3, 2, 1]


def test_a_model_that_is_no_longer_served_is_published_again(trained, push, base_path):
    push(trained())
    push(trained(name="other", data="data-2"))
    assert push(trained(name="again"))["reason"] == "published as version 3"
    assert published(base_path) == [3, 2, 1]


def test_a_wiped_base_path_is_filled_again(trained, push, base_path):
    push(trained())
    Path(base_path).rename(f"{base_path}-elsewhere")
    assert push(trained(name="again"))["pushed"] == 1
    assert served_version(base_path) is not None


def test_a_withdrawn_model_is_not_published_until_it_is_restored(trained, push, base_path):
    push(trained())
    withdraw(base_path, reason="wrong on new patients")
    refused = push(trained(name="again"))
    assert (refused["pushed"], refused["destination"], refused["version"]) == (0, "", "")
    assert refused["reason"].startswith("not published: ")
    assert "version 1 (wrong on new patients)" in refused["reason"]
    restore(base_path, 1)
    assert push(trained(name="once-more"))["reason"] == "already published as version 1"


@pytest.mark.parametrize(
    ("name", "artifact_type", "said"),
    [
        ("model_blessing", standard_artifacts.ModelBlessing, "the Evaluator did not bless the model: auc is 0.5"),
        ("infra_blessing", standard_artifacts.InfraBlessing, "the serving check failed: auc is 0.5"),
        ("replay_blessing", standard_artifacts.ModelBlessing, "it answers logged requests too differently: auc is 0.5"),
    ],
)
def test_a_model_that_is_not_blessed_is_not_published(trained, push, blessing, base_path, name, artifact_type, said):
    refused = push(trained(), **{name: blessing(artifact_type, 0, "auc is 0.5")})
    assert refused == {"pushed": 0, "destination": "", "version": "", "reason": f"not published: {said}"}
    assert not Path(base_path).exists()


def test_blessed_models_are_published(trained, push, blessing):
    blessed = blessing(standard_artifacts.ModelBlessing, 1)
    assert push(trained(), model_blessing=blessed)["reason"] == "published as version 1"


def test_an_unusable_base_path_stops_the_run_and_stays_as_it_was(trained, push, tmp_path):
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(NotPublished, match="file"):
        push(trained(), base_path=str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "no directory"


def test_a_model_without_fingerprints_stops_the_run(trained, push):
    model = trained()
    Path(model.uri, "provenance.json").unlink()
    with pytest.raises(NotPublished, match="missing here: data_fingerprint, code_fingerprint"):
        push(model)


def test_a_foreign_version_without_provenance_is_no_reason_to_skip(trained, push, base_path):
    version = publish(base_path, f"{trained().uri}/Format-Serving", {"data_fingerprint": "x", "code_fingerprint": "y"})
    Path(version.path, "assets.extra", "provenance.json").unlink()
    assert push(trained(name="again"))["reason"] == "published as version 2"
