"""How a request says that a value is missing: one form per dtype, which plain JSON can carry."""

from __future__ import annotations

# JSON has no NaN, and TensorFlow Serving refuses null and omitted keys. The integer is one that every language's JSON
# writer prints exactly; the float lies far outside of measured data and inside of float32.
MISSING_STRING = ""
MISSING_INTEGER = -(2**31)
MISSING_FLOAT = -1e38


def missing_value(dtype: str) -> str | int | float:
    """The value that stands for a missing one: "" for strings, -2147483648 for integers, -1e38 for floats.

    Args:
        dtype: as TensorFlow names it, "string", "int64" or "float32"; "float" and "double" as its messages do.

    Raises:
        TypeError: the dtype is none of string, integer and floating.
    """
    if dtype == "string":
        return MISSING_STRING
    if dtype.startswith(("int", "uint")):
        return MISSING_INTEGER
    if dtype.startswith("float") or dtype == "double":
        return MISSING_FLOAT
    raise TypeError(f"a column's dtype is string, an integer or a float, not {dtype}")
