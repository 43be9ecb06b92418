"""The local runner: a pipeline in this process, on Beam's in-memory runner or the job service that the config names."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

from tfx import v1 as tfx
from tfx.dsl.compiler import constants
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from pipeline.options import BeamOptions

# The numbers of malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KIB, _MIB = 1 << 10, 1 << 20


@contextlib.contextmanager
def heap_given_back() -> Iterator[None]:
    """Within it, glibc maps pieces of memory from 64 KiB on by themselves, and returns them when they are freed.

    By itself glibc raises that limit up to 32 MiB, the larger the pieces that are freed: then photos and batches that
    come and go leave a heap in pieces that nothing fits in, which grows with their number. Afterwards large pieces come
    from the heap, and it keeps what is freed: training takes the same ones step after step, and would spend a third of
    its time on having them mapped. Does nothing where the C library is another one.

    Source: mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, 64 * _KIB)
    mallopt(_TRIM_THRESHOLD, 128 * _KIB)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, 512 * _MIB)
        mallopt(_TRIM_THRESHOLD, 1024 * _MIB)


BEAM_PIPELINE_ARGS = BeamOptions().pipeline_args()

TRAINING = ("Tuner", "Trainer")

OnStart = Callable[[str], None]
OnEnd = Callable[[str, float], None]


class LocalRunner(tfx.orchestration.LocalDagRunner):
    """TFX's LocalDagRunner, a node at a time, saying which node runs.

    Args:
        run_id: what the run is called in ML Metadata.
        on_start: called with a node's id before it runs.
        on_end: called with a node's id and its seconds after it ran; not called for a node that failed.
    """

    def __init__(self, run_id: str, on_start: OnStart, on_end: OnEnd) -> None:
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
            # Not for rows and texts, whose memory hardly grows: it takes a fifth of Transform's time. Training takes
            # the same large pieces step after step.
            with heap_given_back() if photos and name not in TRAINING else contextlib.nullcontext():
                super().run_with_ir(single, run_options)
            self._on_end(name, time.monotonic() - started)
