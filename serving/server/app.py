"""The embedded server as a whole: two ports, several models."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TextIO

import grpc
import orjson
import uvloop
from aiohttp import web

from serving.client.errors import CanonicalCode
from serving.server.batching import BatchScheduler
from serving.server.config import ConfigFileError, ModelConfig
from serving.server.grpc import add_services
from serving.server.inference import Inference
from serving.server.metrics import CONTENT_TYPE, ServerMetrics
from serving.server.models import ModelManager, poll_model_config_file, read_model_config_file
from serving.server.options import (
    RESERVED_DESCRIPTORS,
    ConnectionLimits,
    MemoryBudget,
    ServerOptions,
    TlsFiles,
    descriptor_limit,
    open_descriptors,
    raise_descriptor_limit,
)
from serving.server.playground.routes import playground_routes
from serving.server.request_log import RequestLogger, RequestRecord
from serving.server.rest import RestService

logger = logging.getLogger(__name__)


class AccessLog:
    """Appends one JSON object per request to a file; what clients have sent appears in it only as escaped strings.

    Args:
        path: the file; "-" is standard output.

    Raises:
        ConfigFileError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            # Open as long as the server.
            self._file: TextIO = sys.stdout if path == "-" else open(path, "a", encoding="utf-8")  # noqa: PTH123, SIM115
        except OSError as error:
            raise ConfigFileError(f"the access log {path} cannot be opened: {error.strerror}") from error

    def __call__(self, record: RequestRecord) -> None:
        """Write the line of one request."""
        line = {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "entrypoint": record.entrypoint,
            "method": record.method,
            "model": record.model,
            "code": record.code.name,
            "milliseconds": round(record.seconds * 1000, 3),
            "peer": record.peer,
            "request_bytes": record.request_bytes,
            "response_bytes": record.response_bytes,
        }
        try:
            self._file.write(orjson.dumps(line).decode() + "\n")
            self._file.flush()
        except OSError as error:  # a full disk; requests are answered all the same
            logger.warning("a line of the access log %s is lost: %s", self._path, error.strerror)

    def close(self) -> None:
        """Close the file."""
        if self._path != "-":
            self._file.close()


_THREADS = 4 * (os.cpu_count() or 1)  # for each model; TensorFlow Serving has as many
SHUTDOWN_SECONDS = 30.0  # what requests in flight are given when the server stops
_GRPC_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    # Without it a second server could open the same port, and each would get a part of the requests.
    ("grpc.so_reuseport", 0),
]


LINGERING_SECONDS = 1.0  # what is still read of a refused body, so that its sender gets to see the answer
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_REPORT_SECONDS = 10.0  # nobody needs a line in the log for each of a thousand connections


