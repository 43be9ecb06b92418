"""Options of the embedded server: request limits, the memory budget, certificates, and all else that can be set."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import grpc
import numpy as np

from serving.client.errors import CanonicalCode
from serving.loading import machine_memory
from serving.server.config import BatchingParameters, LoadPolicy, RequestLogOptions
from serving.server.errors import ServingError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RequestLimits:
    """How large a request may be; the defaults are what one message of TensorFlow Serving can carry.

    Attributes:
        body_bytes: of an HTTP body, as it is sent and once it is decompressed, and of a gRPC message.
        tensor_bytes: of one input; a short gRPC message can ask for much, by one value that fills a shape.
        rows: of one input, its first dimension; None is as many as fit.
    """

    body_bytes: int = 2**31 - 1
    tensor_bytes: int = 2**31 - 1
    rows: int | None = None

    def check(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Refuse inputs with too many rows or bytes.

        Raises:
            ServingError: RESOURCE_EXHAUSTED.
        """
        for name, array in inputs.items():
            if self.rows is not None and array.ndim and array.shape[0] > self.rows:
                raise _too_large(f"Input {name} has {array.shape[0]} rows; this server takes {self.rows} at a time.")
            if array.nbytes > self.tensor_bytes:
                raise _too_large(f"Input {name} has {array.nbytes} bytes; this server takes {self.tensor_bytes}.")


def _too_large(message: str) -> ServingError:
    return ServingError(CanonicalCode.RESOURCE_EXHAUSTED, message)


_LARGEST_DEFAULT = 3 * 2**29  # 64 MiB of rows as JSON take about that at their worst


