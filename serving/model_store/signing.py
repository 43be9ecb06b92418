"""Signatures of published versions: whose key these very files were published with.

`assets.extra/SHA256SUMS` holds the SHA-256 of every other file of a version, and `assets.extra/SHA256SUMS.sig` the
signature of that file in base64: by ECDSA on P-256 over its SHA-256, as `cosign sign-blob` makes it, or by Ed25519. So
a version can be checked without ingraph, by `cosign verify-blob` or `openssl`, and `sha256sum --check`. Its number is
in provenance.json, which is among the files.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from serving.model_store.base import PROVENANCE_FILE, ModelStoreError, decode_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

MANIFEST_FILE = "assets.extra/SHA256SUMS"
SIGNATURE_FILE = "assets.extra/SHA256SUMS.sig"

# Where a step finds the private key, whose path nothing records.
KEY_VARIABLE = "INGRAPH_SIGNING_KEY"
PASSPHRASE_VARIABLE = "INGRAPH_SIGNING_KEY_PASSWORD"

_LINE = re.compile(r"([0-9a-f]{64})  ([^\n\\]+)")
_LARGEST_MANIFEST = 2**24  # bytes
_LARGEST_SIGNATURE = 2**12
_CHUNK_BYTES = 2**20


class SignatureError(ModelStoreError):
    """A version is not as the holder of an expected key has published it."""


@dataclass(frozen=True)
class SigningKey:
    """A private key; `fingerprint` is that of its public one."""

    fingerprint: str
    _key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

    def sign(self, content: bytes) -> bytes:
        """The signature of a file's content, in base64 with a line break."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            signature = self._key.sign(content, ec.ECDSA(hashes.SHA256()))
        else:
            signature = self._key.sign(content)
        return base64.b64encode(signature) + b"\n"

    def __repr__(self) -> str:
        return f"SigningKey({self.fingerprint!r})"


@dataclass(frozen=True)
class PublicKey:
    """What signatures are verified with; `fingerprint` is the SHA-256 of its DER form, in hex."""

    fingerprint: str
    _key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

    def has_signed(self, content: bytes, signature: bytes) -> bool:
        """Whether this is the signature of the content by the private key of this one."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        try:
            raw = base64.b64decode(signature.strip(), validate=True)
            if isinstance(self._key, ec.EllipticCurvePublicKey):
                self._key.verify(raw, content, ec.ECDSA(hashes.SHA256()))
            else:
                self._key.verify(raw, content)
        except (InvalidSignature, binascii.Error):
            return False
        return True


def signing_key_of_environment() -> SigningKey | None:
    """The private key in the file that INGRAPH_SIGNING_KEY names; None where it names none.

    Raises:
        ModelStoreError: as read_signing_key.
    """
    path = os.environ.get(KEY_VARIABLE)
    return read_signing_key(Path(path)) if path else None


def read_signing_key(path: Path) -> SigningKey:
    """A private key in PEM, its passphrase in INGRAPH_SIGNING_KEY_PASSWORD where it has one.

    Raises:
        ModelStoreError: the file cannot be read, the passphrase is missing or wrong, or it is no key that can sign
            here. The message names no path: it may get into logs.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    passphrase = os.environ.get(PASSPHRASE_VARIABLE)
    advice = "`ingraph models keygen FILE` makes one"
    try:
        content = _read_key_file(path)
        key = serialization.load_pem_private_key(content, passphrase.encode() if passphrase else None)
    except OSError as error:
        raise ModelStoreError(f"the signing key cannot be read: {error.strerror}; {advice}.") from None
    except TypeError:
        trouble = "has no passphrase" if passphrase else "has a passphrase"
        what = "unset" if passphrase else "set"
        raise ModelStoreError(f"the signing key {trouble}: {what} {PASSPHRASE_VARIABLE}.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ModelStoreError(
            f"the signing key is no private key in PEM (PKCS #8), or {PASSPHRASE_VARIABLE} is not its passphrase: "
            f"{advice}."
        ) from None
    if isinstance(key, ed25519.Ed25519PrivateKey) or _is_p256(key):
        assert isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)
        return SigningKey(_fingerprint(key.public_key()), key)
    raise ModelStoreError(f"the signing key is of another kind: expected ECDSA on P-256, or Ed25519; {advice}.")


def read_public_key(path: Path) -> PublicKey:
    """A public key in PEM, as `ingraph models keygen`, `cosign generate-key-pair` and openssl write it.

    Raises:
        ModelStoreError: the file cannot be read, or is no key that can sign here.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    try:
        key = serialization.load_pem_public_key(_read_key_file(path))
    except OSError as error:
        raise ModelStoreError(f"{path}: the public key cannot be read: {error.strerror}.") from error
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, ed25519.Ed25519PublicKey) or _is_p256(key):
        assert isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey)
        return PublicKey(_fingerprint(key), key)
    raise ModelStoreError(
        f"{path}: expected a public key in PEM, ECDSA on P-256 or Ed25519; `ingraph models keygen` writes one as "
        "FILE.pub, and `openssl pkey -in FILE -pubout` prints that of a private key."
    )


def make_key(path: Path) -> PublicKey:
    """Write a new private key (ECDSA on P-256, readable by its owner alone) and, as PATH.pub, its public one.

    It is encrypted where INGRAPH_SIGNING_KEY_PASSWORD holds a passphrase.

    Raises:
        ModelStoreError: one of the files is there, or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    passphrase = os.environ.get(PASSPHRASE_VARIABLE)
    encryption = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        for file, content, mode in ((path, private, 0o600), (path.with_name(f"{path.name}.pub"), public, 0o644)):
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as target:
                target.write(content)
    except OSError as error:
        raise ModelStoreError(
            f"{error.filename}: the key cannot be written: {error.strerror}; name a file that is not there yet."
        ) from error
    return PublicKey(_fingerprint(key.public_key()), key.public_key())


