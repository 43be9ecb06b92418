"""Dependencies: what the lock names and what is installed, their licences, what is known against them, a bill of them.

The bill of materials is CycloneDX 1.6 in JSON. It goes into every published version, and says nothing that changes from
one run to the next: no time, no random number, no path.

Source: https://cyclonedx.org/docs/1.6/json/, https://github.com/package-url/purl-spec, PEP 639, and pip-audit's README.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from components.errors import BrokenInput

PROJECT = "ingraph"
BILL_FILE = "assets.extra/bill_of_materials.cdx.json"
LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"

_CLASSIFIER = "License :: "
_LONGEST_NAME = 100  # characters: some distributions put the whole text of their licence there
_HASH = re.compile(r"--hash[= ]sha256:([0-9a-fA-F]{64})")


@dataclass(frozen=True)
class Locked:
    """A line of the lock: the one version, and the SHA-256 (hex) of each of its files in the index."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Installed:
    """A distribution that can be imported here.

    Attributes:
        name: as it calls itself.
        version: likewise.
        licences: as its metadata say it; () where they say nothing.
        is_expression: whether that is one SPDX expression.
    """

    name: str
    version: str
    licences: tuple[str, ...] = ()
    is_expression: bool = False


@dataclass(frozen=True)
class Advisory:
    """What is known against a version of a distribution.

    Attributes:
        name: of the distribution.
        version: that was looked at.
        id: of the advisory.
        aliases: other names of it, such as a CVE's.
        fix_versions: those that mended it, one for each line of releases.
        description: in the words of whoever reported it.
    """

    name: str
    version: str
    id: str
    aliases: tuple[str, ...] = ()
    fix_versions: tuple[str, ...] = ()
    description: str = ""

    def concerns(self, version: str) -> bool:
        """Whether a version is affected, as far as the versions that mended it tell.

        Of one that the advisory does not name, nobody says when the fault came in: it counts as affected until a
        version of its own line of releases mends it, or the newest of all that do.
        """
        if version == self.version:
            return True
        try:
            wanted, fixes = Version(version), [Version(fix) for fix in self.fix_versions]
        except InvalidVersion:
            return True
        below = max((fix for fix in fixes if fix <= wanted), default=None)
        above = min((fix for fix in fixes if fix > wanted), default=None)
        if below is None:
            return True
        return above is not None and _shared(below, wanted) <= _shared(above, wanted)


def _shared(one: Version, other: Version) -> int:
    """How many of the first parts of two versions are the same."""
    pairs = zip(one.release, other.release, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one.release), len(other.release)))


@dataclass(frozen=True)
class Advisories:
    """An advisory file.

    Attributes:
        found: what is known against a version.
        looked_at: the canonical names that it tells of.
        skipped: name -> why nobody looked at it.
    """

    found: tuple[Advisory, ...]
    looked_at: frozenset[str]
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """An advisory that concerns a version which is locked, installed or both."""

    name: str
    version: str
    where: tuple[str, ...]
    advisory: Advisory


def read_lock(path: Path) -> dict[str, Locked]:
    """The distributions of a lock (requirements with `==` and `--hash`) by their canonical names.

    Raises:
        BrokenInput: it cannot be read, or holds something else.
    """
    text = _text(path, "the lock", "name one with --lock; `make lock` writes requirements.lock")
    locked: dict[str, Locked] = {}
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        requirement = re.split(r"\s--|(?:^|\s)#", line, maxsplit=1)[0].strip()
        if not requirement or requirement.startswith("-"):
            continue
        try:
            parsed = Requirement(requirement)
            (specifier,) = parsed.specifier
        except (InvalidRequirement, ValueError):
            parsed = None
        if parsed is None or specifier.operator != "==" or specifier.version.endswith("*"):
            raise BrokenInput(
                f"{path}: expected one version of each dependency, such as numpy==2.1.0, received "
                f"{requirement[:60]!r}; a lock is what `uv pip compile` or `pip-compile` writes"
            )
        hashes = tuple(sorted(found.lower() for found in _HASH.findall(line)))
        locked[canonicalize_name(parsed.name)] = Locked(parsed.name, specifier.version, hashes)
    return locked


def installed_distributions() -> dict[str, Installed]:
    """What can be imported here, by canonical name and without this project; of two of a name, what is imported."""
    found: dict[str, Installed] = {}
    for distribution in metadata.distributions():
        # The head alone: most of the file is a README, and parsing it takes most of the time.
        head, _, _ = (distribution.read_text("METADATA") or "").replace("\r\n", "\n").partition("\n\n")
        fields = HeaderParser().parsestr(head)
        name, version = fields["Name"], fields["Version"]
        if not name or not version or canonicalize_name(name) in {*found, PROJECT}:
            continue
        licences, is_expression = _licences(fields)
        found[canonicalize_name(name)] = Installed(name, version, licences, is_expression)
    return dict(sorted(found.items()))


def _licences(fields: Any) -> tuple[tuple[str, ...], bool]:
    """What a distribution says of its licence: an SPDX expression, else its classifiers, else a few words."""
    expression = str(fields["License-Expression"] or "").strip()
    if expression:
        return (expression,), True
    classifiers = [
        value.rpartition(" :: ")[2] for value in fields.get_all("Classifier", []) if value.startswith(_CLASSIFIER)
    ]
    named = tuple(sorted({value for value in classifiers if value != "OSI Approved"}))
    words = " ".join(str(fields["License"] or "").split())
    if not named and words and len(words) <= _LONGEST_NAME and words.upper() not in ("UNKNOWN", "NONE"):
        named = (words,)
    return named, False


