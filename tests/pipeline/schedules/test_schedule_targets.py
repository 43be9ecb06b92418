"""What cron and systemd are given, and the command that gives it."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import pytest
from click.testing import CliRunner, Result
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from components.errors import BrokenInput
from pipeline.cli import main
from pipeline.config import load_config
from pipeline.exit_status import ExitStatus
from pipeline.options import ScheduleOptions
from pipeline.schedules.airflow import airflow_dag
from pipeline.schedules.daemon import next_due
from pipeline.schedules.targets import ScheduledCommand, unsupported_options
from pipeline.schedules.units import crontab_block, replace_block, systemd_units
from tests.pipeline.conftest import PROJECT

CONFIG = """
name: sales
task: tabular
data: {spans: {path: "data/{SPAN}.csv", window: 3}}
preprocessing: {label: {column: bought}}
evaluation: {at_least: {auc: 0.7}}
"""
SCHEDULE = "schedule: {cron: '0 3 * * mon-fri'}\n"

WITH_WINDOW = {"catch_up": "latest", "window": {"start": "2026-01-01", "end": "2027-01-01"}}

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")


def verified(paths: list[Path], folder: Path) -> tuple[int, str]:
    """The status of systemd-analyze, and what it says of units."""
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--user", *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
    )
    return checked.returncode, checked.stderr


def scheduled(folder: Path, *command: str, **options: object) -> ScheduledCommand:
    given = ScheduleOptions.model_validate({"cron": "0 3 * * *", **options})
    return ScheduledCommand("sales", given, command or ("/bin/echo", "retrain", "sales.yaml"), str(folder))


def cron_line(text: str) -> tuple[str, str]:
    """The expression and what cron hands to the shell, of the only job in a crontab."""
    (line,) = [line for line in text.splitlines() if line and not re.match(r"#|\w+=", line)]
    *fields, command = line.split(maxsplit=5)
    return " ".join(fields), re.sub(r"\\%", "%", command)


@pytest.mark.parametrize("cron", ["0 3 * * mon-fri", "*/20 1-5,23 * jan,jul 7", "30 6 1,15 * fri"])
def test_a_crontab_line_has_the_times_of_the_schedule(cron, tmp_path):
    made = scheduled(tmp_path, cron=cron)
    expression, _ = cron_line(crontab_block(made))
    times = CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))
    after = datetime(2026, 1, 1, tzinfo=UTC)
    for _ in range(20):
        after = next_due(made.options, after)
        assert after == next(times)


def test_the_shell_runs_what_the_crontab_says_in_the_folder_whatever_its_name(tmp_path):
    folder = tmp_path / "100 % new's"
    folder.mkdir()
    block = crontab_block(scheduled(folder, "/bin/sh", "-c", 'pwd > ran; echo "$@" >> ran', "x", "a b", "50 %"))
    assert "CRON_TZ=UTC" in block.splitlines()
    assert not re.search(r"(?<!\\)%", block)  # cron ends the command at a bare one
    _, command = cron_line(block)
    subprocess.run(["/bin/sh", "-c", command], check=True, cwd="/")
    assert (folder / "ran").read_text(encoding="utf-8") == f"{folder}\na b 50 %\n"


@pytest.mark.parametrize(
    ("window", "runs"),
    [
        ({"start": "2020-01-01"}, True),
        ({"end": "2999-01-01"}, True),
        ({"start": "2999-01-01"}, False),
        ({"end": "2020-01-01"}, False),
        ({"start": "2020-01-01", "end": "2020-01-02"}, False),
    ],
)
def test_outside_of_the_window_cron_and_systemd_start_nothing(window, runs, tmp_path):
    made = scheduled(tmp_path, "/bin/sh", "-c", "echo ran > ran", window=window)
    _, command = cron_line(crontab_block(made))
    subprocess.run(["/bin/sh", "-c", command], check=False)
    assert (tmp_path / "ran").exists() is runs
    conditions = re.findall(r"ExecCondition=/bin/sh -c '(.*)'", systemd_units(made)["ingraph-sales.service"])
    assert len(conditions) == len(window)
    passed = [subprocess.run(["/bin/sh", "-c", re.sub(r"([%$])\1", r"\1", line)], check=False) for line in conditions]
    assert all(process.returncode == 0 for process in passed) is runs


def test_queued_runs_of_cron_wait_for_one_another(tmp_path):
    (tmp_path / "sales.yaml").touch()
    config = str(tmp_path / "sales.yaml")
    script = tmp_path / "retrain"
    script.write_text("#!/bin/sh\necho begins >> log; sleep 0.5; echo ends >> log\n", encoding="utf-8")
    script.chmod(0o755)
    made = scheduled(tmp_path, str(script), "retrain", config, overlap="queue")
    _, command = cron_line(crontab_block(made))
    both = [subprocess.Popen(["/bin/sh", "-c", command]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "log").read_text(encoding="utf-8").split() == ["begins", "ends"] * 2


def test_only_the_marked_lines_of_a_crontab_change(tmp_path):
    before = "MAILTO=me\n5 4 * * * backup\n"
    other = crontab_block(ScheduledCommand("sales-eu", ScheduleOptions(cron="1 1 * * *"), ("/bin/x",), "/"))
    first = crontab_block(scheduled(tmp_path))
    second = crontab_block(scheduled(tmp_path, cron="0 4 * * *"))
    both = replace_block(replace_block(before, "ingraph-sales", first), "ingraph-sales-eu", other)
    assert both == before + first + other
    assert replace_block(both, "ingraph-sales", second) == before + other + second
    assert replace_block(replace_block(both, "ingraph-sales", ""), "ingraph-sales-eu", "") == before
    assert replace_block("no newline", "ingraph-sales", first) == f"no newline\n{first}"
    for mark in ("# begin ingraph-sales: x", "# end ingraph-sales"):
        with pytest.raises(BrokenInput, match="without its counterpart; mend it with `crontab -e`"):
            replace_block(f"{before}{mark}\n", "ingraph-sales", first)


def cron_command(line: str) -> str:
    """What cron hands to the shell of a line, as its do_command.c reads it."""
    handed, escaped = "", False
    for character in line.split(maxsplit=5)[5]:
        if escaped and character == "%":
            handed = handed[:-1]
        elif character == "%":
            break
        handed += character
        escaped = character == "\\" and not escaped
    return handed


def systemd_value(service: str, key: str) -> str:
    """A value of a unit, with its specifiers expanded, as systemd.syntax(7) and systemd.unit(5) say."""
    (line,) = [line for line in service.split("\n") if line.startswith(f"{key}=")]
    assert not line.endswith("\\")
    value = line.partition("=")[2].strip()
    assert not re.sub("%%", "", value).count("%")
    return value.replace("%%", "%")


def systemd_words(value: str) -> list[str]:
    """The arguments of ExecStart=, each in double quotes; a dollar stands twice, but in the program's path."""
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r'"((?:[^"\\]|\\.)*)"', value)]
    assert not any("$" in word.replace("$$", "") for word in words[1:])
    return [words[0], *(word.replace("$$", "$") for word in words[1:])]


