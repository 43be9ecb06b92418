"""The DAG file, read and run by Airflow itself in an environment of its own: `make airflow-check`."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.options import ScheduleOptions
from pipeline.schedules.airflow import airflow_dag
from pipeline.schedules.targets import ScheduledCommand
from tests.pipeline.conftest import PROJECT

AIRFLOW = Path(os.environ.get("INGRAPH_AIRFLOW", f"{PROJECT}/.venv/airflow"), "bin/python")

pytestmark = pytest.mark.skipif(
    not AIRFLOW.exists(), reason=f"{AIRFLOW} is not there: Airflow cannot be installed beside TFX; make airflow-check"
)

# Reads every file of a folder once, as each start of Airflow takes seconds.
READ = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowSkipException
from airflow.timetables.base import TimeRestriction

bag = DagBag(dag_folder=sys.argv[1])
found = {"import_errors": bag.import_errors, "dags": {}}
for name, dag in bag.dags.items():
    restriction = TimeRestriction(earliest=dag.start_date, latest=dag.end_date, catchup=True)
    runs, info = [], None
    while len(runs) < 4:
        interval = info.data_interval if info else None
        info = dag.timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)
        if info is None:
            break
        runs.append(info.run_after.isoformat())
    task = dag.get_task("retrain")
    try:
        task.render_template_fields({}, dag.get_template_env())
        outcome = task.execute({})
    except AirflowSkipException:
        outcome = "skipped"
    except Exception as error:
        outcome = type(error).__name__
    found["dags"][name] = {"runs": runs, "catchup": dag.catchup, "max_active_runs": dag.max_active_runs,
                           "tasks": list(dag.task_ids), "outcome": outcome}
print("found:" + json.dumps(found))
"""


def scheduled(name: str, folder: Path, script: str, **options: Any) -> ScheduledCommand:
    given = ScheduleOptions.model_validate({"cron": "30 2 * * mon-fri", "time_zone": "Europe/Berlin", **options})
    return ScheduledCommand(name, given, ("/bin/sh", "-c", script, "{{ 'a b' }}"), str(folder))


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, Any]:
    """What Airflow finds in three DAG files."""
    folder = tmp_path_factory.mktemp("airflow")
    workdir = folder / "it's here"
    workdir.mkdir()
    now = datetime(2026, 3, 26, 12, tzinfo=UTC)
    window = {"start": "2026-10-23", "end": "2026-10-26"}
    made = {
        "plain": scheduled("plain", workdir, 'echo "$0" in "$(pwd)"'),
        "idle": scheduled("idle", workdir, "exit 8", overlap="queue", window=window),
        "broken": scheduled("broken", workdir, "exit 3", catch_up="all"),
    }
    dags = folder / "dags"
    dags.mkdir()
    for name, one in made.items():
        (dags / f"{name}.py").write_text(airflow_dag(one, now), encoding="utf-8")
    asked = subprocess.run(
        [AIRFLOW, "-W", "error::DeprecationWarning:dags", "-c", READ, dags],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(folder), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
    )
    (line,) = [line for line in asked.stdout.splitlines() if line.startswith("found:")] or [asked.stderr]
    content: dict[str, Any] = json.loads(line.removeprefix("found:"))
    return {**content, "workdir": str(workdir)}


def test_airflow_reads_every_file_without_an_error(found):
    assert found["import_errors"] == {}
    assert sorted(found["dags"]) == ["ingraph-broken", "ingraph-idle", "ingraph-plain"]
    assert all(dag["tasks"] == ["retrain"] for dag in found["dags"].values())


def test_runs_are_due_at_the_times_of_the_schedule_and_within_its_window(found):
    # The clocks go forward on Sunday 29 March 2026, and back on Sunday 25 October.
    assert found["dags"]["ingraph-plain"]["runs"] == [
        "2026-03-27T01:30:00+00:00",
        "2026-03-30T00:30:00+00:00",
        "2026-03-31T00:30:00+00:00",
        "2026-04-01T00:30:00+00:00",
    ]
    assert found["dags"]["ingraph-idle"]["runs"] == ["2026-10-23T00:30:00+00:00", "2026-10-26T01:30:00+00:00"]


def test_overlap_and_catch_up_become_airflow_s(found):
    kept = {name: (dag["catchup"], dag["max_active_runs"]) for name, dag in found["dags"].items()}
    # With two, the second says that another run is under way, and is skipped.
    assert kept == {"ingraph-plain": (False, 2), "ingraph-idle": (False, 1), "ingraph-broken": (True, 1)}


def test_the_task_runs_the_command_in_its_folder_and_is_skipped_where_there_are_no_new_data(found):
    outcomes = {name: dag["outcome"] for name, dag in found["dags"].items()}
    assert outcomes == {
        "ingraph-plain": "{{ 'a b' }} in " + found["workdir"],
        "ingraph-idle": "skipped",
        "ingraph-broken": "AirflowException",
    }
