"""`ingraph doctor`: whether this machine has what ingraph needs; `ingraph audit`: what is known against that."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from packaging.requirements import Requirement

from components.dependencies import (
    LOCK,
    Advisories,
    affected,
    bill_of_materials,
    by_licence,
    installed_distributions,
    parse_advisories,
    read_advisories,
    read_lock,
)
from components.errors import BrokenInput, printable
from pipeline import demo_data
from pipeline.commands import c_runtime
from pipeline.exit_status import ExitStatus
from pipeline.runners.beam_engine import Trial, package_versions, require_engine, try_engine

DISK_NEEDED = 10**9  # bytes: a run of the demos leaves some 100 MB
DISK_COMFORTABLE = 5 * 10**9
IMPORT_TIMEOUT = 120  # seconds; a cold disk reads TFX's 3 GB slowly
NETWORK_TIMEOUT = 10
SET_UP_AGAIN = "Make the environment anew: make -B"


class State(StrEnum):
    """What a check came to; only a problem keeps ingraph from working."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Check:
    """One point: what was looked at, what was found, and what to do about it ("" when it is fine)."""

    name: str
    state: State
    detail: str
    advice: str = ""


def diagnose(directory: Path) -> Iterator[Check]:
    """Every check in order, each as soon as it is known; about 15 seconds, most of it for importing TFX.

    Args:
        directory: where runs and models are going to be written.
    """
    with ThreadPoolExecutor() as pool:
        # TensorFlow, which is slow to import, once per process; two processes, as two cores are the least to expect.
        tensorflow = pool.submit(
            failures, "import tensorflow", f"from {__name__} import load_tiny_model as load; load()"
        )
        tfx = pool.submit(failures, "import kfp", "import tfx.v1")
        network = pool.submit(check_network)
        gpus = pool.submit(gpus_of_machine)
        yield check_python(sys.version_info[:3])
        yield check_glibc(c_runtime.glibc_version())
        yield check_libstdcxx(c_runtime.libstdcxx_is_new_enough())
        yield check_disk(directory, shutil.disk_usage(directory).free)
        yield network.result()
        tensorflow_failure, loader_failure = tensorflow.result()
        yield check_package("TensorFlow", "tensorflow", tensorflow_failure)
        yield check_model_loader(loader_failure)
        yield check_gpus(gpus.result())
        kfp_failure, tfx_failure = tfx.result()
        yield check_package("kfp", "kfp", kfp_failure)
        yield check_package("TFX", "tfx", tfx_failure)


def check_python(version: tuple[int, int, int]) -> Check:
    detail = f"{'.'.join(map(str, version))} ({sys.executable})"
    if version[:2] == c_runtime.PYTHON_VERSION:
        return Check("Python", State.OK, detail)
    wanted = ".".join(map(str, c_runtime.PYTHON_VERSION))
    return Check("Python", State.PROBLEM, detail, f"TFX needs Python {wanted}: make -B PYTHON=/path/to/python{wanted}")


def check_glibc(version: tuple[int, int] | None) -> Check:
    wanted = ".".join(map(str, c_runtime.GLIBC_VERSION))
    if version is None:
        return Check("glibc", State.PROBLEM, "another C library", "Use Debian 12 or newer, or Ubuntu 22.04 or newer.")
    detail = f"{version[0]}.{version[1]}" + (", private to .venv" if c_runtime.PRIVATE_RUNTIME.exists() else "")
    if version >= c_runtime.GLIBC_VERSION:
        return Check("glibc", State.OK, detail)
    return Check("glibc", State.PROBLEM, detail, f"TFX's wheels need {wanted}; `make -B` sets a private one up.")


def check_libstdcxx(new_enough: bool) -> Check:
    symbol = c_runtime.LIBSTDCXX_SYMBOL.decode()
    if new_enough:
        return Check("libstdc++", State.OK, f"has {symbol}")
    advice = "TFX's wheels need the one of GCC 14; `make -B` sets a private one up."
    return Check("libstdc++", State.PROBLEM, f"without {symbol}", advice)


