"""Unpack Debian's Chromium, and the libraries of it that this machine lacks, under `.venv/browser`.

Run by `make browser`; no root, and nothing of the system changes. apt-get resolves the packages against what is
installed, and checks their signatures.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSER = Path(__file__).resolve().parents[2] / ".venv/browser"
CHROMIUM = BROWSER / "chromium"

_PACKAGES = ("chromium", "fontconfig-config", "fonts-dejavu-core")
_TO_INSTALL = re.compile(r"^Inst (?P<name>\S+) (?:\[\S+\] )?\((?P<version>\S+) ", re.MULTILINE)
_LAUNCHER = """#!/bin/sh
libraries="{root}/usr/lib/x86_64-linux-gnu"
export LD_LIBRARY_PATH="$libraries:$libraries/pulseaudio${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
export FONTCONFIG_FILE="{root}/fonts.conf"
exec "{root}/usr/lib/chromium/chromium" "$@"
"""
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
<include ignore_missing="yes">/etc/fonts/fonts.conf</include>
<dir>{root}/usr/share/fonts</dir>
<cachedir>{root}/cache</cachedir>
</fontconfig>
"""


class InstallError(Exception):
    """What is missing on this machine, and what to use instead."""


def main() -> int:
    if CHROMIUM.exists():
        print(f"the browser is there: {CHROMIUM}")
        return 0
    try:
        _check_machine()
        print("Debian's Chromium: 100 MB to download, 400 MB on disk", flush=True)
        _install()
    except InstallError as error:
        print(f"no browser: {error}", file=sys.stderr)
        return 1
    print(f"done: {CHROMIUM}")
    return 0


def _check_machine() -> None:
    instead = "Install Chromium or Chrome another way, and name it: INGRAPH_CHROMIUM=/path/to/it make test"
    system = platform.freedesktop_os_release()
    if system.get("ID") != "debian":
        raise InstallError(f"{system.get('PRETTY_NAME', 'this system')} has no package of it that unpacks. {instead}")
    if missing := [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]:
        raise InstallError(f"there is no {missing[0]} on the PATH. {instead}")


def _install() -> None:
    shutil.rmtree(BROWSER, ignore_errors=True)
    root = BROWSER / "root"
    root.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="ingraph-browser-") as folder:
        for package in _download(Path(folder)):
            _run(["dpkg", "-x", str(package), str(root)], f"{package.name} could not be unpacked")
    (root / "fonts.conf").write_text(_FONTS.format(root=root), encoding="utf-8")
    launcher = root / "chromium"
    launcher.write_text(_LAUNCHER.format(root=root), encoding="utf-8")
    launcher.chmod(0o755)
    _run([str(launcher), "--version"], "the unpacked Chromium does not start")
    CHROMIUM.symlink_to(launcher)  # last: what is there is complete


def _download(folder: Path) -> list[Path]:
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (folder / name).mkdir(parents=True)
    options = {
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    problem = "Chromium could not be fetched with apt-get; is the package mirror reachable?"
    _run([*apt, "update"], problem)
    plan = _run([*apt, "install", "--simulate", "--no-install-recommends", *_PACKAGES], problem)
    packages = [f"{match['name']}={match['version']}" for match in _TO_INSTALL.finditer(plan)]
    _run([*apt, "download", *packages], problem, folder / "packages")
    return sorted((folder / "packages").glob("*.deb"))


def _run(command: list[str], problem: str, folder: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        detail = (done.stderr or done.stdout).strip().splitlines()[-8:]
        raise InstallError("\n  ".join([problem, *detail]))
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
