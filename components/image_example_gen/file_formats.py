"""Formats of files that lie among photos: told by content, and made JPEG where Pillow can read them."""

from __future__ import annotations

import io
import os
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import BrokenInput

if TYPE_CHECKING:
    from PIL import Image

# So much of a file tells its format.
HEAD_SIZE = 4096
# As serving.signatures.image has them, without the TensorFlow that it imports.
READ_BEGINNINGS = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "GIF": b"GIF8", "BMP": b"BM"}
READ = tuple(READ_BEGINNINGS)
VIDEO, OTHER, UNKNOWN = "video", "other", "unknown"
# How files of photos end that are not read; what they are, their content says.
UNREAD_EXTENSIONS = (
    *(".heic", ".heif", ".hif", ".avif", ".webp", ".tif", ".tiff", ".jxl", ".jp2", ".psd", ".ico"),
    *(".dng", ".nef", ".nrw", ".cr2", ".cr3", ".crw", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw", ".x3f", ".mrw"),
)

_BEGINNINGS = READ_BEGINNINGS | {
    "JPEG XL": b"\xff\x0a",
    "JPEG 2000": b"\xff\x4f\xff\x51",
    "PSD": b"8BPS",
    "OpenEXR": b"\x76\x2f\x31\x01",
    "ICO": b"\0\0\1\0",
    "RAW (Fujifilm)": b"FUJIFILMCCD-RAW",
    "RAW (Panasonic)": b"IIU\0",
    "RAW (Olympus)": b"IIR",
    "RAW (Sigma)": b"FOVb",
    "RAW (Minolta)": b"\0MRM",
    VIDEO: b"\x1aE\xdf\xa3",  # Matroska and WebM
}
_MORE_BEGINNINGS = (
    ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n"),
    ("RAW (Olympus)", b"MMOR"),
    ("TIFF", b"II+\0"),  # of files above 4 GB
    ("TIFF", b"MM\0+"),
    (VIDEO, b"\0\0\1\xba"),  # MPEG
    (VIDEO, b"FLV\1"),
)
# What stands behind `ftyp`: the brand of the file, and after four bytes of version those it is compatible with.
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
_QUICKTIME_ATOMS = {b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_RIFF = {b"WEBP": "WebP", b"AVI ": VIDEO}
_SUB_IFDS, _MAKE, _DNG_VERSION = 0x014A, 0x010F, 0xC612


def file_format(head: bytes) -> str:
    """What a file is by its first HEAD_SIZE bytes: of READ, another format of photos, `video` or `other`.

    Sources: ISO/IEC 14496-12 and 23008-12 (HEIF), the AV1 Image File Format, the WebP container, TIFF 6.0, DNG 1.7.
    """
    if head[4:8] == b"ftyp":
        return _of_brands(head)
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], OTHER)
    if head[:4] in (b"II*\0", b"MM\0*"):
        return _of_tiff(head)
    if head[6:14] == b"HEAPCCDR":
        return "RAW (Canon)"
    for name, beginning in (*_BEGINNINGS.items(), *_MORE_BEGINNINGS):
        # A text may begin with BM: of a BMP, four bytes behind its size are zeros.
        if head.startswith(beginning) and (name != "BMP" or not any(head[6:10])):
            return name
    return VIDEO if head[4:8] in _QUICKTIME_ATOMS else OTHER


