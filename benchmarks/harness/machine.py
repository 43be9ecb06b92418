"""The machine that figures were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("tfx", "tensorflow", "keras", "apache-beam", "numpy", "scikit-learn")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Machine:
    """What decides how fast it is.

    Attributes:
        processor: its name, and which instructions for numbers it has.
        cores: how many of them may be used.
        memory: in GiB.
        system: the operating system.
        versions: of Python and of the libraries that do the work.
    """

    processor: str
    cores: int
    memory: float
    system: str
    versions: dict[str, str]


def this_machine() -> Machine:
    """The machine that this runs on (Linux)."""
    facts = _facts(Path("/proc/cpuinfo"))
    flags = facts.get("flags", "").split()
    known = " ".join(name for name in _INSTRUCTIONS if name in flags)
    kibibytes = int(_facts(Path("/proc/meminfo"))["MemTotal"].split()[0])
    return Machine(
        processor=f"{facts.get('model name', platform.machine())} ({known or 'no vector instructions known'})",
        cores=len(os.sched_getaffinity(0)),
        memory=round(kibibytes / 2**20, 1),
        system=f"{platform.system()} {platform.release()}",
        versions={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    )


def _facts(file: Path) -> dict[str, str]:
    """The `name: value` lines of a file below /proc, of several with one name the last."""
    lines = (line.partition(":") for line in file.read_text(encoding="utf-8").splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}
