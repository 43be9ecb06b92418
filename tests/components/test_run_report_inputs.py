"""Raw inputs as a report shows them, and shifts of columns that chance does not explain."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from PIL import Image

from components.run_report.drift import column_shifts, shift_sentence
from components.run_report.evaluation import shown_input


def example(**features) -> bytes:
    result = tf.train.Example()
    for name, value in features.items():
        values = result.features.feature[name]
        if isinstance(value, bytes):
            values.bytes_list.value.append(value)
        elif isinstance(value, int):
            values.int64_list.value.append(value)
        elif isinstance(value, float):
            values.float_list.value.append(value)
    return result.SerializeToString()


def photo(width: int, height: int, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, form)
    return buffer.getvalue()


def test_a_row_is_shown_column_by_column_without_its_label():
    shown = shown_input(example(age=63, thal=b"fixed", oldpeak=2.3, cp=None, target=1), ["target"])
    assert shown.fields == (("age", "63"), ("cp", "(missing)"), ("oldpeak", "2.3"), ("thal", "fixed"))
    assert shown.picture == ""


def test_a_long_text_is_cut():
    ((_, text),) = shown_input(example(text=("word " * 1000).encode()), []).fields
    assert len(text) < 650 and text.endswith("…")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_photo_is_shown_small(form):
    shown = shown_input(example(image=photo(900, 300, form), path=b"a/1"), [])
    kind, _, data = shown.picture.partition(",")
    assert kind == "data:image/jpeg;base64"
    small = Image.open(io.BytesIO(base64.b64decode(data)))
    assert max(small.size) == 160 and small.size[0] > 2 * small.size[1]
    red, green, _ = small.getpixel((80, 20))
    assert red > 150 > 90 > green
    assert shown.fields == (("path", "a/1"),)


def test_a_photo_that_cannot_be_opened_is_left_out():
    assert shown_input(example(image=photo(50, 50, "PNG")[:60]), []).picture == ""


@pytest.fixture(scope="module")
def shifts():
    """Two halves of one source, but for two columns that move."""
    source = np.random.default_rng(0)
    before, after = (
        tfdv.generate_statistics_from_dataframe(
            pd.DataFrame(
                {
                    "same_number": source.normal(size=rows),
                    "same_text": source.choice(["a", "b", "c"], rows),
                    "moved_number": source.normal(moved, size=rows),
                    "moved_text": source.choice(["a", "b"], rows, p=[0.5 + moved / 5, 0.5 - moved / 5]),
                    "free_text": [f"{moved} {row}" for row in range(rows)],
                }
            )
        )
        for rows, moved in ((2000, 0.0), (400, 1.0))
    )
    return column_shifts(before.datasets[0], after.datasets[0], tfdv.infer_schema(before))


def test_only_the_columns_that_moved_are_called_shifted(shifts):
    assert {shift.column for shift in shifts if shift.shifted} == {"moved_number", "moved_text"}
    assert {shift.column for shift in shifts} == {"moved_number", "moved_text", "same_number", "same_text"}
    assert all(0 < shift.distance < 1 for shift in shifts)


def test_the_shift_is_said_in_words(shifts):
    said = shift_sentence(shifts, "the eval split", "the train split")
    assert said.startswith("2 of 4 columns of the eval split differ from the train split by more than chance: moved_")
    same = [shift for shift in shifts if not shift.shifted]
    assert shift_sentence(same, "A", "B") == "No column of A differs from B by more than chance explains."