def airflow_values(text: str) -> tuple[str, str]:
    """The command and the folder, as Jinja gives them to Airflow's BashOperator."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    (operator,) = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "BashOperator"]
    given = {keyword.arg: keyword.value for keyword in operator.keywords}
    templates = [ast.literal_eval(given[name]) for name in ("bash_command", "cwd")]
    assert not any(template.endswith((".sh", ".bash")) for template in templates)  # Airflow would read these files
    command, folder = (jinja2.Environment().from_string(template).render() for template in templates)
    return command, folder


HOSTILE = st.text(
    st.sampled_from("ab /\\\"'%${}#;&|`~-=\t\n\r\v\x85\u2028é😀") | st.characters(), min_size=1, max_size=12
)
PIECES = st.sampled_from(
    [
        "{{ 7 * 7 }}",
        "{% endraw %}",
        "{# a #}",
        "%s",
        "\\%",
        "$HOME",
        "$$",
        "$(id)",
        "\n* * * * * id",
        ".sh",
        "' '",
        "%%",
    ]
)
NAMES = st.lists(HOSTILE | PIECES, min_size=1, max_size=4).map("".join)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(folder=NAMES, path=NAMES, override=NAMES)
@example("a", "b\n* * * * * root touch /tmp/x", "c")
@example("{{ 7 * 7 }}", "{% endraw %}{{ 7 * 7 }}", "x.sh")
@example("a\\%b", "\\%", "c\\")
@example("$HOME", "$$", "%h")
@example("ends with a backslash\\", "b", "c")
@example("a", "{", "b")
@example("dags.sh", "a", "b")
def test_what_names_and_paths_say_reaches_the_command_and_nothing_else(folder, path, override):
    command, workdir = ("/bin/sh", "retrain", f"/{path}", "--set", override), f"/{folder}"
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in folder + path + override):
        with pytest.raises(BrokenInput, match="has the control character"):
            ScheduledCommand("sales", ScheduleOptions(cron="0 3 * * *"), command, workdir)
        return
    made = ScheduledCommand("sales", ScheduleOptions(cron="0 3 * * *"), command, workdir)

    begin, zone, line, end = crontab_block(made).rstrip("\n").split("\n")
    assert (begin[:8], zone[:8], end) == ("# begin ", "CRON_TZ=", "# end ingraph-sales")
    assert next(CronSim(" ".join(line.split()[:5]), NOW)) == datetime(2026, 1, 1, 3, tzinfo=UTC)
    assert shlex.split(cron_command(line)) == ["cd", workdir, "&&", *command]

    assert airflow_values(airflow_dag(made, NOW)) == (shlex.join(command), workdir)

    if workdir.strip() != workdir or workdir.endswith("\\"):
        with pytest.raises(BrokenInput, match="which systemd does not read as its name"):
            systemd_units(made)
        return
    service = systemd_units(made)["ingraph-sales.service"]
    assert systemd_value(service, "WorkingDirectory") == workdir
    assert systemd_words(systemd_value(service, "ExecStart")) == list(command)


@needs_systemd
def test_systemd_accepts_units_whatever_their_names_and_paths_hold(tmp_path):
    names = ["100 % new's", "$HOME $$ ${x}", 'a"b', "a\\ b", "{{ 7 }}", "; # é 😀", "-a @b", "%h %% \\x41"]
    paths = []
    for number, name in enumerate(names):
        made = ScheduledCommand(
            f"sales{number}", ScheduleOptions(cron="0 3 * * *"), ("/bin/sh", "-c", name, ""), f"{tmp_path}/{name}"
        )
        for file, content in systemd_units(made).items():
            paths.append(tmp_path / file)
            paths[-1].write_text(content, encoding="utf-8")
    assert verified(paths, tmp_path) == (0, "")


@needs_systemd
@pytest.mark.parametrize("options", [{}, WITH_WINDOW])
def test_systemd_accepts_the_units(options, tmp_path):
    folder = tmp_path / "100 % new's"
    folder.mkdir()
    units = systemd_units(scheduled(folder, "/bin/sh", "-c", 'echo "$HOME" 50 %', cron="0 3 13 * fri", **options))
    paths = []
    for name, content in units.items():
        paths.append(tmp_path / name)
        paths[-1].write_text(content, encoding="utf-8")
    assert verified(paths, tmp_path) == (0, "")
    assert f"Persistent={'true' if options else 'false'}" in units["ingraph-sales.timer"]
    assert f"SuccessExitStatus={ExitStatus.NO_NEW_DATA:d} {ExitStatus.UNDER_WAY:d}" in units["ingraph-sales.service"]
    assert 'ExecStart="/bin/sh" "-c" "echo \\"$$HOME\\" 50 %%"' in units["ingraph-sales.service"]


def calendar_times(line: str, count: int) -> list[datetime]:
    """The next times of a calendar event, as systemd says them."""
    asked = subprocess.run(
        ["systemd-analyze", "calendar", f"--iterations={count}", "--base-time=2026-01-01 00:00:00 UTC", line],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
    )
    found = re.findall(r"(?:Next elapse|Iter\. #\d+|\(in UTC\)): \w{3} (\S+ \S+) UTC", asked.stdout)
    return sorted({datetime.fromisoformat(time).replace(tzinfo=UTC) for time in found})


@needs_systemd
@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("0 3 * * mon-fri", "Europe/Berlin"),
        ("*/20 1-5,23 * jan,jul 7", "America/New_York"),
        ("59 23 31 */2 *", "UTC"),
        ("0 12 29 2 *", "UTC"),
        ("15 6 1,15 * fri,sat", "Asia/Kolkata"),
        ("* * * * *", "UTC"),
    ],
)
def test_timers_elapse_when_runs_are_due(cron, zone, tmp_path):
    made = scheduled(tmp_path, cron=cron, time_zone=zone)
    lines = re.findall(r"OnCalendar=(.*)", systemd_units(made)["ingraph-sales.timer"])
    times = sorted({time for line in lines for time in calendar_times(line, 30)})[:30]
    after = datetime(2026, 1, 1, tzinfo=UTC)
    expected = [after := next_due(made.options, after) for _ in times]
    assert times == expected and len(times) == 30


@pytest.mark.parametrize(
    ("target", "options", "sentence"),
    [
        ("crontab", {"catch_up": "latest"}, "cron makes up for no missed run"),
        ("crontab", {"time_zone": "Asia/Tokyo"}, "only a cron that knows CRON_TZ"),
        ("systemd", {"overlap": "queue"}, "systemd keeps no run waiting"),
        ("systemd", {"catch_up": "all"}, "systemd makes up for the latest missed run only"),
        ("kubeflow", {"catch_up": "all"}, "starts a run that fell due while another ran when that one has ended"),
        ("kubeflow", {"catch_up": "none", "overlap": "queue"}, "makes up for the latest missed run always"),
        ("vertex", {"catch_up": "all"}, "only where a paused schedule is resumed so"),
        ("airflow", {"catch_up": "none"}, "Airflow makes up for the latest missed run always"),
        ("airflow", {"catch_up": "all"}, "keeps them waiting instead"),
    ],
)
def test_what_a_target_does_otherwise_is_said(target, options, sentence):
    (said,) = unsupported_options(ScheduleOptions.model_validate({"cron": "0 3 * * *", **options}), target)
    assert sentence in said


@pytest.mark.parametrize("overlap", ["skip", "queue"])
@pytest.mark.parametrize("catch_up", ["none", "latest", "all"])
def test_the_daemon_does_all_that_a_schedule_says(overlap, catch_up):
    options = ScheduleOptions(cron="0 3 * * *", time_zone="Asia/Tokyo", overlap=overlap, catch_up=catch_up)
    assert unsupported_options(options, "local") == []


@pytest.fixture
def config(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sales.yaml").write_text(CONFIG + SCHEDULE, encoding="utf-8")
    return "sales.yaml"


def schedule(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["schedule", *arguments])


def test_units_are_written_shown_and_removed(config, tmp_path):
    folder = tmp_path / "units"
    shown = schedule("show", config, "--target", "systemd", "--set", "trainer.epochs=3")
    assert shown.exit_code == 0
    assert 'ingraph" "retrain" "' + str(tmp_path / "sales.yaml") + '" "--set" "trainer.epochs=3"' in shown.stdout
    applied = schedule("apply", config, "--target", "systemd", "--folder", str(folder))
    assert "systemctl --user enable ingraph-sales.timer" in applied.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["ingraph-sales.service", "ingraph-sales.timer"]
    assert f"WorkingDirectory={tmp_path}\n" in (folder / "ingraph-sales.service").read_text(encoding="utf-8")
    removed = schedule("remove", config, "--target", "systemd", "--folder", str(folder))
    assert removed.exit_code == 0 and list(folder.iterdir()) == []
    assert "there is no" in schedule("remove", config, "--target", "systemd", "--folder", str(folder)).stdout


def test_the_crontab_is_edited_by_crontab_1(config, tmp_path, monkeypatch):
    """Its stand-in keeps the crontab in a file, and answers as cron's own where there is none."""
    programs = tmp_path / "bin"
    programs.mkdir()
    table = tmp_path / "table"
    stand_in = programs / "crontab"
    stand_in.write_text(
        f'#!/bin/sh\nif [ "$1" = - ]; then cat > {table}; elif [ -f {table} ]; then cat {table}; else '
        "echo 'no crontab for me' >&2; exit 1; fi\n",
        encoding="utf-8",
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert schedule("apply", config, "--target", "crontab").exit_code == 0
    assert cron_line(table.read_text(encoding="utf-8"))[0] == "0 3 * * 1-5"
    table.write_text("1 2 * * * mine\n" + table.read_text(encoding="utf-8"), encoding="utf-8")
    schedule("apply", config, "--target", "crontab", "--set", "schedule.cron=0 4 * * *")
    assert table.read_text(encoding="utf-8").count("begin ingraph-sales") == 1
    assert "\n0 4 * * * cd " in table.read_text(encoding="utf-8")
    schedule("remove", config, "--target", "crontab")
    assert table.read_text(encoding="utf-8") == "1 2 * * * mine\n"


def test_without_crontab_1_it_is_said_what_else_there_is(config, monkeypatch):
    monkeypatch.setenv("PATH", "")
    failed = schedule("apply", config, "--target", "crontab")
    assert failed.exit_code == ExitStatus.BROKEN_INPUT
    assert "there is no crontab(1) on this machine: install cron, or choose --target systemd" in failed.stderr


def test_the_next_runs_are_told_in_the_zone_of_the_schedule(config):
    shown = schedule("show", config, "--target", "local", "--set", "schedule.time_zone=Asia/Tokyo")
    assert shown.stdout == "ingraph schedule run sales.yaml\n"
    assert len(re.findall(r"(Mon|Tue|Wed|Thu|Fri) \S+ 03:00 JST", shown.stderr)) == 3
    closed = schedule("show", config, "--target", "local", "--set", "schedule.window.end=2020-01-01")
    assert "no run is due any more" in closed.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "schedule.cron=0 3 * *"], "sales.yaml: schedule.cron: expected five fields"),
        (["--set", "schedule.time_zone=Mars"], "sales.yaml: schedule.time_zone: expected the IANA name"),
        (["--set", "schedule.crn=x"], "unknown key 'schedule.crn'; did you mean 'cron'?"),
        (["--set", "schedule=null"], "sales.yaml: schedule: "),
        (["--set", "schedule={}"], "sales.yaml: schedule.cron is missing"),
        (["--set", "schedule={catch_up: all}"], "sales.yaml: schedule: cron is missing"),
    ],
)
def test_a_schedule_that_cannot_be_used_is_named(config, arguments, sentence):
    failed = schedule("show", config, "--target", "local", *arguments)
    assert failed.exit_code == ExitStatus.BROKEN_INPUT
    assert sentence in failed.stderr