def read_advisories(path: Path) -> Advisories:
    """What `pip-audit --format json` has written.

    Raises:
        BrokenInput: the file cannot be read, or is none of pip-audit's.
    """
    text = _text(path, "the advisories", "`pip-audit --format json` writes them")
    return parse_advisories(text, str(path))


def parse_advisories(text: str, source: str) -> Advisories:
    """As read_advisories; `source` is what messages call the text."""
    found: list[Advisory] = []
    looked_at: set[str] = set()
    skipped: dict[str, str] = {}
    try:
        for entry in json.loads(text)["dependencies"]:
            name = str(canonicalize_name(entry["name"]))
            if "skip_reason" in entry:
                skipped[name] = str(entry["skip_reason"])
                continue
            looked_at.add(name)
            found += [_advisory(name, str(entry["version"]), vulnerability) for vulnerability in entry["vulns"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenInput(
            f'{source}: expected what `pip-audit --format json` writes, {{"dependencies": [{{"name": …, "version": …, '
            f'"vulns": […]}}]}}, received {" ".join(text[:40].split())!r} ({type(error).__name__})'
        ) from error
    return Advisories(tuple(found), frozenset(looked_at), skipped)


def _advisory(name: str, version: str, vulnerability: Mapping[str, Any]) -> Advisory:
    lists = {key: vulnerability.get(key) or () for key in ("aliases", "fix_versions")}
    if not all(isinstance(values, list | tuple) for values in lists.values()):
        raise TypeError("aliases and fix_versions are lists")
    texts = {key: tuple(map(str, values)) for key, values in lists.items()}
    return Advisory(
        name, version, str(vulnerability["id"]), **texts, description=str(vulnerability.get("description") or "")
    )


def affected(
    advisories: Advisories,
    locked: Mapping[str, Locked],
    installed: Mapping[str, Installed],
    ignored: Sequence[str] = (),
) -> list[Finding]:
    """The versions of the lock and of this environment that an advisory concerns, by name.

    Args:
        advisories: what is known.
        locked: by canonical name.
        installed: likewise.
        ignored: ids and aliases of advisories that somebody has looked into.
    """
    findings = {}
    for advisory in advisories.found:
        if {advisory.id, *advisory.aliases} & set(ignored):
            continue
        versions: dict[str, list[str]] = {}
        for where, known in (("lock", locked.get(advisory.name)), ("installed", installed.get(advisory.name))):
            if known is not None:
                versions.setdefault(known.version, []).append(where)
        for version, places in versions.items():
            if advisory.concerns(version):
                finding = Finding(advisory.name, version, tuple(places), advisory)
                findings[advisory.name, version, advisory.id] = finding
    return [findings[key] for key in sorted(findings)]


def bill_of_materials(locked: Mapping[str, Locked], installed: Iterable[Installed]) -> bytes:
    """A CycloneDX document of what is installed; the same bytes for the same environment.

    Where the lock holds that version, the SHA-256 of its files in the index are those of its distribution.
    """
    components = sorted((_component(one, locked) for one in installed), key=lambda component: component["bom-ref"])
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", **_identity(PROJECT, _own_version())}},
        "components": components,
    }
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
    document["serialNumber"] = f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}"
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def environment_bill() -> bytes:
    """The bill of materials of this environment, with the hashes of this project's lock where it is there."""
    locked = read_lock(LOCK) if LOCK.is_file() else {}
    return bill_of_materials(locked, installed_distributions().values())


def _component(one: Installed, locked: Mapping[str, Locked]) -> dict[str, Any]:
    component: dict[str, Any] = {"type": "library", **_identity(one.name, one.version)}
    if one.is_expression:
        component["licenses"] = [{"expression": expression} for expression in one.licences]
    elif one.licences:
        component["licenses"] = [{"license": {"name": name}} for name in one.licences]
    known = locked.get(canonicalize_name(one.name))
    if known is not None and known.version == one.version and known.hashes:
        component["externalReferences"] = [
            {
                "type": "distribution",
                "url": component["purl"],  # one is required, and the index it came from is not known here
                "hashes": [{"alg": "SHA-256", "content": content} for content in known.hashes],
            }
        ]
    return component


def _identity(name: str, version: str) -> dict[str, str]:
    purl = f"pkg:pypi/{quote(name.lower().replace('_', '-'), safe='')}@{quote(version, safe='')}"
    return {"bom-ref": purl, "name": name, "version": version, "purl": purl}


def _own_version() -> str:
    try:
        return metadata.version(PROJECT)
    except metadata.PackageNotFoundError:
        return "0"


def _text(path: Path, what: str, advice: str) -> str:
    if path.exists() and not path.is_file():  # a pipe or a device might never end
        raise BrokenInput(f"{path}: no regular file; expected {what}: {advice}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BrokenInput(f"{path}: {what} cannot be read: {why}; {advice}") from error


def by_licence(installed: Iterable[Installed]) -> dict[str, list[str]]:
    """Licence -> the names under it, the most frequent licence first; under "" those that say nothing of theirs."""
    names: dict[str, list[str]] = {}
    for one in installed:
        names.setdefault(" and ".join(one.licences), []).append(one.name)
    order = sorted(names, key=lambda licence: (-len(names[licence]), licence))
    return {licence: sorted(names[licence], key=str.lower) for licence in order}