def check_package(name: str, distribution: str, import_failure: str) -> Check:
    """Whether a package has the version that setup.py asks for and can be imported."""
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return Check(name, State.PROBLEM, "not installed", SET_UP_AGAIN)
    wanted = next(
        (each for each in map(Requirement, metadata.requires("ingraph") or []) if each.name == distribution), None
    )
    if wanted and not wanted.specifier.contains(version, prereleases=True):
        return Check(name, State.PROBLEM, f"{version}, where {wanted} is asked for", SET_UP_AGAIN)
    if import_failure:
        return Check(name, State.PROBLEM, f"{version}, and importing it fails: {import_failure}", SET_UP_AGAIN)
    return Check(name, State.OK, version)


def check_model_loader(failure: str) -> Check:
    if failure:
        return Check("model loader", State.PROBLEM, failure, SET_UP_AGAIN)
    return Check("model loader", State.OK, "wrote a SavedModel, loaded it in a session, had it answer")


def check_disk(directory: Path, free: int) -> Check:
    detail = f"{free / 1e9:.1f} GB free in {directory}"
    if free >= DISK_COMFORTABLE:
        return Check("disk space", State.OK, detail)
    advice = (
        f"Runs fill it: free some up to {DISK_COMFORTABLE / 1e9:.0f} GB, or let runs live elsewhere with --workdir."
    )
    return Check("disk space", State.WARNING if free >= DISK_NEEDED else State.PROBLEM, detail, advice)


def check_network() -> Check:
    """Whether the package index that pip is set up for answers; nothing but the demo data and set-up need it."""
    probe = next(iter(demo_data.WHEELS.values())).package
    pip = [sys.executable, "-m", "pip", "index", "versions", "--disable-pip-version-check", "--no-input"]
    limits = ["--retries", "0", "--timeout", str(NETWORK_TIMEOUT)]
    try:
        done = subprocess.run([*pip, *limits, probe], capture_output=True, check=False, timeout=NETWORK_TIMEOUT)
        reachable = done.returncode == 0
    except subprocess.TimeoutExpired:
        reachable = False
    if reachable:
        return Check("network", State.OK, "the package index answers")
    uncached = [name for name in demo_data.NAMES if not demo_data.is_cached(name)]
    without = "training, serving and tests on data that are here work"
    advice = f"Needed for set-up and for demo data not fetched yet: {', '.join(uncached) or 'none'}."
    return Check("network", State.WARNING, f"the package index does not answer; {without}", advice)


@dataclass(frozen=True)
class Gpus:
    """What is known of this machine's GPUs.

    Attributes:
        cards: NVIDIA's on the PCI bus, or files of them in a container.
        driver: whether its library can be loaded.
        hidden: CUDA_VISIBLE_DEVICES, where that hides them all.
        build: of TensorFlow: `cuda`, or `cpu`; "" where it cannot be imported.
        seen: the names of those that TensorFlow uses.
    """

    cards: int
    driver: bool = False
    hidden: str | None = None
    build: str = ""
    seen: tuple[str, ...] = ()


_NVIDIA = "0x10de"
_DISPLAY = "0x03"
_ASK_TENSORFLOW = """
import json, tensorflow as tf
details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
cuda = tf.sysconfig.get_build_info().get("is_cuda_build", False)
print(json.dumps({"build": "cuda" if cuda else "cpu", "seen": [one.get("device_name", "GPU") for one in details]}))
"""


def gpus_of_machine(pci: Path = Path("/sys/bus/pci/devices"), devices: Path = Path("/dev")) -> Gpus:
    """What there is; TensorFlow is asked, in a process of its own, only where there is something to use."""
    of_nvidia = [
        folder
        for folder in pci.glob("*")
        if _line_of(folder / "vendor") == _NVIDIA and _line_of(folder / "class").startswith(_DISPLAY)
    ]
    cards = max(len(of_nvidia), len(list(devices.glob("nvidia[0-9]*"))))
    if not cards:
        return Gpus(0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    # The first number that is none ends the list.
    hidden = visible if visible is not None and visible.split(",")[0].strip() in ("", "-1") else None
    try:
        ctypes.CDLL("libcuda.so.1")
        driver = True
    except OSError:
        driver = False
    try:
        command = [sys.executable, "-c", _ASK_TENSORFLOW]
        done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=IMPORT_TIMEOUT)
        answer = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError):
        answer = {"build": "", "seen": []}
    return Gpus(cards, driver, hidden, answer["build"], tuple(answer["seen"]))


