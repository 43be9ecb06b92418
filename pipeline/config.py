"""Configs: a YAML file and command-line overrides, read, validated and frozen."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from components.errors import BrokenInput
from pipeline.options import (
    RunConfig,
)
from pipeline.tasks import TASKS


def load_config(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config; paths of data in it become absolute.

    Args:
        path: the YAML file.
        overrides: `key=value` with dots in the key, `trainer.epochs=10`; the value is YAML.

    Raises:
        BrokenInput: the file, a key or a value cannot be used; the message names it.
    """
    content = _read(path)
    for override in overrides:
        _override(content, override)
    config_class = _config_class(path, content)
    folder = Path(path).resolve().parent
    try:
        config = config_class.model_validate(content, context={"folder": str(folder)})
    except ValidationError as error:
        raise BrokenInput("; ".join(_sentence(path, detail, config_class) for detail in error.errors())) from error
    absolute: dict[str, Any] = {
        key: _absolute(value, folder)
        for key in ("path", "schema_file")
        if (value := getattr(config.data, key)) is not None
    }
    split = getattr(config.data, "split", None)
    if split is not None and split.files:
        files = {name: _absolute(path, folder) for name, path in split.files.items()}
        absolute["split"] = split.model_copy(update={"files": files})
    if config.data.spans:
        absolute["spans"] = config.data.spans.model_copy(update={"path": _absolute(config.data.spans.path, folder)})
    evaluation = config.evaluation
    for section in ("replay", "truth"):
        options = getattr(evaluation, section)
        if options is not None:
            places = {key: getattr(options, key) for key in ("logs", "labels") if hasattr(options, key)}
            update = {key: tuple(_absolute(place, folder) for place in given) for key, given in places.items()}
            evaluation = evaluation.model_copy(update={section: options.model_copy(update=update)})
    push = config.push
    if push.signing_key:
        push = push.model_copy(update={"signing_key": str(folder / push.signing_key)})
    data = config.data.model_copy(update=absolute)
    return config.model_copy(update={"data": data, "evaluation": evaluation, "push": push})


# Of all runs that nobody needs to look at again, beside those of the config.
QUICK = "quick"
_QUICK_CHECKS = 100


def quick_config(config: RunConfig) -> RunConfig:
    """The config of a run that finds mistakes in a config in seconds: few examples and epochs, in a folder of its own.

    Args:
        config: as load_config reads it.
    """
    task, data, checks = TASKS[config.task], config.data, config.serving_check
    few = {
        "sample": min(data.sample or task.quick_examples, task.quick_examples),
        "minimum_examples": min(data.minimum_examples, type(data).model_fields["minimum_examples"].default),
    }
    checked = {"maximum_examples": min(checks.maximum_examples, _QUICK_CHECKS)}
    folder = f"{config.runs}/{config.name}/{QUICK}"
    return config.model_copy(
        update={
            "data": data.model_copy(update=few),
            "trainer": config.trainer.shortened(),
            "tuner": config.tuner and config.tuner.shortened(),
            "serving_check": checks.model_copy(update=checked),
            "runs": folder,
            "models": f"{folder}/models",
        }
    )


def _absolute(paths: str, folder: Path) -> str:
    """Each path, one a line."""
    return "\n".join(path if "://" in path else str(folder / path) for path in paths.splitlines())


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; left to itself PyYAML takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, yaml.ScalarNode):
                continue
            if (key := key_node.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice; expected it once", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _yaml(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested deeper than any config") from None


def _text(path: str) -> str:
    file = Path(path)
    if file.exists() and not file.is_file():  # a pipe or a device might never end
        raise BrokenInput(f"{path}: no regular file; expected a config, configs/ holds examples to start from")
    return file.read_text(encoding="utf-8")


def _read(path: str) -> dict[str, Any]:
    try:
        content = _yaml(_text(path))
    except FileNotFoundError:
        raise BrokenInput(f"{path}: no such config file; configs/ holds examples to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenInput(f"{path}: the config cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise BrokenInput(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BrokenInput(f"{path}: expected keys such as `name:` and `data:`, found {type(content).__name__}")
    return content


def _config_class(path: str, content: dict[str, Any]) -> type[RunConfig]:
    if "task" not in content:
        raise BrokenInput(f"{path}: the key 'task' is missing; expected one of {', '.join(TASKS)}")
    task = content["task"]
    if not isinstance(task, str) or task not in TASKS:
        raise BrokenInput(f"{path}: task: expected one of {', '.join(TASKS)}, received {task!r}")
    return TASKS[task].config


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise BrokenInput(f"--set {override}: expected key=value, `--set trainer.epochs=10` for example")
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise BrokenInput(f"--set {override}: {parent!r} holds a value, not keys")
    try:
        content[last] = _yaml(value)
    except yaml.YAMLError as error:
        raise BrokenInput(f"--set {override}: the value is not valid YAML: {' '.join(str(error).split())}") from error


def _sentence(path: str, detail: Any, config_class: type[RunConfig]) -> str:
    keys, _ = _place(config_class, detail["loc"])
    key = ".".join(keys)
    if detail["type"] == "extra_forbidden":
        _, section = _place(config_class, detail["loc"][:-1])
        known = list(getattr(section, "model_fields", {}))
        unknown = str(detail["loc"][-1])
        # Letters that changed places come before letters that are missing.
        close = [name for name in known if sorted(name) == sorted(unknown)]
        close += difflib.get_close_matches(unknown, known, n=1)
        advice = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return f"{path}: unknown key {key!r}; {advice}"
    if detail["type"] == "union_tag_not_found":
        return f"{path}: the key '{key}.mode' is missing; expected fine_tune or wrap"
    if detail["type"] == "missing":
        return f"{path}: the key {key!r} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    received = detail["input"]
    shown = "" if isinstance(received, dict | list | tuple) else f", received {received!r}"
    return f"{path}: {key or 'the config'}: {message}{shown}"


def _place(config_class: type[RunConfig], location: Sequence[str | int]) -> tuple[list[str], Any]:
    """The keys that a person wrote to get to pydantic's location, and the section that stands there."""
    section: Any = config_class
    keys: list[str] = []
    discriminator: str | None = None
    for part in location:
        if discriminator:  # the part says which of several sections it is, and is no key
            section = next(
                one for one in get_args(section) if part in get_args(one.model_fields[discriminator].annotation)
            )
            discriminator = None
            continue
        keys.append(str(part))
        field = getattr(section, "model_fields", {}).get(part)
        if field is None:  # inside a mapping such as `columns`, whose values are sections again
            nested = [argument for argument in get_args(section) if hasattr(argument, "model_fields")]
            section = nested[0] if nested else section
        else:
            section, discriminator = field.annotation, field.discriminator
            if get_origin(section) in (Union, UnionType) and not discriminator:  # a section that may be left out
                section = next((kind for kind in get_args(section) if hasattr(kind, "model_fields")), section)
    return keys, section
