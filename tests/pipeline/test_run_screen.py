"""What a run prints."""

from __future__ import annotations

import io
import shlex

from pipeline.screen import RunScreen


def test_the_commands_to_type_next_survive_a_shell_when_a_path_has_a_space() -> None:
    printed = io.StringIO()
    RunScreen(printed, None).what_next("digits", "/my models/digits", ["/my [red] photos/0.png"])
    commands = [shlex.split(line) for line in printed.getvalue().splitlines() if line.startswith("  ingraph")]
    assert commands == [
        ["ingraph", "serve", "--model", "digits=/my models/digits"],
        ["ingraph", "predict", "digits", "/my [red] photos/0.png"],
        ["ingraph", "models", "list", "/my models/digits"],
    ]