def _line_of(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def check_gpus(gpus: Gpus) -> Check:
    """Which GPUs training uses, and why not those that there are."""
    if not gpus.cards:
        return Check("GPU", State.OK, "none on this machine; training uses the processor")
    found = f"{gpus.cards} on this machine"
    if gpus.seen:
        detail = f"{found}, TensorFlow uses {len(gpus.seen)}: {', '.join(gpus.seen)}"
        if len(gpus.seen) == gpus.cards:
            return Check("GPU", State.OK, detail)
        return Check("GPU", State.WARNING, detail, "CUDA_VISIBLE_DEVICES, or the container, shows it those alone")
    if gpus.hidden is not None:
        detail, advice = f"CUDA_VISIBLE_DEVICES={gpus.hidden!r} hides them", "Unset it to train on them"
    elif not gpus.driver:
        detail, advice = "NVIDIA's driver cannot be loaded (libcuda.so.1)", "Install it; in a container, give it GPUs"
    elif not gpus.build:
        detail, advice = "TensorFlow cannot be imported", SET_UP_AGAIN
    elif gpus.build == "cpu":
        detail, advice = "TensorFlow is built without CUDA (tensorflow-cpu)", "Make the environment anew: make -B GPU=1"
    else:
        detail, advice = "CUDA's libraries are not there or too old", "make GPU=1 installs those that TensorFlow takes"
    return Check("GPU", State.WARNING, f"{found}, and none is used: {detail}", advice)


def diagnose_engine(config: str, overrides: Sequence[str], workdir: str) -> Iterator[Check]:
    """Whether the Beam engine that a config names runs what ingraph sends it, each check as soon as it is known.

    Args:
        config: the file.
        overrides: of its keys.
        workdir: of the runs, which workers write to.

    Raises:
        BrokenInput: the config cannot be used, or the folder not be written to.
    """
    from pipeline.config import load_config
    from pipeline.runners.beam_engine import IN_MEMORY_RUNNER
    from pipeline.tasks import data_path

    loaded = load_config(config, overrides)
    arguments = loaded.beam.pipeline_args(loaded.cluster.image)
    if loaded.beam.runner == IN_MEMORY_RUNNER:
        yield Check("Beam engine", State.OK, "none: each step runs Beam in its own process")
        return
    try:
        require_engine(arguments)
    except BrokenInput as error:
        detail, _, advice = str(error).partition("; ")
        yield Check("Beam engine", State.PROBLEM, detail, advice[:1].upper() + advice[1:])
        return
    yield Check("Beam engine", State.OK, f"{loaded.beam.runner}: what it needs answers")
    spans = loaded.data.spans.path if loaded.data.spans else ""
    named = (data_path(loaded) or spans).splitlines()
    paths = [path for path in map(_fixed_part, named) if path and Path(path).exists()]
    yield from check_trial(try_engine(arguments, Path(workdir), paths), package_versions(), workdir)


def _fixed_part(pattern: str) -> str:
    """A path up to what stands for others, `*` or `{SPAN}`; "" for an object store's."""
    if "://" in pattern:
        return ""
    fixed = re.split(r"[*?\[{]", pattern)[0]
    return fixed if fixed == pattern else str(Path(fixed + "_").parent)


def check_trial(trial: Trial, here: Mapping[str, str], workdir: str) -> Iterator[Check]:
    """What a function found that a worker ran.

    Args:
        trial: of it.
        here: package -> its version in this environment.
        workdir: that workers must share.
    """
    if trial.failure:
        advice = "The logs of the engine and of its workers say more; docs/beam.md has what a worker needs."
        yield Check("Beam worker", State.PROBLEM, trial.failure, advice)
        return
    ran = f"ran a function after {trial.seconds:.0f} s"
    apart = [
        f"{package} {trial.versions.get(package) or 'missing'} instead of {version or 'none'}"
        for package, version in here.items()
        if trial.versions.get(package, "") != version
    ]
    if apart:
        advice = "Give workers the environment, or the image, that ingraph runs in here: functions are sent by name."
        yield Check("Beam worker", State.PROBLEM, f"{ran}, with {', '.join(apart)}", advice)
    else:
        yield Check("Beam worker", State.OK, f"{ran}, in an environment of the same versions")
    unseen = [*trial.unseen, *([] if trial.shared else [workdir])]
    if unseen:
        advice = "Put data, --workdir and models on a disk that all machines reach under the same path."
        yield Check("Beam paths", State.PROBLEM, f"a worker does not see {', '.join(unseen)}", advice)
    else:
        yield Check("Beam paths", State.OK, "a worker sees the data, and shares --workdir with this machine")


def load_tiny_model() -> None:
    """Write a SavedModel, load it in a session and have it answer; raises where any of it fails."""
    import numpy as np
    import tensorflow as tf

    from serving.session_model import SessionModel

    module = tf.Module()
    module.double = tf.function(lambda x: {"doubled": 2 * x}, [tf.TensorSpec([None], tf.float32, "x")])
    with tempfile.TemporaryDirectory(prefix="ingraph-doctor-") as folder:
        tf.saved_model.save(module, folder, {"serving_default": module.double})
        model = SessionModel(folder)
        answer = model.run("serving_default", {"x": np.array([1, 2.5], np.float32)})["doubled"]
        model.close()
    if answer.tolist() != [2.0, 5.0]:
        raise RuntimeError(f"a model that doubles 1 and 2.5 answered {answer.tolist()}")


def failures(*steps: str) -> list[str]:
    """Why each of several lines of Python failed, run one after the other in a process of their own; "" if it did not.

    A process of their own, because a library may end it: TensorFlow does on a processor without AVX.
    """
    mark = "-- step done --"
    code = "\n".join(f"{step}\nprint({mark!r}, flush=True)" for step in steps)
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=IMPORT_TIMEOUT)
        output, ended = done.stdout, _how_it_ended(done)
    except subprocess.TimeoutExpired as error:
        output, ended = error.stdout or b"", f"no end after {IMPORT_TIMEOUT} seconds"
    succeeded = output.decode(errors="replace").count(mark)
    return ([""] * succeeded + [ended] + ["not tried"] * len(steps))[: len(steps)]


