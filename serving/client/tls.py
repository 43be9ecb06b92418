"""TLS of the clients: what they need to talk to an encrypted port."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