class ConnectionGuard:
    """Opens the REST port, and closes connections that keep it waiting; for the event loop's own thread only.

    Args:
        limits: how long they may, and how many there may be.
        count: told of each connection that is closed: "slow head" or "too many".
    """

    def __init__(self, limits: ConnectionLimits, count: Callable[[str], None]) -> None:
        self.limits = limits
        self._count = count
        self._most = limits.most_connections()
        self._open: dict[_Connection, None] = {}  # the one that was used last is at the end
        self._reported: dict[str, float] = {}

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def listen(self, runner: web.AppRunner, host: str, port: int, tls: ssl.SSLContext | None) -> asyncio.Server:
        """Open the port for a runner that is set up.

        Raises:
            OSError: it cannot be opened.
        """
        loop = asyncio.get_running_loop()
        assert runner.server is not None
        server = runner.server
        seconds = self.limits.header_seconds
        return await loop.create_server(
            lambda: _Connection(self, server, loop),
            host,
            port,
            ssl=tls,
            backlog=1024,
            ssl_handshake_timeout=seconds if tls is not None else None,
        )

    def opened(self, connection: _Connection) -> None:
        """Note a connection; where there are too many, the one that has been idle for longest goes, or this one."""
        self._open[connection] = None
        if len(self._open) > self._most:
            idle = next((one for one in self._open if one.is_idle), connection)
            self.close(idle, "too many", f"the REST port has {self._most} connections, which is the most there may be")

    def used(self, connection: _Connection) -> None:
        """Note that something has come over a connection."""
        if connection in self._open:
            self._open[connection] = self._open.pop(connection)

    def closed(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._open.pop(connection, None)

    def close(self, connection: _Connection, reason: str, sentence: str) -> None:
        """Close a connection, count it, and now and then log a sentence."""
        self.closed(connection)
        connection.force_close()
        self._count(reason)
        now = time.monotonic()
        if now >= self._reported.get(reason, 0.0):
            self._reported[reason] = now + _REPORT_SECONDS
            logger.warning("%s: a connection was closed; more of this kind are counted and not logged", sentence)


class _Connection(web.RequestHandler):
    __slots__ = ("_guard", "_head_timer")

    def __init__(self, guard: ConnectionGuard, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=guard.limits.idle_seconds,
            access_log=None,  # type: ignore[arg-type]
            logger=_quiet_logger(),
            lingering_time=LINGERING_SECONDS,
            auto_decompress=False,  # aiohttp answers what it cannot decompress by itself, and not in JSON
        )
        self._guard = guard
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered, nor waits to be."""
        return not self._request_in_progress and not self._messages

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._guard.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        self._guard.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._guard.used(self)
        if not self.is_idle:
            self._stop_timer()
        elif self._head_timer is None and data:
            self._head_timer = self._loop.call_later(self._guard.limits.header_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.is_idle and self.transport is not None:
            self.transport.write(_TOO_SLOW)
            seconds = self._guard.limits.header_seconds
            self._guard.close(self, "slow head", f"the head of a request did not arrive within {seconds:g} s")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _quiet_logger() -> logging.Logger:
    """For aiohttp, which logs a traceback for every client that speaks no HTTP; what fails here, RestService logs."""
    quiet = logging.getLogger("serving.http")
    quiet.setLevel(logging.CRITICAL)
    return quiet


class PortUnavailableError(OSError):
    """A port cannot be opened."""


class EmbeddedServer:
    """Serves models over REST and gRPC as TensorFlow Serving does, from a thread of this process or as the process.

    As a context manager it returns when both ports are open, which is when every model is available or has failed to
    load:

        with EmbeddedServer({"heart": "models/heart"}, ServerOptions(rest_port=0, grpc_port=0)) as server:
            requests.get(f"http://{server.host}:{server.rest_port}/v1/models/heart")

    Args:
        models: the base path of each model, by the model's name; not looked at where the options name a config file.
        options: everything else. Where a port is 0, the attribute of the same name holds the one that was picked.

    Raises:
        ConfigFileError: the model config file cannot be used.
        PortUnavailableError, TlsError: by `run` and on entering the context.
        ServingError: likewise; the config gives a label to a version that is not available yet, which the options do
            not allow.
    """

    def __init__(self, models: Mapping[str, str], options: ServerOptions | None = None) -> None:
        self._options = options or ServerOptions()
        if self._options.model_config_file is not None:
            self._configs = read_model_config_file(self._options.model_config_file)
        else:
            log = self._options.request_log
            self._configs = [ModelConfig(name, base_path, request_log=log) for name, base_path in models.items()]
        self.host = self._options.host
        self.rest_port = self._options.rest_port
        self.grpc_port = self._options.grpc_port
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def model_names(self) -> list[str]:
        """What is served from the start."""
        return [config.name for config in self._configs or ()]

    def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until SIGTERM or SIGINT, then let the requests in flight finish. Only in the main thread."""
        raise_descriptor_limit()
        uvloop.run(self._serve(on_ready, (signal.SIGTERM, signal.SIGINT)))

    def __enter__(self) -> EmbeddedServer:
        ready: Future[None] = Future()

        def serve() -> None:
            try:
                uvloop.run(self._serve(lambda: ready.set_result(None), ()))
            except BaseException as error:
                if ready.done():
                    raise
                ready.set_exception(error)

        self._thread = threading.Thread(target=serve, name="embedded-server", daemon=True)
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._request_stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._request_stop()
        assert self._thread is not None
        self._thread.join()

    def _request_stop(self) -> None:
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _serve(self, on_ready: Callable[[], None], stop_signals: tuple[signal.Signals, ...]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        for stop_signal in stop_signals:
            self._loop.add_signal_handler(stop_signal, self._stop.set)
        manager = ModelManager(self._options.load_policy, self._options.labels_may_wait)
        batching = BatchScheduler(self._options.batching) if self._options.batching is not None else None
        with ThreadPoolExecutor(2, thread_name_prefix="conversion") as converters:
            metrics = ServerMetrics(manager.models, batching) if self._options.metrics_path else None
            inference = Inference(_THREADS, converters, batching, metrics)
            try:
                if await self._settled_before_stop(manager):
                    await self._listen(manager, inference, metrics, on_ready)
            finally:
                await manager.close()
                inference.close()
                if batching is not None:
                    batching.close()

    async def _settled_before_stop(self, manager: ModelManager) -> bool:
        assert self._stop is not None
        settled = asyncio.create_task(_settle(manager, self._configs))
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait((settled, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not settled.done():
            settled.cancel()
            return False
        settled.result()
        return True

    async def _listen(
        self,
        manager: ModelManager,
        inference: Inference,
        metrics: ServerMetrics | None,
        on_ready: Callable[[], None],
    ) -> None:
        assert self._stop is not None
        options = self._options
        access_log = AccessLog(options.access_log) if options.access_log else None
        observers: list[Callable[[RequestRecord], None]] = []
        if metrics is not None:
            observers.append(metrics.observe_request)
        if access_log is not None:
            observers.append(access_log)
        count = metrics.observe_request_log if metrics is not None else _count_nothing
        request_logger = RequestLogger(manager.models, count)
        guard = ConnectionGuard(options.connections, metrics.observe_closed if metrics is not None else _count_no_one)
        budget = MemoryBudget(options.memory)
        if metrics is not None:
            metrics.connections, metrics.memory = lambda: guard.connections, lambda: budget.taken
        grpc_server = grpc.aio.server(options=[*_GRPC_OPTIONS, *_grpc_limits(options)])
        await add_services(grpc_server, manager, inference, request_logger, options, budget, observers)
        routes = playground_routes(manager) if options.playground else []
        application = RestService(manager, inference, request_logger, options, budget, observers).application(routes)
        if metrics is not None and options.metrics_path:
            application.router.add_get(options.metrics_path, _metrics_handler(metrics))
        runner = web.AppRunner(application, access_log=None, logger=_quiet_logger(), shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        polling = self._poll_model_config_file(manager)
        watching = asyncio.create_task(_watch_descriptors())
        listener = None
        try:
            listener = await _open_rest_port(guard, runner, self.host, self.rest_port, options.tls)
            self.rest_port = listener.sockets[0].getsockname()[1]
            self.grpc_port = _open_grpc_port(grpc_server, self.host, self.grpc_port, options.tls)
            await grpc_server.start()
            on_ready()
            await self._stop.wait()
        finally:
            watching.cancel()
            if polling is not None:
                polling.cancel()
            if listener is not None:
                listener.close()
            await asyncio.gather(grpc_server.stop(SHUTDOWN_SECONDS), runner.cleanup())
            if access_log is not None:
                access_log.close()
            await asyncio.to_thread(request_logger.close, SHUTDOWN_SECONDS)

    def _poll_model_config_file(self, manager: ModelManager) -> asyncio.Task[None] | None:
        file, seconds = self._options.model_config_file, self._options.model_config_file_poll_seconds
        if file is None or not seconds:
            return None
        return asyncio.create_task(poll_model_config_file(file, seconds, manager))


async def _settle(manager: ModelManager, configs: Sequence[ModelConfig] | None) -> None:
    """Wait until every version that is to be served is available or has failed."""
    if configs is None:
        return
    for model in manager.configure(configs):
        await model.wait_until_settled()


def _grpc_limits(options: ServerOptions) -> list[tuple[str, int]]:
    limits = options.connections
    return [
        ("grpc.max_receive_message_length", min(options.limits.body_bytes, options.memory.of_one)),
        ("grpc.server_handshake_timeout_ms", int(limits.header_seconds * 1000)),
        ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
        ("grpc.max_allowed_incoming_connections", limits.most_connections()),
    ]


def _count_no_one(reason: str) -> None:
    """Where there are no metrics."""


def _count_nothing(model: str, code: CanonicalCode) -> None:
    """Where there are no metrics."""


def _metrics_handler(metrics: ServerMetrics) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def show(request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    return show


async def _open_rest_port(
    guard: ConnectionGuard, runner: web.AppRunner, host: str, port: int, tls: TlsFiles | None
) -> asyncio.Server:
    context = tls.ssl_context() if tls is not None else None
    try:
        return await guard.listen(runner, host, port, context)
    except OSError as error:
        raise PortUnavailableError(f"REST port {port} of {host} cannot be opened: {error.strerror or error}") from error


_DESCRIPTORS_SECONDS = 2.0


async def _watch_descriptors() -> None:
    """Say when files and connections take so many descriptors that the reserve is touched."""
    told = False
    while True:
        used, limit = open_descriptors(), descriptor_limit()
        scarce = used > limit - RESERVED_DESCRIPTORS // 2
        if scarce and not told:
            logger.warning(
                "%d of %d file descriptors are in use; raise the limit (ulimit -n), or new connections and models are "
                "refused",
                used,
                limit,
            )
        told = scarce
        await asyncio.sleep(_DESCRIPTORS_SECONDS)


def _open_grpc_port(server: grpc.aio.Server, host: str, port: int, tls: TlsFiles | None) -> int:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if tls is None:
            opened: int = server.add_insecure_port(address)
        else:
            opened = server.add_secure_port(address, tls.grpc_credentials())
    except RuntimeError as error:
        raise PortUnavailableError(f"gRPC port {port} of {host} cannot be opened: is it in use?") from error
    return opened