@pytest.mark.parametrize("command", [("show", "--target", "systemd"), ("run",)])
def test_data_that_do_not_come_in_spans_are_refused_before_a_run_is(command, config):
    name, *target = command
    failed = schedule(name, config, *target, "--set", "data={path: sales.csv}")
    assert failed.exit_code == ExitStatus.BROKEN_INPUT
    assert "sales.yaml: data.spans is missing" in failed.stderr


def test_the_example_of_the_documentation_is_a_config(tmp_path):
    page = Path(PROJECT, "docs/schedules.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "sales.yaml").write_text(example, encoding="utf-8")
    options = load_config(str(tmp_path / "sales.yaml")).schedule
    due = next_due(options, datetime(2026, 12, 30, tzinfo=UTC))
    assert due == datetime(2027, 1, 1, 4, 30, tzinfo=UTC)  # a Friday, and winter
    assert next_due(options, datetime(2027, 12, 31, 12, tzinfo=UTC)) is None


def test_nothing_is_handed_over_for_the_daemon_and_airflow_needs_its_folder(config):
    assert (
        "`ingraph schedule run sales.yaml` keeps the schedule" in schedule("apply", config, "--target", "local").stderr
    )
    missing = schedule("apply", config, "--target", "airflow")
    assert missing.exit_code == ExitStatus.BROKEN_INPUT
    assert "--folder is missing: Airflow's dags folder" in missing.stderr
