"""Fingerprints of code and of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.fingerprints import code_fingerprint, content_fingerprint, imported_files, run_fingerprint
from pipeline.tasks import TASKS

PROJECT = Path(__file__).parents[2]


def test_a_files_content_counts_and_its_time_does_not(tmp_path):
    weights = tmp_path / "a.weights.h5"
    weights.write_bytes(b"one")
    before = content_fingerprint([str(weights)])
    weights.write_bytes(b"one")
    assert content_fingerprint([str(weights)]) == before
    weights.write_bytes(b"two")
    assert content_fingerprint([str(weights)]) != before


def test_every_file_of_a_directory_counts(tmp_path):
    (tmp_path / "hub/variables").mkdir(parents=True)
    (tmp_path / "hub/saved_model.pb").write_bytes(b"graph")
    variables = tmp_path / "hub/variables/variables.data"
    variables.write_bytes(b"one")
    before = content_fingerprint([f"{tmp_path}/hub"])
    assert content_fingerprint([f"{tmp_path}/hub"]) == before
    variables.write_bytes(b"two")
    changed = content_fingerprint([f"{tmp_path}/hub"])
    variables.rename(Path(f"{variables}-moved"))
    assert len({before, changed, content_fingerprint([f"{tmp_path}/hub"])}) == 3


def test_what_is_not_there_counts_by_its_name(tmp_path):
    assert content_fingerprint([f"{tmp_path}/a"]) != content_fingerprint([f"{tmp_path}/b"])


def test_a_run_is_another_where_a_setting_a_file_or_a_switch_of_tensorflow_is(tmp_path, monkeypatch):
    table, folder = tmp_path / "rows.csv", tmp_path / "encoder"
    table.write_text("a,b")
    folder.mkdir()
    (folder / "weights").write_text("1")

    def fingerprint(*settings: str) -> str:
        return run_fingerprint(settings or ["epochs: 3"], [str(table), str(folder)])

    first = fingerprint()
    assert fingerprint() == first
    found = {first, fingerprint("epochs: 4")}
    table.write_text("a,c")
    os.utime(table, ns=(0, 1))
    found.add(fingerprint())
    (folder / "more").touch()
    found.add(fingerprint())
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    found.add(fingerprint())
    table.unlink()
    found.add(fingerprint())
    assert len(found) == 6


def test_a_run_is_another_where_code_or_a_release_of_a_library_is(tmp_path, monkeypatch):
    for package in ("pipeline", "components", "transform", "trainers", "serving"):
        (tmp_path / package).mkdir()
    source, libraries = tmp_path / "serving/answers.py", tmp_path / "site-packages"
    source.write_text("1")
    (libraries / "tfx-1.17.2.dist-info").mkdir(parents=True)
    monkeypatch.setattr("pipeline.fingerprints._ROOT", tmp_path)
    monkeypatch.setattr("sys.path", [str(libraries)])
    first = run_fingerprint([], [])
    source.write_text("2")
    changed = run_fingerprint([], [])
    (libraries / "tfx-1.17.2.dist-info").rename(libraries / "tfx-1.17.3.dist-info")
    assert len({first, changed, run_fingerprint([], [])}) == 3


def sources_of(module: str) -> set[str]:
    return {str(path.relative_to(PROJECT)) for path in imported_files(module)}


@pytest.mark.parametrize("task", TASKS)
def test_what_is_in_the_graph_of_a_task_decides_its_fingerprints(task):
    transform, trainer = sources_of(f"transform.{task}"), sources_of(f"trainers.{task}")
    assert {f"transform/{task}.py", "transform/labels.py", "serving/missing_values.py"} <= transform
    assert {f"trainers/{task}/train.py", f"serving/signatures/{task}.py", "serving/missing_values.py"} <= trainer


def test_the_functions_that_read_encoded_images_decide_the_fingerprint_of_their_transform():
    assert {"transform/image_decoding.py", "serving/signatures/image.py"} <= sources_of("transform.image")


@pytest.mark.parametrize("task", TASKS)
def test_other_tasks_the_server_and_the_pipeline_have_no_part_in_a_fingerprint(task):
    others = {f"trainers/{other}/train.py" for other in TASKS if other != task}
    found = sources_of(f"trainers.{task}")
    assert not others & found
    assert {path.split("/")[0] for path in found} == {"serving", "trainers", "transform"}
    assert not any(path.startswith("serving/server") for path in found)


def test_an_import_within_a_function_counts():
    assert "trainers/tabular/train.py" in sources_of("trainers.tabular")  # see trainers/tabular/__init__.py


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(ModuleNotFoundError, match=r"transform\.tabluar is no module of this project"):
        imported_files("transform.tabluar")


def test_a_setting_changes_the_fingerprint():
    assert code_fingerprint("transform.text", "a") != code_fingerprint("transform.text", "b")
    assert code_fingerprint("transform.text", "a") == code_fingerprint("transform.text", "a")
