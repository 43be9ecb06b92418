"""The labels of a classifier that exists, out of a text file."""

from __future__ import annotations

from pathlib import Path

# ImageNet's 1000 classes in the order of Keras's models, ILSVRC 2012's: the first word that WordNet has for each, and
# "crane bird" and "maillot tank suit" where two classes would have one name. The list is torchvision's (BSD 3-Clause);
# timm's and TensorFlow.js's MobileNet's (both Apache 2.0) have the same names in the same order, but for these two and
# a spelling. WordNet: https://wordnet.princeton.edu/license-and-commercial-use
IMAGENET = "imagenet"
_IMAGENET_FILE = Path(__file__).with_name("imagenet_labels.txt")

_BACKGROUND = "background"


def read_label_file(path: str, background_first: bool) -> tuple[str, ...]:
    """One label a line, in the order of the classifier's outputs; empty lines at the end are passed over.

    Args:
        path: a UTF-8 text file, or `imagenet` for the names of ImageNet's 1000 classes.
        background_first: the classifier's first output is no class; the file may begin with a line `background` for it,
            which is left out.

    Raises:
        ValueError: there is no such file, or it does not name each class once.
    """
    lines = _lines(_IMAGENET_FILE if path == IMAGENET else Path(path))
    first = 1 if background_first and lines and lines[0].lower() == _BACKGROUND else 0
    seen: dict[str, int] = {}
    for number, label in enumerate(lines[first:], start=first + 1):
        if not label:
            raise ValueError(f"{path}: line {number} is empty; expected one label a line, in the order of the outputs")
        if label in seen:
            raise ValueError(
                f"{path}: line {number} is {label!r} as line {seen[label]} is; a label tells one class from the "
                "others, so write both differently, such as 'crane (bird)' and 'crane (machine)'"
            )
        seen[label] = number
    if len(seen) < 2:
        raise ValueError(f"{path}: expected at least two labels, one a line, found {len(seen)}")
    return tuple(seen)


def _lines(file: Path) -> list[str]:
    try:
        content = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file; trainer.labels names a text file with one label a line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: the labels cannot be read: {error}; save them as UTF-8 text") from error
    return [line.strip() for line in content.rstrip().splitlines()]