def _of_brands(head: bytes) -> str:
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[place : place + 4] for place in range(16, size - 3, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIC_BRANDS:
        return "HEIC"
    return "RAW (Canon)" if b"crx " in brands else VIDEO


def _of_tiff(head: bytes) -> str:
    """Cameras write what their sensors saw as TIFF too: beside a preview, in directories below the first."""
    if head[8:10] == b"CR":
        return "RAW (Canon)"
    order = "<" if head[:1] == b"I" else ">"
    (directory,) = struct.unpack_from(f"{order}I", head.ljust(8, b"\0"), 4)
    if directory + 2 > len(head):
        return "TIFF"
    (count,) = struct.unpack_from(f"{order}H", head, directory)
    places = range(directory + 2, min(directory + 2 + 12 * count, len(head) - 11), 12)
    tags = {struct.unpack_from(f"{order}H", head, place)[0] for place in places}
    if _DNG_VERSION in tags:
        return "RAW (DNG)"
    return "RAW" if {_MAKE, _SUB_IFDS} <= tags else "TIFF"


def is_photo(name: str) -> bool:
    """Whether files of this format are photos, read or not."""
    return name not in (VIDEO, OTHER)


def unread_reason(name: str) -> str:
    """Why a photo of another format than those of READ is left out."""
    if name == UNKNOWN:
        return "of no format that is known"
    return f"{name}, which is not read; {', '.join(READ[:-1])} and {READ[-1]} are"


def read_head(path: str) -> bytes:
    """The first bytes of a file; none where it cannot be read, or might never end as a pipe or device."""
    if "://" not in path and not Path(path).is_file():
        return b""
    import tensorflow as tf

    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            head: bytes = file.read(HEAD_SIZE)
            return head
    except tf.errors.OpError:
        return b""


def counted_formats(formats: Iterable[str]) -> str:
    """The formats and how often there is each, the most frequent first: "40 HEIC, 2 TIFF"."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(Counter(formats).items(), key=_by_count))


def _by_count(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]


# What is made of a file lies beside it, under its whole name and this.
CONVERTED = ".converted.jpg"
_QUALITY = 95
_HEIF_READER = "pip install pillow-heif (or ingraph[convert])"


@dataclass(frozen=True)
class Conversion:
    """What became of files.

    Attributes:
        made: the format of each that is a JPEG now.
        failed: path -> why one is not.
    """

    made: Sequence[str]
    failed: Mapping[str, str]


def convert_to_jpeg(files: Mapping[str, str], max_pixels: int) -> Conversion:
    """Write a JPEG beside each file, upright and without EXIF data; the files stay as they are.

    Args:
        files: path, of this machine -> format.
        max_pixels: the largest photo that is converted.

    Raises:
        BrokenInput: nothing can be written beside the files.
    """
    openers = _heif_opener()

    def convert(path: str) -> str:
        return _convert(path, files[path], max_pixels, openers)

    # Pillow's decoders run side by side; each holds a photo.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        reasons = dict(zip(files, threads.map(convert, files), strict=True))
    failed = {path: reason for path, reason in reasons.items() if reason}
    return Conversion([files[path] for path in files if path not in failed], failed)


def _heif_opener() -> bool:
    """Whether Pillow reads HEIC: by a package of its own, which an extra brings."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _convert(path: str, name: str, max_pixels: int, reads_heif: bool) -> str:
    """Why it could not be converted; "" where it was."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if name.startswith("RAW"):
        return f"{name}: only the camera maker's software develops it; export it as JPEG"
    if name == "HEIC" and not reads_heif:
        return f"HEIC: its decoder is missing: {_HEIF_READER}"
    target = Path(path + CONVERTED)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with Image.open(path) as photo:
            if photo.width * photo.height > max_pixels:
                return f"{name}: {photo.width}x{photo.height}, at most {max_pixels} pixels are allowed"
            upright = _eight_bits(ImageOps.exif_transpose(photo))
        content = io.BytesIO()
        upright.save(content, "JPEG", quality=_QUALITY, subsampling=0)
    except UnidentifiedImageError:
        return f"{name}: Pillow has no decoder for it; make a JPEG or PNG of it"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{name}: it cannot be decoded: {error}"
    try:
        unfinished.write_bytes(content.getvalue())
        unfinished.replace(target)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise BrokenInput(
            f"{target}: the JPEG cannot be written: {error.strerror}; --convert writes beside the data, so let it, or "
            "copy them to where it may"
        ) from error
    return ""


def _eight_bits(photo: Image.Image) -> Image.Image:
    if photo.mode.startswith("I;16") or photo.mode == "I":
        # Pillow would cut off what is above 255.
        photo = photo.convert("I").point(lambda value: value / 257).convert("L")
    return photo.convert("RGB")


# What ImageExampleGen writes beside its examples, an IngestionReport.
REPORT_FILE = "ingestion.json"


def kinds_left_out(report: Mapping[str, Any]) -> dict[str, int]:
    """Why photos were left out -> how many, the most frequent first: a format, `not usable` or `in another split`.

    Args:
        report: REPORT_FILE as JSON; that of a table has no photos.
    """
    photos = report.get("left_out")
    if not isinstance(photos, list):
        return {}
    kinds = Counter(
        photo.get("format") or ("not usable" if photo["unreadable"] else "in another split") for photo in photos
    )
    return dict(kinds.most_common())
