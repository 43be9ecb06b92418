"""Connections of the clients: TLS to an encrypted port, and when a request is sent again."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from serving.client.errors import CanonicalCode, PredictionError

if TYPE_CHECKING:
    import grpc


@dataclass(frozen=True)
class ClientTls:
    """PEM files of a client.

    Attributes:
        ca: the authorities that the server's certificate is trusted by; "" are those of the system.
        certificate: the client's own, where the server asks for one.
        key: the private key of that certificate.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""

    def ssl_context(self) -> ssl.SSLContext:
        """For REST.

        Raises:
            OSError: a file is missing or is none of its kind.
        """
        context = ssl.create_default_context(cafile=self.ca or None)
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key, password="")
        return context

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For gRPC.

        Raises:
            OSError: a file is missing.
        """
        import grpc

        ca, key, certificate = (
            Path(path).read_bytes() if path else None for path in (self.ca, self.key, self.certificate)
        )
        return grpc.ssl_channel_credentials(ca, key, certificate)


Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and after which pauses, a request is sent again that was answered with UNAVAILABLE, or not at all.

    Every other refusal is final: the same request would be refused again, or would take as long again.

    Attributes:
        attempts: how often a request is sent at most; 1 is never again.
        first_pause_seconds: before the second attempt; each pause is twice the one before.
        longest_pause_seconds: no pause is longer. Each is shortened by chance to not less than half, so that clients
            which were refused together do not come back together.
    """

    attempts: int = 4
    first_pause_seconds: float = 0.1
    longest_pause_seconds: float = 2.0

    def call(self, ask: Callable[[], Answer]) -> Answer:
        """What `ask` returns, at the latest by the last attempt.

        Raises:
            PredictionError: what the last attempt, or a refusal that is final, has raised.
        """
        for pause in self._pauses():
            try:
                return ask()
            except PredictionError as error:
                if error.code is not CanonicalCode.UNAVAILABLE:
                    raise
            time.sleep(pause)
        return ask()

    async def call_async(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """The same for a coroutine function."""
        for pause in self._pauses():
            try:
                return await ask()
            except PredictionError as error:
                if error.code is not CanonicalCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(pause)
        return await ask()

    def _pauses(self) -> Iterator[float]:
        for repetition in range(self.attempts - 1):
            pause = min(self.first_pause_seconds * 2**repetition, self.longest_pause_seconds)
            yield pause * random.uniform(0.5, 1.0)