def _how_it_ended(process: subprocess.CompletedProcess[bytes]) -> str:
    if process.returncode < 0:
        return f"the process was ended by {signal.Signals(-process.returncode).name}"
    said = process.stderr.decode(errors="replace").strip().splitlines()
    return said[-1] if said else f"exit status {process.returncode}"


COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@click.option("--beam", "config", type=click.Path(), metavar="CONFIG", help="Try the Beam engine that CONFIG names.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of CONFIG.")
@click.option("--workdir", help="Of the runs, for --beam: workers write there.  [default: .]")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as one JSON document.")
@click.pass_context
def doctor(context: click.Context, config: str | None, overrides: tuple[str, ...], workdir: str, as_json: bool) -> None:
    """Say whether this machine has what ingraph needs, or with --beam, whether workers have.

    One line per point: Python, glibc, libstdc++, TensorFlow, TFX, kfp, the model loader, GPUs, disk space in the
    current directory, network; and what to do where something is not fine. Takes about 15 seconds.

    With --beam: whether the engine answers, a worker runs a function within three minutes, has the same versions, and
    sees the data and --workdir.

    Exit status: 0 when everything needed is fine (warnings included), 1 when there is a problem, 2 when CONFIG cannot
    be used.
    """

    if config is None and (overrides or workdir is not None):
        raise click.UsageError("--set and --workdir go with --beam CONFIG; without it, nothing looks at them")
    checks = []
    try:
        for check in diagnose(Path.cwd()) if config is None else diagnose_engine(config, overrides, workdir or "."):
            checks.append(check)
            if not as_json:
                state = click.style(f"{check.state:8}", fg=COLOURS[check.state])
                said = check.detail + (f". {check.advice}" if check.advice else "")
                click.echo(f"{state} {check.name:13} {printable(said)}")
    except BrokenInput as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(ExitStatus.BROKEN_INPUT) from None
    fine = all(check.state != State.PROBLEM for check in checks)
    if as_json:
        click.echo(json.dumps({"fine": fine, "checks": [dataclasses.asdict(check) for check in checks]}, indent=2))
    context.exit(0 if fine else 1)


