"""Fingerprints of code and of files."""

from __future__ import annotations

from pathlib import Path

from pipeline.fingerprints import content_fingerprint


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
