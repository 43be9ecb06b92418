"""The certificates of a server, for both ports."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc


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
