"""Labels beside the versions, in a directory and in an object store."""

import json
import stat
import threading
from pathlib import Path

import pytest

from serving.model_store import (
    ModelStoreError,
    label,
    labels,
    list_versions,
    promote,
    prune,
    publish,
    unlabel,
    withdraw,
)
from tests.serving.fake_object_store import FakeObjectStore
from tests.serving.model_store_testing import provenance_of, write_saved_model

FILES = {"saved_model.pb": "graph"}


@pytest.fixture(params=["directory", "object store"])
def base(request, tmp_path, monkeypatch):
    """The base path of a model with the versions 1, 2 and 3."""
    path = str(tmp_path / "models" / "heart")
    if request.param == "object store":
        store = request.getfixturevalue("object_store")
        store.objects = {}
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", store.address)
        path = "gs://bucket/models/heart"
    for content in ("a", "b", "c"):
        publish(path, write_saved_model(tmp_path / content, content, FILES), provenance_of(content))
    return path


@pytest.fixture(scope="module")
def object_store():
    with FakeObjectStore() as server:
        yield server


def test_a_label_points_to_the_version_it_was_given_last(base):
    assert labels(base) == {}
    assert label(base, "stable", 1).number == 1
    label(base, "canary", 2)
    label(base, "stable", 3)
    assert labels(base) == {"stable": 3, "canary": 2}
    assert unlabel(base, "stable") == 3
    assert labels(base) == {"canary": 2}


def test_promotion_moves_stable_to_the_canary_s_version(base):
    label(base, "stable", 1)
    label(base, "canary", 2)
    assert promote(base).number == 2
    assert labels(base) == {"stable": 2, "canary": 2}


def test_labels_are_no_versions(base):
    label(base, "7", 2)
    assert [version.number for version in list_versions(base)] == [3, 2, 1]
    assert labels(base) == {"7": 2}


def test_what_has_a_label_is_neither_withdrawn_nor_pruned(base):
    label(base, "stable", 1)
    with pytest.raises(ModelStoreError, match=r"version 1 in .* is labelled stable"):
        withdraw(base, 1)
    assert [version.number for version in prune(base, keep=1)] == [2]
    assert [version.number for version in list_versions(base)] == [3, 1]


def test_what_is_not_there_gets_no_label(base):
    withdraw(base, 2)
    for number, message in ((9, "there is no version 9"), (2, "withdrawn already")):
        with pytest.raises(ModelStoreError, match=message):
            label(base, "stable", number)
    with pytest.raises(ModelStoreError, match=r"there is no label canary in .*, it has none"):
        promote(base)
    assert labels(base) == {}


def test_labels_of_a_base_path_that_does_not_exist_are_none(tmp_path):
    assert labels(str(tmp_path / "nothing")) == {}


def test_labels_given_at_the_same_time_lose_nothing(base):
    refused = []

    def give(name: str) -> None:
        for number in (1, 2, 3):
            try:
                label(base, name, number)
            except ModelStoreError as error:  # an object store has no locks: one of two is told
                assert "another process is changing" in str(error)
                refused.append(name)

    names = [f"label-{number}" for number in range(4)]
    threads = [threading.Thread(target=give, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = labels(base)
    assert all(kept[name] == 3 for name in names if name not in refused)
    assert base.startswith("gs://") or not refused


@pytest.fixture
def directory(tmp_path) -> Path:
    base = tmp_path / "base"
    publish(str(base), write_saved_model(tmp_path / "model", "a", FILES), provenance_of("a"))
    return base


def test_another_user_s_server_may_read_the_file(directory):
    label(str(directory), "stable", 1)
    file = directory / ".labels.json"
    assert json.loads(file.read_text()) == {"stable": 1}
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


@pytest.mark.parametrize("content", ["{", "[]", '{"stable": "1"}', '{"stable": true}', "null"])
def test_a_damaged_label_file_is_named_and_not_overwritten(directory, content):
    (directory / ".labels.json").write_text(content)
    for call in (lambda: labels(str(directory)), lambda: label(str(directory), "canary", 1)):
        with pytest.raises(ModelStoreError, match=r"\.labels\.json must hold a JSON object of labels"):
            call()
    assert (directory / ".labels.json").read_text() == content