@dataclass(frozen=True)
class MemoryLimits:
    """What requests may take of the memory: bodies, what they are unpacked and parsed to, tensors and answers.

    Attributes:
        all_bytes: of all requests that are being answered; by default half of the machine's.
        request_bytes: of one; by default an eighth of that, or 1.5 GiB where half of it allows as much.
    """

    all_bytes: int = field(default_factory=lambda: machine_memory() // 2)
    request_bytes: int | None = None

    @property
    def of_one(self) -> int:
        """What one request may take."""
        if self.request_bytes is not None:
            return min(self.request_bytes, self.all_bytes)
        return max(self.all_bytes // 8, min(self.all_bytes // 2, _LARGEST_DEFAULT))


# Requests as small as this find room while large ones have taken all that they may: seven eighths.
_SMALL_REQUEST = 2**20
_WAIT_SECONDS = 5.0


class MemoryBudget:
    """Memory that requests share; each takes what it needs before it needs it. In any thread."""

    def __init__(self, limits: MemoryLimits) -> None:
        self.limits = limits
        self._of_one = limits.of_one
        self._lock = threading.Lock()
        self._taken = 0
        self.arriving = 0  # bytes of gRPC messages that are not whole yet, as `ArrivingMessages` measures them

    @property
    def taken(self) -> int:
        """Bytes that requests have now."""
        return self._taken

    def lease(self) -> MemoryLease:
        """For one request; a context manager that gives everything back."""
        return MemoryLease(self)

    def try_take(self, held: int, more: int) -> bool:
        """Take some more for a request that holds some; False where others hold too much now.

        Raises:
            ServingError: RESOURCE_EXHAUSTED, no request may have so much.
        """
        if held + more > self._of_one:
            raise _too_large(
                f"The request needs {held + more} bytes of memory, its answer included; this server gives one request "
                f"{self._of_one}."
            )
        all_bytes = self.limits.all_bytes
        room = all_bytes if held + more <= _SMALL_REQUEST else all_bytes - all_bytes // 8
        with self._lock:
            if self._taken + self.arriving + more > room:
                return False
            self._taken += more
        return True

    def give_back(self, held: int) -> None:
        """What a request has taken."""
        with self._lock:
            self._taken -= held


class MemoryLease:
    """What one request holds of the budget, until it is answered and no thread works on it any more.

    Attributes:
        request_bytes: of its message.
        answer_bytes: of its answer, roughly.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self.request_bytes = 0
        self.answer_bytes = 0
        self._budget = budget
        self._held = 0
        self._users = 1

    def __enter__(self) -> MemoryLease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def left(self) -> int:
        """What the request may take besides."""
        return self._budget.limits.of_one - self._held

    def grow(self, more: int) -> None:
        """Take some more at once.

        Raises:
            ServingError: RESOURCE_EXHAUSTED, no request may have so much, or others hold it now.
        """
        if not self._budget.try_take(self._held, more):
            raise _too_large(
                f"The request needs {more} bytes of memory that other requests hold now; send it again later."
            )
        self._held += more

    async def take(self, more: int) -> None:
        """Take some more, and wait for it for a while.

        Raises:
            ServingError: RESOURCE_EXHAUSTED, as of `grow`.
        """
        ends = time.monotonic() + _WAIT_SECONDS
        pause = 0.005
        while not self._budget.try_take(self._held, more):
            if time.monotonic() + pause > ends:
                self.grow(more)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)
        self._held += more

    def shrink(self, held: int) -> None:
        """Hold no more than so much from now on."""
        if held < self._held:
            self._budget.give_back(self._held - held)
            self._held = held

    def retain(self) -> None:
        """One more has to release it: a thread that nobody may wait for any longer."""
        self._users += 1

    def release(self) -> None:
        """Give everything back, if nobody else has retained it."""
        self._users -= 1
        if not self._users:
            self.shrink(0)


@dataclass(eq=False)
class Arrival:
    """A gRPC message that is not whole yet.

    Attributes:
        peer: as gRPC names it: "ipv4:127.0.0.1:50000".
        since: of the event loop's clock.
        before: bytes that had come over the connection, without those of messages that were whole.
        give_up: ends the wait for it.
        given_up: whether that was done for want of memory.
    """

    peer: str
    since: float
    before: int
    give_up: Callable[[], None]
    given_up: bool = False


class ArrivingMessages:
    """Bounds the memory of gRPC messages that are still arriving to half of the budget.

    The library tells nobody how much of a message it has, but the system tells what has come over a connection
    (TCP_INFO, Linux 4.1): what is of no whole message is of those that are arriving. At the bound, those of the
    connections that hold most are given up; others notice nothing. Elsewhere than on Linux nothing is counted. For one
    event loop.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._bound = max(budget.limits.all_bytes // 2, budget.limits.of_one)
        self._received = _ReceivedBytes()
        self._whole: dict[str, int] = {}  # bytes of messages of a connection that have ended while others arrive
        self._arrivals: dict[Arrival, None] = {}
        self._open: Counter[str] = Counter()
        self._watching: asyncio.TimerHandle | None = None

    def start(self, peer: str, give_up: Callable[[], None]) -> Arrival:
        """A message of this connection is waited for."""
        loop = asyncio.get_running_loop()
        known = self._received.knows(peer)
        received = self._received.over(peer) or 0
        # All that has come over a new connection is of this message, even if the event loop gets here late.
        before = (received if known else 0) - self._whole.setdefault(peer, 0)
        arrival = Arrival(peer, loop.time(), before, give_up)
        self._arrivals[arrival] = None
        self._open[peer] += 1
        if self._watching is None:
            self._watching = loop.call_later(_WATCH_SECONDS, self._watch)
        return arrival

    def end(self, arrival: Arrival, length: int) -> None:
        """It has come, with so many bytes, or will not."""
        del self._arrivals[arrival]
        self._open[arrival.peer] -= 1
        self._whole[arrival.peer] += length
        if not self._open[arrival.peer]:
            del self._open[arrival.peer], self._whole[arrival.peer]

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._watching = loop.call_later(_WATCH_SECONDS, self._watch) if self._arrivals else None
        slow: dict[str, list[Arrival]] = {}
        for arrival in self._arrivals:  # the oldest first
            if loop.time() - arrival.since < _WATCH_SECONDS:
                break
            slow.setdefault(arrival.peer, []).append(arrival)
        held = {peer: self._held(arrivals[0]) for peer, arrivals in slow.items()}
        left, given_up = sum(held.values()), 0
        for peer in sorted(held, key=held.__getitem__, reverse=True):
            if left <= self._bound:
                break
            left -= held[peer]
            given_up += len(slow[peer])
            for arrival in slow[peer]:
                arrival.given_up = True
                arrival.give_up()
        if given_up:
            logger.warning(
                "gRPC messages that were still arriving held %d bytes, %d is the most they may: %d were given up",
                sum(held.values()),
                self._bound,
                given_up,
            )
        self._budget.arriving = left

    def _held(self, oldest: Arrival) -> int:
        received = self._received.over(oldest.peer)
        return max(0, received - self._whole[oldest.peer] - oldest.before) if received is not None else 0


_WATCH_SECONDS = 0.25


class _ReceivedBytes:
    """Bytes that have come over the connections of this process, by the address of the other end."""

    _AT = 128  # of tcpi_bytes_received, in linux/tcp.h

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}
        self._most_known = 4096

    def knows(self, peer: str) -> bool:
        """Whether this was asked before of this connection, or of one from the same address before it."""
        return peer in self._descriptors

    def over(self, peer: str) -> int | None:
        """In all, with what encryption and HTTP/2 add; None where the system does not tell."""
        if _TCP_INFO is None or not peer.startswith("ipv"):
            return None
        address = _address(peer)
        known = self._descriptors.get(peer)
        received = None if known is None else self._of(known, address)
        return self._search(peer, address) if received is None else received

    def _search(self, peer: str, address: tuple[str, int]) -> int | None:
        if len(self._descriptors) >= self._most_known:
            self._forget_closed()
        known = set(self._descriptors.values())
        # A descriptor that is known can be that of another connection by now.
        for descriptor in sorted((int(path.name) for path in Path("/proc/self/fd").iterdir()), key=known.__contains__):
            received = self._of(descriptor, address)
            if received is not None:
                self._descriptors[peer] = descriptor
                return received
        return None

    def _forget_closed(self) -> None:
        self._descriptors = {
            peer: descriptor
            for peer, descriptor in self._descriptors.items()
            if self._of(descriptor, _address(peer)) is not None
        }
        self._most_known = max(4096, 2 * len(self._descriptors))

    def _of(self, descriptor: int, address: tuple[str, int]) -> int | None:
        assert _TCP_INFO is not None
        try:
            connection = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, fileno=descriptor)
        except OSError:
            return None
        try:
            host, port = connection.getpeername()[:2]
            if (host.removeprefix("::ffff:"), port) != address:
                return None
            told = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, self._AT + 8)
        except (OSError, ValueError):
            return None
        finally:
            connection.detach()  # the descriptor is the library's
        return int.from_bytes(told[self._AT :], sys.byteorder) if len(told) == self._AT + 8 else None


