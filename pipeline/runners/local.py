"""The local runner: a pipeline in this process, on Beam's in-memory runner or the job service that the config names."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

from tfx.dsl.compiler import constants
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from pipeline.options import BeamOptions

BEAM_PIPELINE_ARGS = BeamOptions().pipeline_args()

_TRAINING = ("Tuner", "Trainer")


class LocalRunner(LocalDagRunner):
    """TFX's LocalDagRunner, a node at a time, saying which node runs.

    Args:
        run_id: what the run is called in ML Metadata.
        on_start: called with a node's id before it runs.
        on_end: called with a node's id and its seconds after it ran; not called for a node that failed.
    """

    def __init__(self, run_id: str, on_start: Callable[[str], None], on_end: Callable[[str, float], None]) -> None:
        super().__init__()
        self._run_id = run_id
        self._on_start = on_start
        self._on_end = on_end

    def run_with_ir(self, pipeline: pipeline_pb2.Pipeline, run_options: Any = None) -> None:
        run_id = {constants.PIPELINE_RUN_ID_PARAMETER_NAME: self._run_id}
        runtime_parameter_utils.substitute_runtime_parameter(pipeline, run_id)
        photos = any(node.pipeline_node.node_info.id == "ImageExampleGen" for node in pipeline.nodes)
        for node in pipeline.nodes:
            single = pipeline_pb2.Pipeline()
            single.CopyFrom(pipeline)
            del single.nodes[:]
            single.nodes.append(node)
            name = node.pipeline_node.node_info.id
            self._on_start(name)
            started = time.monotonic()
            # Rows and texts do without: their memory hardly grows, and a fifth of Transform's time would go to it.
            if photos and name not in _TRAINING:
                return_freed_memory()
            super().run_with_ir(single, run_options)
            if photos:
                keep_freed_memory()
            self._on_end(name, time.monotonic() - started)


# The parameters of mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KIB, _MIB = 1 << 10, 1 << 20


def return_freed_memory() -> None:
    """Allocation by mmap from 64 KiB on, for the rest of the process: what is freed goes back to the system.

    By itself glibc raises that threshold to the size of the blocks that are freed, up to 32 MiB: then photos and
    batches that come and go leave a fragmented heap, which grows with their number.
    """
    _set_malloc_thresholds(mmap=64 * _KIB, trim=128 * _KIB)


def keep_freed_memory() -> None:
    """Allocation from the heap up to 512 MiB, for the rest of the process: what is freed stays for the next block.

    Training allocates the same large blocks step after step, and would spend a third of its time on having them mapped.
    Not glibc's own state, which has no fixed thresholds and cannot be had back once they are set.
    """
    _set_malloc_thresholds(mmap=512 * _MIB, trim=1024 * _MIB)


def _set_malloc_thresholds(mmap: int, trim: int) -> None:
    """Set glibc's thresholds, in bytes; another C library is left alone. Source: mallopt(3)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, mmap)
        mallopt(_M_TRIM_THRESHOLD, trim)
