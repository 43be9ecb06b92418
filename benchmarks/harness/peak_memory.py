"""The memory of this process."""

from __future__ import annotations

from pathlib import Path


def peak_memory() -> float:
    """The most that this process ever had in memory, in MiB.

    Not by getrusage: its maximum counts what the process was before it became this program.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024
