"""Find out what is read of what a person names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from components.image_example_gen.photo_extensions import PHOTO_EXTENSIONS
from components.table_file import FORMAT_OF_SUFFIX, GZIP_SUFFIX
from pipeline.scoring.find_files import find_files
from pipeline.scoring.published_model import PublishedModel
from pipeline.scoring.read_items import Source
from pipeline.scoring.read_rows import LINES_SUFFIX


def find_sources(model: PublishedModel, places: Sequence[str], renamed_inputs: Mapping[str, str]) -> list[Source]:
    """The sources of what a model takes, in the order of the places.

    Args:
        model: what is asked.
        places: see find_files.
        renamed_inputs: input of the model -> what the column is called in the files, where it differs.

    Raises:
        BrokenInput: a place holds no file.
    """
    tables = _with_gzip(".csv", *FORMAT_OF_SUFFIX)
    if model.takes == "photos":
        return [source for place in places for source in _photos(find_files(place, PHOTO_EXTENSIONS), tables)]
    suffixes = tables + (_with_gzip(LINES_SUFFIX) if model.takes == "texts" else ())
    columns = {name: renamed_inputs.get(name, name) for name in model.inputs}
    return [Source((file,), columns, "rows") for place in places for file in find_files(place, suffixes)]


def _photos(files: Sequence[str], tables: tuple[str, ...]) -> list[Source]:
    lists = [file for file in files if file.lower().endswith(tables)]
    photos = tuple(file for file in files if not file.lower().endswith(tables))
    found = [Source((file,), {}, "list of photos") for file in lists]
    return [*found, Source(photos, {}, "photos")] if photos else found


def _with_gzip(*suffixes: str) -> tuple[str, ...]:
    return tuple(suffix + zipped for suffix in suffixes for zipped in ("", GZIP_SUFFIX))