@click.command()
@click.option(
    "--advisories",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What `pip-audit --format json` has written, here or elsewhere.  [default: ask pip-audit, if it is there]",
)
@click.option(
    "--lock",
    "lock_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Requirements with == and hashes.  [default: this project's requirements.lock, where it is]",
)
@click.option("--ignore", "ignored", multiple=True, metavar="ID", help="An advisory that somebody has looked into.")
@click.option(
    "--bill-of-materials",
    "bill",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write what is installed here as CycloneDX 1.6 in JSON.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def audit(
    advisories: Path | None, lock_file: Path | None, ignored: tuple[str, ...], bill: Path | None, as_json: bool
) -> None:
    """Say what is known against the dependencies, locked and installed, and under which licences they are.

    Advisories come from a file, or from pip-audit where it is on the PATH, which asks the network.

    \b
    uvx pip-audit -r requirements.lock --no-deps --disable-pip --format json -o advisories.json
    ingraph audit --advisories advisories.json

    Exit status: 0 nothing is known, 11 an advisory concerns a dependency, 2 there are no advisories to go by, or a
    file cannot be used.
    """
    try:
        lock_file = lock_file or (LOCK if LOCK.is_file() else None)
        locked = read_lock(lock_file) if lock_file is not None else {}
        installed = installed_distributions()
        if bill is not None:
            _write(bill, bill_of_materials(locked, installed.values()))
        known = read_advisories(advisories) if advisories is not None else _ask_pip_audit(lock_file)
        findings = affected(known, locked, installed, ignored)
    except BrokenInput as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(ExitStatus.BROKEN_INPUT) from None
    licences = by_licence(installed.values())
    unknown = licences.pop("", [])
    report = {
        "affected": [
            {
                "name": found.name,
                "version": found.version,
                "where": list(found.where),
                "id": found.advisory.id,
                "aliases": list(found.advisory.aliases),
                "fix_versions": list(found.advisory.fix_versions),
                "description": found.advisory.description,
            }
            for found in findings
        ],
        "without_advisories": sorted({*locked, *installed} - known.looked_at),
        "other_than_locked": {
            name: one.version
            for name, one in installed.items()
            if name in locked and locked[name].version != one.version
        },
        "licences": licences,
        "unknown_licences": unknown,
    }
    if as_json:
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        click.echo(printable("\n".join(_audit_lines(report, len(locked), len(installed)))))
    raise SystemExit(ExitStatus.VULNERABLE if findings else 0)


def _audit_lines(report: dict[str, Any], locked: int, installed: int) -> Iterator[str]:
    yield f"{locked} dependencies are locked, {installed} are installed"
    for found in report["affected"]:
        aliases = f" ({', '.join(found['aliases'])})" if found["aliases"] else ""
        mended = f"mended by {' or '.join(found['fix_versions'])}" if found["fix_versions"] else "no version mends it"
        where = " and ".join(found["where"])
        yield f"affected: {found['name']} {found['version']} ({where}): {found['id']}{aliases}, {mended}"
    if not report["affected"]:
        yield "nothing is known against them"
    for name, version in report["other_than_locked"].items():
        yield f"other than locked: {name} {version}"
    if report["without_advisories"]:
        yield f"nobody has looked at: {', '.join(report['without_advisories'])}"
    yield f"licences: {', '.join(f'{licence} {len(names)}' for licence, names in report['licences'].items())}"
    if report["unknown_licences"]:
        yield f"of unknown licence: {', '.join(report['unknown_licences'])}"


def _ask_pip_audit(lock_file: Path | None) -> Advisories:
    """What pip-audit says of the lock, or of this environment where there is none.

    Raises:
        BrokenInput: it is not there, or has nothing to say.
    """
    program = shutil.which("pip-audit")
    if program is None:
        raise BrokenInput(
            "no advisories: expected --advisories FILE, which `uvx pip-audit -r requirements.lock --no-deps "
            "--disable-pip --format json -o FILE` writes where the network is open, or pip-audit on the PATH"
        )
    of_lock = ["-r", str(lock_file), "--no-deps", "--disable-pip"] if lock_file is not None else ["--path", _packages()]
    command = [program, "--format", "json", "--progress-spinner", "off", *of_lock]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise BrokenInput(f"pip-audit has nothing to say ({said[-1]}): give it the network, or --advisories FILE")
    return parse_advisories(done.stdout, "pip-audit")


def _packages() -> str:
    return sysconfig.get_path("purelib")


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise BrokenInput(f"{file}: the bill of materials cannot be written: {error.strerror}") from error