def _read_key_file(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise OSError(0, "no regular file", str(path))
    return path.read_bytes()


def _is_p256(key: object) -> bool:
    from cryptography.hazmat.primitives.asymmetric import ec

    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1)
    return False


def _fingerprint(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives import serialization

    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def manifest_of(checksums: Mapping[str, str]) -> bytes:
    """What is signed: a line for each file, sorted, as `sha256sum` writes and checks it.

    Args:
        checksums: path within the version -> SHA-256 in hex.

    Raises:
        ModelStoreError: a path has a character that would make two lines of one, or read differently elsewhere.
    """
    lines = [f"{checksum}  {name}" for name, checksum in sorted(checksums.items())]
    for line in lines:
        if not _LINE.fullmatch(line) or len(line.splitlines()) != 1:
            raise ModelStoreError(
                f"the file name {line.partition('  ')[2]!r} cannot be signed: it has a line break or a backslash; "
                "expected the names of a SavedModel."
            )
    return "".join(f"{line}\n" for line in lines).encode()


def check_signature(
    path: str,
    number: int,
    files: Mapping[str, Callable[[], BinaryIO]],
    keys: Sequence[PublicKey],
    copy_to: Path | None = None,
) -> PublicKey:
    """The key that has signed a version, all of whose files are as they were signed.

    Each file is read once. Whoever is going to use them takes the copy: in the version's own folder they may change
    between this look and the next.

    Args:
        path: of the version, for messages.
        number: what the version is found as.
        files: what opens each of its files, by its path relative to the version.
        keys: any of which may have signed it.
        copy_to: an empty folder, which gets what was verified; it is of no use where this raises.

    Raises:
        SignatureError: it has no signature, none of these keys has signed it, a file is missing, changed or was added,
            or it was published under another number.
    """
    manifest = _small_file(path, files, MANIFEST_FILE, _LARGEST_MANIFEST)
    signature = _small_file(path, files, SIGNATURE_FILE, _LARGEST_SIGNATURE)
    key = next((key for key in keys if key.has_signed(manifest, signature)), None)
    if key is None:
        expected = " or ".join(key.fingerprint[:16] for key in keys)
        raise SignatureError(
            f"{path} is not signed by the key {expected}: its {SIGNATURE_FILE} is by another one, or {MANIFEST_FILE} "
            "was changed; publish the model again with the right key."
        )
    signed = _parsed(path, manifest)
    found = files.keys() - {MANIFEST_FILE, SIGNATURE_FILE}
    for what, names in (("missing", signed.keys() - found), ("not among the signed ones", found - signed.keys())):
        if names:
            raise _changed(path, what, names)
    provenance = io.BytesIO()
    for name, checksum in signed.items():
        with _targets(name, provenance, copy_to) as targets, files[name]() as source:
            if _copied(source, targets) != checksum:
                raise _changed(path, "not as they were signed", {name})
    published_as = decode_json(provenance.getvalue()).get("version")
    if published_as != number:
        raise SignatureError(
            f"{path} was published as version {published_as}, and is found as version {number}: somebody has renamed "
            "it; publish the model again."
        )
    return key


def _small_file(path: str, files: Mapping[str, Callable[[], BinaryIO]], name: str, most: int) -> bytes:
    if name not in files:
        raise SignatureError(
            f"{path} is not signed, it has no {name}: publish the model with push.signing_key in its config."
        )
    with files[name]() as source:
        content = source.read(most + 1)
    if len(content) > most:
        raise SignatureError(f"{path}/{name} has more than {most} bytes, expected a file that ingraph has written.")
    return content


def _parsed(path: str, manifest: bytes) -> dict[str, str]:
    lines = manifest.decode(errors="replace").removesuffix("\n").split("\n")
    matches = [_LINE.fullmatch(line) for line in lines]
    signed = {match[2]: match[1] for match in matches if match is not None}
    safe = all(not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts for name in signed)
    if len(signed) != len(lines) or not safe:
        raise SignatureError(f"{path}/{MANIFEST_FILE} is none of a version: expected a line for each of its files.")
    return signed


@contextmanager
def _targets(name: str, provenance: BinaryIO, copy_to: Path | None) -> Iterator[list[BinaryIO]]:
    """What gets the content of a file on the way: its copy, if one is wanted, and the provenance."""
    with ExitStack() as opened:
        targets = [provenance] if name == PROVENANCE_FILE else []
        if copy_to is not None:
            (copy_to / name).parent.mkdir(parents=True, exist_ok=True)
            targets.append(opened.enter_context((copy_to / name).open("xb")))
        yield targets


def _copied(source: BinaryIO, targets: Iterable[BinaryIO]) -> str:
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        for target in targets:
            target.write(chunk)
    return digest.hexdigest()


def _changed(path: str, what: str, names: set[str]) -> SignatureError:
    some = ", ".join(sorted(names)[:3]) + ", …" * (len(names) > 3)
    return SignatureError(f"{path} was changed after it was signed: {what}: {some}; publish the model again.")
