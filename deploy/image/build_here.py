"""Do what the Dockerfile does in a folder of this machine, where no Docker engine runs.

    python deploy/image/build_here.py FOLDER

COPY and RUN lines of its first stage are done as the current user, with FOLDER in the place of WORKDIR; FROM, USER and
the making of the user are not. Ends with a run of ENTRYPOINT, which must answer with its usage.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = ROOT / "deploy/image/Dockerfile"
# Of the system's user database, not of the project.
_SKIPPED = "useradd"


def instructions(text: str) -> list[tuple[str, str]]:
    """(keyword, rest) of each instruction, continued lines joined."""
    joined = text.replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(keyword, rest) for keyword, _, rest in (line.partition(" ") for line in lines)]


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    environment = dict(os.environ)
    for keyword, rest in instructions(DOCKERFILE.read_text(encoding="utf-8")):
        if keyword == "FROM" and "AS cpu" not in rest:
            break
        if keyword == "COPY":
            _copy([word for word in shlex.split(rest) if not word.startswith("--")], folder)
        elif keyword == "RUN" and _SKIPPED not in rest:
            print(f"RUN {' '.join(rest.split())}", flush=True)
            command = rest.replace("python pipeline", f"{shlex.quote(sys.executable)} pipeline")
            subprocess.run(["/bin/sh", "-c", command], cwd=folder, env=environment, check=True)
        elif keyword == "ENV":
            settings = dict(word.split("=", 1) for word in shlex.split(rest))
            paths = {name: value.replace("/ingraph", str(folder)) for name, value in settings.items()}
            environment |= {name: value.replace("$PATH", environment["PATH"]) for name, value in paths.items()}
        elif keyword == "ENTRYPOINT":
            subprocess.run([*json.loads(rest), "--help"], cwd=folder, env=environment, check=False)


def _copy(words: list[str], folder: Path) -> None:
    *sources, target = words
    for source in sources:
        destination = folder / target / Path(source).name if target.endswith("/") else folder / target
        destination.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, destination, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / source, destination)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
