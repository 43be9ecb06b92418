"""The C runtime that TFX's wheels need, and the one that is here. Standard library only: set-up runs it first."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

PYTHON_VERSION = (3, 11)
GLIBC_VERSION = (2, 39)
LIBSTDCXX_SYMBOL = b"GLIBCXX_3.4.33"  # the newest symbol version of GCC 14's libstdc++
PRIVATE_RUNTIME = Path(sys.prefix) / "runtime"  # where set-up unpacks one


def glibc_version() -> tuple[int, int] | None:
    """The C library of the running interpreter as (major, minor); None where it is not glibc."""
    name, version = platform.libc_ver()
    if name != "glibc":
        return None
    try:
        # libc_ver() reads the executable's needed symbols; the loaded library knows better.
        gnu_get_libc_version = ctypes.CDLL(None).gnu_get_libc_version
        gnu_get_libc_version.restype = ctypes.c_char_p
        version = gnu_get_libc_version().decode()
    except (OSError, AttributeError):
        pass
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def libstdcxx_is_new_enough() -> bool:
    """Whether the libstdc++ that this interpreter loads has the symbols of GCC 14."""
    try:
        ctypes.CDLL("libstdc++.so.6")
    except OSError:
        return False
    mappings = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    # Five fields, then the path, which may hold spaces.
    loaded = {mapping.split(maxsplit=5)[5] for mapping in mappings if "libstdc++.so.6" in mapping}
    return any(LIBSTDCXX_SYMBOL in Path(path).read_bytes() for path in loaded)


def needs_private_runtime(glibc: tuple[int, int] | None, libstdcxx_new_enough: bool) -> bool:
    """Whether a C runtime is too old for TFX's wheels.

    Args:
        glibc: its version, as `glibc_version` says it; None where the C library is another one, which no glibc mends.
        libstdcxx_new_enough: what `libstdcxx_is_new_enough` says.
    """
    return glibc is not None and (glibc < GLIBC_VERSION or not libstdcxx_new_enough)
