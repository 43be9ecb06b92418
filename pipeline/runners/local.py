"""The local runner: a pipeline in this process, on Beam's in-memory runner or the job service that the config names."""

from __future__ import annotations

import concurrent.futures
import ctypes
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

from tfx.dsl.compiler import constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from components.serving_check.model_process import interrupt_running
from pipeline.runners.beam_engine import BeamOptions

BEAM_PIPELINE_ARGS = BeamOptions().pipeline_args()

_TRAINING = ("Tuner", "Trainer")
# Waits for another process most of its time: it runs beside the step before it, if its inputs are there.
_BESIDE = "ServingCheck"


class LocalRunner(LocalDagRunner):
    """TFX's LocalDagRunner, saying which node runs: one at a time, and the serving check beside the one before it.

    Photos keep all processors busy in the serving check as in the Evaluator: they wait for each other.

    Args:
        run_id: what the run is called in ML Metadata.
        on_start: called with a node's id before it runs, or where its turn has come.
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
        nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in pipeline.nodes}
        following = dict(itertools.pairwise(nodes))
        photos = "ImageExampleGen" in nodes
        ended: set[str] = set()
        beside: list[concurrent.futures.Future[float]] = []

        def begin_check() -> None:
            beside.append(_in_a_thread(lambda: _launch(nodes[_BESIDE], pipeline)))

        try:
            for name, node in nodes.items():
                self._on_start(name)
                # Rows and texts do without: their memory hardly grows, and a fifth of Transform's time would go to it.
                if photos and name not in _TRAINING:
                    return_freed_memory()
                if beside and name == _BESIDE:
                    seconds = beside[0].result()
                elif not photos and following.get(name) == _BESIDE and ended.issuperset(nodes[_BESIDE].upstream_nodes):
                    seconds = _launch(node, pipeline, begin_check)
                else:
                    seconds = _launch(node, pipeline)
                if photos:
                    keep_freed_memory()
                with _METADATA:
                    self._on_end(name, seconds)
                ended.add(name)
        except BaseException:
            if not all(check.done() for check in beside):
                interrupt_running()
                concurrent.futures.wait(beside)
            raise


# SQLite takes one writer at a time, and who waits for another one in the midst of a transaction may be refused.
_METADATA = threading.RLock()


class _LockedMetadata(metadata.Metadata):
    """A connection to ML Metadata that one thread has at a time.

    Args:
        connection: its configuration.
        recorded: called once, when the connection was used and is left for the first time.
    """

    def __init__(self, connection: Any, recorded: Callable[[], None]) -> None:
        super().__init__(connection)
        self._recorded: Callable[[], None] | None = recorded

    def __enter__(self) -> metadata.Metadata:
        _METADATA.acquire()
        try:
            return super().__enter__()
        except BaseException:
            _METADATA.release()
            raise

    def __exit__(self, *error: Any) -> None:
        try:
            super().__exit__(*error)
        finally:
            _METADATA.release()
        recorded, self._recorded = self._recorded, None
        if recorded:
            recorded()


def _launch(
    node: pipeline_pb2.PipelineNode, pipeline: pipeline_pb2.Pipeline, recorded: Callable[[], None] = lambda: None
) -> float:
    """Run a node as LocalDagRunner does; its seconds.

    Args:
        node: to be run.
        pipeline: that it is of.
        recorded: called when ML Metadata knows that the node runs: what begins then comes behind it there.
    """
    started = time.monotonic()
    deployment, name = runner_utils.extract_local_deployment_config(pipeline), node.node_info.id
    connection = deployment.metadata_connection_config
    launcher.Launcher(
        pipeline_node=node,
        mlmd_connection=_LockedMetadata(getattr(connection, connection.WhichOneof("connection_config")), recorded),
        pipeline_info=pipeline.pipeline_info,
        pipeline_runtime_spec=pipeline.runtime_spec,
        executor_spec=runner_utils.extract_executor_spec(deployment, name),
        custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
    ).launch()
    return time.monotonic() - started


def _in_a_thread(work: Callable[[], float]) -> concurrent.futures.Future[float]:
    """What the work answers or raises, in a thread that no interpreter waits for when it ends."""
    future: concurrent.futures.Future[float] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised where its turn has come
            future.set_exception(error)

    threading.Thread(target=run, name=_BESIDE, daemon=True).start()
    return future


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