_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None


def _address(peer: str) -> tuple[str, int]:
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    return host.strip("[]"), int(port) if port.isdecimal() else 0


class TlsError(ValueError):
    """A certificate or key cannot be used."""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files that make both ports encrypted.

    Attributes:
        certificate: the server's certificate, with the chain up to, but without, its root.
        key: its private key, without a passphrase.
        client_ca: the authorities of clients' certificates; a client without such a certificate is then refused.
    """

    certificate: str
    key: str
    client_ca: str = ""

    def ssl_context(self) -> ssl.SSLContext:
        """For the REST port.

        Raises:
            TlsError: a file is missing or is none of its kind.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.certificate, self.key, password="")
            if self.client_ca:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except OSError as error:  # ssl.SSLError is one
            raise TlsError(
                f"the TLS files {', '.join(filter(None, (self.certificate, self.key, self.client_ca)))} cannot be "
                f"used: {error.strerror or error}; expected PEM files, the key that of the certificate"
            ) from error
        return context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For the gRPC port, which says nothing of bad files: call `ssl_context` first."""
        pair = (Path(self.key).read_bytes(), Path(self.certificate).read_bytes())
        client_ca = Path(self.client_ca).read_bytes() if self.client_ca else None
        return grpc.ssl_server_credentials([pair], client_ca, require_client_auth=bool(client_ca))


@dataclass(frozen=True)
class ConnectionLimits:
    """How long a connection may keep the server waiting, and how many there may be.

    Attributes:
        header_seconds: from the first byte of a request's head to its last, and for the handshakes of HTTP/2 and TLS.
        body_seconds: in which a body or message has to arrive.
        idle_seconds: after which a connection on which nothing is asked is closed. Load balancers keep theirs for up to
            ten minutes, and must be the first to close them.
        most: on each of the two ports; None: as many as there are file descriptors, but for a reserve. At the end of
            them REST closes the connection that has been idle for longest, gRPC the one that comes.
    """

    header_seconds: float = 30.0
    body_seconds: float = 60.0
    idle_seconds: float = 620.0
    most: int | None = None

    def most_connections(self) -> int:
        """On each port, by the number of descriptors that are left now."""
        if self.most is not None:
            return self.most
        return max(16, (descriptor_limit() - open_descriptors() - RESERVED_DESCRIPTORS) // 2)


# For models that are loaded, logs, and base paths that are looked at, while clients take all they can get.
RESERVED_DESCRIPTORS = 128


def descriptor_limit() -> int:
    """How many files and connections this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else soft


