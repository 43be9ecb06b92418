"""`ingraph predict`."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.errors import printable
from components.image_example_gen.file_formats import HEAD_SIZE, READ, UNREAD_EXTENSIONS, file_format, is_photo
from components.table_file import padded_rows
from pipeline.exit_status import ExitStatus
from serving.client.metadata import IMAGE_INPUTS

if TYPE_CHECKING:
    from serving.client.errors import PredictionError
    from serving.client.grpc import GrpcClient
    from serving.client.metadata import ModelMetadata, Signature, TensorDescription
    from serving.client.rest import RestClient

ROWS_PER_REQUEST = 64
EXPLAINED_PER_REQUEST = 4  # each takes as long as a thousand others
# What is taken from a directory; of photos those too that no model reads, so that each has an answer or a reason.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", *UNREAD_EXTENSIONS)
TEXT_SUFFIXES = (".txt", ".csv")
TABLE_SUFFIXES = (".csv",)
TABLE_LABELS = 3  # how many of a row's labels the table shows


class PredictFailed(click.ClickException):
    """One sentence that says why there is no prediction."""

    exit_code = int(ExitStatus.BROKEN_INPUT)


@dataclass(frozen=True)
class Rows:
    """What is asked: a name for each row, and the columns that are sent."""

    names: Sequence[str]
    columns: Mapping[str, Sequence[Any]]


@click.command()
@click.argument("name")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("--rest/--grpc", "rest", default=True, help="Which port of the server to ask.  [default: rest]")
@click.option("--host", default="127.0.0.1", show_default=True, help="The server.")
@click.option("--port", type=click.IntRange(1, 65535), help="Its port.  [default: 8501, with --grpc 8500]")
@click.option(
    "--signature",
    default="serving_default",
    show_default=True,
    help="serving_default answers with a label, classify with all labels and their probabilities.",
)
@click.option(
    "--explain", is_flag=True, help="Say why: what each column, word or region adds to the probability of the label."
)
@click.option("--label", help="The version that has this label, such as stable or canary.  [default: the newest]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per row.")
def predict(
    name: str,
    inputs: tuple[str, ...],
    rest: bool,
    host: str,
    port: int | None,
    signature: str,
    explain: bool,
    label: str | None,
    as_json: bool,
) -> None:
    """Ask the served model NAME for labels.

    INPUT is, depending on what the model takes: image files; CSV files with a header; column=value pairs that make up
    one row; sentences, or text files of one sentence per line; directories of such files, with all that is below
    them; - for the same from standard input. An empty cell or value is a missing one.

    \b
    ingraph predict heart age=63 sex=1 cp=1 …
    ingraph predict heart patients.csv --grpc
    ingraph predict flowers rose.jpg holiday/ --signature classify
    ingraph predict heart patients.csv --explain

    Exit status: 0 when every row was answered, 2 when not: the column `error` says why.
    """
    from serving.client.errors import PredictionError

    if explain and signature not in (SERVING_DEFAULT, EXPLAIN):
        raise click.UsageError(f"--explain asks the signature explain; leave --signature {signature} out")
    signature = EXPLAIN if explain else signature
    with _client(rest, host, port) as client:
        try:
            metadata = client.metadata(name, label=label)
            taken = _signature(metadata, signature).inputs
            rows = _read(_files(inputs, taken), taken)
            answers = []
            for part in _with_progress(rows, EXPLAINED_PER_REQUEST if explain else ROWS_PER_REQUEST):
                found = _rows(client.predict(name, part.columns, signature, label=label), part)
                unanswered = [row for row, answer in enumerate(found) if answer.get(LABEL_OUTPUT) == ""]
                if unanswered and _gives_reasons(metadata):
                    asked = _asked_for_reasons(metadata, part, unanswered)
                    reasons = _rows(client.predict(name, asked.columns, CLASSIFY, label=label), asked)
                    for row, reason in zip(unanswered, reasons, strict=True):
                        found[row][ERROR_OUTPUT] = reason[ERROR_OUTPUT]
                answers += [_with_format(answer, part, row) for row, answer in enumerate(found)]
        except PredictionError as error:
            raise PredictFailed(_explain(error, name)) from error
        except ValueError as error:
            raise PredictFailed(str(error)) from error
    if as_json:
        for answer in answers:
            click.echo(json.dumps(answer, ensure_ascii=False, default=_bytes_to_json))
    else:
        _print_table(answers)
    if any(answer.get(ERROR_OUTPUT) or answer.get(LABEL_OUTPUT) == "" for answer in answers):
        sys.exit(ExitStatus.BROKEN_INPUT)


# serving_default answers with a label alone, "" where there is none; classify says why.
LABEL_OUTPUT, ERROR_OUTPUT, CLASSIFY = "output_0", "error", "classify"
SERVING_DEFAULT, EXPLAIN = "serving_default", "explain"


def _gives_reasons(metadata: ModelMetadata) -> bool:
    signature = metadata.signatures.get(CLASSIFY)
    return signature is not None and ERROR_OUTPUT in signature.outputs and len(signature.inputs) == 1


def _asked_for_reasons(metadata: ModelMetadata, part: Rows, rows: Sequence[int]) -> Rows:
    """Some rows of a model of one input, as classify takes them."""
    ((_, values),) = part.columns.items()
    (column,) = metadata.signatures[CLASSIFY].inputs
    return Rows([part.names[row] for row in rows], {column: [values[row] for row in rows]})


def _with_format(answer: dict[str, Any], part: Rows, row: int) -> dict[str, Any]:
    """The answer; the reason of a photo whose format no model reads names the format."""
    if not answer.get(ERROR_OUTPUT):
        return answer
    ((_, values),) = part.columns.items()
    found = file_format(values[row][:HEAD_SIZE]) if isinstance(values[row], bytes) else READ[0]
    if found in READ or not is_photo(found):
        return answer
    return answer | {ERROR_OUTPUT: f"{answer[ERROR_OUTPUT]}: it is {found}"}


def _signature(metadata: ModelMetadata, signature: str) -> Signature:
    if signature not in metadata.signatures:
        known = ", ".join(sorted(metadata.signatures))
        advice = "; a run with serving.explain: true exports it" if signature == EXPLAIN else ""
        raise ValueError(
            f"{metadata.name} version {metadata.version} has no signature {signature!r}; it has {known}{advice}"
        )
    return metadata.signatures[signature]


def _explain(error: PredictionError, name: str) -> str:
    from serving.client.errors import CanonicalCode

    if error.code is CanonicalCode.UNAVAILABLE:
        return f"{error.message}; start one with: ingraph serve --model {name}=BASE_PATH"
    if error.code is CanonicalCode.NOT_FOUND:
        return f"the server has no model {name!r} ({error.message}); was it started with --model {name}=BASE_PATH?"
    return error.message


def _files(inputs: Sequence[str], taken: Mapping[str, TensorDescription]) -> list[str]:
    """The INPUTs, with the files below it in the place of each directory."""
    if len(taken) > 1:
        suffixes: tuple[str, ...] = TABLE_SUFFIXES
    else:
        suffixes = IMAGE_SUFFIXES if next(iter(taken)) in IMAGE_INPUTS else TEXT_SUFFIXES
    return [file for text in inputs for file in (_below(Path(text), suffixes) if _is_directory(text) else [text])]


def _below(directory: Path, suffixes: tuple[str, ...]) -> list[str]:
    files = sorted(str(path) for path in directory.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    if not files:
        raise ValueError(f"{directory} holds no file that the model takes; expected names with {', '.join(suffixes)}")
    return files


def _read(inputs: Sequence[str], taken: Mapping[str, TensorDescription]) -> Rows:
    """The rows of all INPUTs together."""
    if all(_is_pair(text, taken) for text in inputs):
        return _read_pairs(inputs, taken)
    parts = [_read_one(text, taken) for text in inputs]
    return Rows(
        [name for part in parts for name in part.names],
        {column: [value for part in parts for value in part.columns[column]] for column in taken},
    )


def _is_pair(text: str, taken: Mapping[str, TensorDescription]) -> bool:
    column, equals, _ = text.partition("=")
    return bool(equals) and (column in taken or (len(taken) > 1 and not _is_file(text)))


def _read_pairs(inputs: Sequence[str], taken: Mapping[str, TensorDescription]) -> Rows:
    pairs: dict[str, str] = {}
    for text in inputs:
        column, _, value = text.partition("=")
        if column in pairs:
            raise ValueError(f"{column} is given twice, and column=value pairs make up one row; send a CSV for several")
        pairs[column] = value
    unknown = [column for column in pairs if column not in taken]
    if unknown:
        raise ValueError(f"the model takes no column {', '.join(unknown)}; it takes {', '.join(taken)}")
    return _table([pairs], taken, "the request", ["1"])


def _read_one(text: str, taken: Mapping[str, TensorDescription]) -> Rows:
    column = next(iter(taken))
    if column in IMAGE_INPUTS and _is_file(text) and not text.lower().endswith(".csv"):
        return Rows([text], {column: [Path(text)]})
    content = _content(text)
    if len(taken) > 1 or (text.lower().endswith(".csv") and content is not None):
        if content is None:
            raise ValueError(f"{text!r} is neither a file nor a column=value pair; the model takes {', '.join(taken)}")
        return _read_csv(content, taken, _source(text))
    if column in IMAGE_INPUTS:
        if content is None:
            raise ValueError(f"there is no file {text!r}; the model takes image files")
        return Rows([_source(text)], {column: [content]})
    values = [text] if content is None else _decode(content, _source(text)).splitlines()
    sources = values if content is None else [f"{_source(text)}:{number}" for number in range(1, len(values) + 1)]
    return _table([{column: value} for value in values], taken, _source(text), sources)


def _content(text: str) -> bytes | None:
    """The bytes of a file or of standard input; None where the text is neither."""
    if text == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(text).read_bytes() if _is_file(text) else None
    except OSError as error:
        raise ValueError(f"{text} cannot be read: {error.strerror}") from error


def _is_directory(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # a sentence can be longer than a file name
        return False


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a sentence can be longer than a file name
        return False


def _read_csv(content: bytes, taken: Mapping[str, TensorDescription], source: str) -> Rows:
    _decode(content, source)
    header, rows = padded_rows(content)
    if not rows:
        raise ValueError(f"{source} holds no rows; expected a header line and at least one row")
    ignored = [column for column in header if column not in taken]
    if ignored:
        click.echo(f"ignored columns of {source} that the model does not take: {', '.join(ignored)}", err=True)
    return _table(rows, taken, source, [f"{source}:{number}" for number in range(1, len(rows) + 1)])


def _table(
    rows: Sequence[Mapping[str, str]], taken: Mapping[str, TensorDescription], source: str, names: Sequence[str]
) -> Rows:
    from serving.client.table_columns import table_columns

    return Rows(names, table_columns(rows, taken, source))


def _decode(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is no UTF-8 text (byte {error.start}); expected text") from error


def _source(text: str) -> str:
    return "standard input" if text == "-" else text


def _parts(rows: Rows, at_once: int) -> Iterator[Rows]:
    for start in range(0, len(rows.names), at_once):
        part = slice(start, start + at_once)
        # Photos are read when their turn comes: a directory of them need not fit into memory.
        columns = {column: [_read_file(value) for value in values[part]] for column, values in rows.columns.items()}
        yield Rows(rows.names[part], columns)


def _read_file(value: Any) -> Any:
    if not isinstance(value, Path):
        return value
    try:
        return value.read_bytes()
    except OSError as error:
        raise ValueError(f"{value} cannot be read: {error.strerror}") from error


def _with_progress(rows: Rows, at_once: int) -> Iterator[Rows]:
    """The parts of the rows, with a bar on the terminal where there are several."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    hidden = len(rows.names) <= at_once or not console.is_terminal
    with Progress(console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("rows", total=len(rows.names))
        for part in _parts(rows, at_once):
            yield part
            progress.advance(task, len(part.names))


def _rows(outputs: Mapping[str, Any], part: Rows) -> list[dict[str, Any]]:
    """Outputs by name -> one object per row."""
    columns = {name: _plain(name, values) for name, values in outputs.items()}
    return [
        {"input": row} | {name: values[number] for name, values in columns.items()}
        for number, row in enumerate(part.names)
    ]


def _plain(name: str, values: Any) -> Any:
    """Lists instead of arrays, text instead of its bytes."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, list):
        return [_plain(name, value) for value in values]
    return values.decode("utf-8", "replace") if isinstance(values, bytes) and not name.endswith("_bytes") else values


def _bytes_to_json(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _client(rest: bool, host: str, port: int | None) -> RestClient | GrpcClient:
    """The one that is asked for: importing the other would take as long as all else."""
    if rest:
        from serving.client.rest import RestClient

        return RestClient(host, port or 8501)
    from serving.client.grpc import GrpcClient

    return GrpcClient(host, port or 8500)


def _print_table(answers: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("input")
    # The reason why an image could not be used, mostly "".
    rows = [_table_row(answer) for answer in answers]
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if any(row.get(name) for row in rows)]
    for name in names:
        table.add_column("label" if name == "output_0" else name)
    for answer, row in zip(answers, rows, strict=True):
        # Text: what comes from files and models is never read as rich's markup.
        table.add_row(*(Text(printable(cell)) for cell in (answer["input"], *(row.get(name, "") for name in names))))
    Console().print(table)


SHOWN_REASONS = 5


def _reasons(contributions: Sequence[Any], parts: Sequence[str] | None) -> list[str]:
    """What added or took most, the largest first: columns, words, or regions of a photo."""
    if parts is None:
        places = [(row, column) for row, line in enumerate(contributions, 1) for column in range(1, len(line) + 1)]
        parts = [f"region {row}/{column}" for row, column in places]
        contributions = [value for line in contributions for value in line]
    found = sorted(zip(parts, contributions, strict=True), key=lambda one: -abs(one[1]))[:SHOWN_REASONS]
    return [f"{part} {value:+.3f}" for part, value in found if value]


def _table_row(answer: Mapping[str, Any]) -> dict[str, str]:
    cells = {name: value for name, value in answer.items() if name != "input"}
    if "labels" in cells and "probabilities" in cells:
        pairs = list(zip(cells["labels"], cells.pop("probabilities"), strict=False))[:TABLE_LABELS]
        cells["labels"] = ", ".join(f"{label} {probability:.3f}" for label, probability in pairs)
    if "contributions" in cells and "base" in cells:
        reasons = _reasons(cells.pop("contributions"), cells.pop("parts", None))
        label, probability, base = cells.pop("label"), cells.pop("probability"), cells.pop("base")
        answered = {"label": f"{label} {probability:.3f}", "base": f"{base:.3f}", "because": ", ".join(reasons)}
        cells = cells if cells.get(ERROR_OUTPUT) else {**answered, **cells}
    return {
        name: value if isinstance(value, str) else json.dumps(value, default=_bytes_to_json)
        for name, value in cells.items()
    }