def raise_descriptor_limit() -> None:
    """To what the system lets this process have without asking anybody."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_descriptors() -> int:
    """How many files and connections this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@dataclass(frozen=True)
class ReloadOptions:
    """Who may tell the server what to serve, by HandleReloadConfigRequest; nobody unless there are roots.

    Attributes:
        roots: directories and URLs; base paths and request logs of such a config have to lie below one of them.
        from_anywhere: whether a client on another machine needs no certificate for it.
    """

    roots: tuple[str, ...] = ()
    from_anywhere: bool = False


@dataclass(frozen=True)
class ServerOptions:
    """How the embedded server listens, loads and answers; the defaults are TensorFlow Serving's.

    Attributes:
        host: the address to listen on.
        rest_port: 0 picks a free one.
        grpc_port: likewise.
        load_policy: how base paths are polled and loads are retried.
        model_config_file: a text file of ModelServerConfig that lists the models, instead of base paths by name.
        model_config_file_poll_seconds: how often that file is looked at again; 0 is never.
        labels_may_wait: whether a config may give a label that is not in use to a version that is not available yet.
        batching: how requests are merged; None where each runs alone.
        metrics_path: where the REST port shows metrics to Prometheus; None where nothing is counted.
        rest_timeout_seconds: how long a model may take over a REST request; over gRPC the client's deadline counts.
        limits: how large a request may be.
        memory: what requests may take of it.
        cors: whether pages of other sites may send requests by a browser.
        tls: the certificates of both ports; None where they are not encrypted.
        grpc_health: whether grpc.health.v1.Health is there.
        grpc_reflection: whether a client may ask the gRPC port for its services.
        playground: whether the REST port shows the page on which people try the models.
        access_log: the file that gets one line of JSON per request; "-" is standard output, "" is none.
        request_log: where requests are logged, for all models together; not looked at where a config file says it.
        reload: who may tell it over gRPC what to serve.
        connections: how long they may keep the server waiting, and how many there may be.
    """

    host: str = "127.0.0.1"
    rest_port: int = 8501
    grpc_port: int = 8500
    load_policy: LoadPolicy = field(default_factory=LoadPolicy)
    model_config_file: str | None = None
    model_config_file_poll_seconds: float = 0.0
    labels_may_wait: bool = False
    batching: BatchingParameters | None = None
    metrics_path: str | None = None
    rest_timeout_seconds: float = 30.0
    limits: RequestLimits = field(default_factory=RequestLimits)
    memory: MemoryLimits = field(default_factory=MemoryLimits)
    cors: bool = False
    tls: TlsFiles | None = None
    grpc_health: bool = False
    grpc_reflection: bool = False
    playground: bool = False
    access_log: str = ""
    request_log: RequestLogOptions | None = None
    reload: ReloadOptions = field(default_factory=ReloadOptions)
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
