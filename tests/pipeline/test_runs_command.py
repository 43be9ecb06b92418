"""`ingraph runs` on the finished demo."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.errors import BrokenInput
from pipeline.commands.runs import runs
from pipeline.history import find_run
from tests.pipeline.conftest import PROJECT, HeartRun


@pytest.fixture(scope="module")
def first_id(heart_run: HeartRun) -> str:
    return re.search(r"heart: run (\S+)", heart_run.finished.output).group(1)


def asked(heart_run: HeartRun, *arguments: str) -> str:
    done = CliRunner().invoke(runs, [*arguments, "--workdir", str(heart_run.workdir)])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_is_listed_with_its_verdict_version_metrics_and_report(heart_run: HeartRun, first_id):
    (line,) = [line for line in asked(heart_run, "list").splitlines() if first_id in line]
    name, id_, verdict, version, *metrics = line.split()
    assert (name, id_, verdict, version) == ("heart", first_id, "published", "1")
    provenance = json.loads((heart_run.base_path / "1/assets.extra/provenance.json").read_text())
    assert f"auc {provenance['metrics']['auc']:.4f}" in " ".join(metrics)
    assert line.rstrip().endswith(f"reports/{first_id}.html")


def test_the_same_as_json_for_programs(heart_run: HeartRun, first_id):
    (found,) = [run for run in json.loads(asked(heart_run, "list", "heart", "--json")) if run["run_id"] == first_id]
    assert (found["verdict"], found["version"], found["reason"]) == ("published", "1", "published as version 1")
    assert {"accuracy", "auc", "cross_entropy"} <= set(found["metrics"])
    assert {step["name"] for step in found["steps"]} >= {"CsvExampleGen", "Transform", "ServingPusher"}


def test_a_pipeline_that_never_ran_has_no_runs(heart_run: HeartRun):
    assert asked(heart_run, "list", "livers").startswith("No runs of livers in ")


def test_one_run_is_shown_with_its_steps(heart_run: HeartRun, first_id):
    said = asked(heart_run, "show", first_id)
    assert re.search(r"Transform +\d+\.\d s", said)
    assert "verdict    published: published as version 1" in said
    assert f"reports/{first_id}.html" in said and f"logs/{first_id}.log" in said


@pytest.fixture
def demo_runs(heart_run: HeartRun, tmp_path) -> Path:
    """A folder of runs that holds those of the demo."""
    (tmp_path / "heart").symlink_to(heart_run.workdir / "runs/heart")
    return tmp_path


@pytest.mark.parametrize("wanted", ["heart/{id}", "{id}", "{beginning}"])
def test_a_run_is_found_by_its_id_or_the_beginning_of_it(demo_runs, first_id, wanted):
    # All but the last three digits, of microseconds: no other run began in the same millisecond.
    named = wanted.format(id=first_id, beginning=first_id[:-3])
    assert find_run(demo_runs, named) == (demo_runs / "heart", first_id)


@pytest.mark.parametrize("wanted", ["heart", None])
def test_without_an_id_the_newest_run_is_found(demo_runs, heart_run: HeartRun, wanted):
    newest = max(log.stem for log in (heart_run.workdir / "runs/heart/logs").iterdir())
    assert find_run(demo_runs, wanted) == (demo_runs / "heart", newest)


def test_where_nothing_ran_it_says_how_to_begin(tmp_path):
    with pytest.raises(BrokenInput, match="no pipeline has run here; start one with `ingraph run CONFIG`"):
        find_run(tmp_path, None)


def test_listing_loads_no_tensorflow(heart_run: HeartRun):
    script = (
        "import sys\n"
        "from pipeline.commands.runs import runs\n"
        f"runs(['list', '--workdir', {str(heart_run.workdir)!r}], standalone_mode=False)\n"
        "print(sorted({'tensorflow', 'tfx', 'tensorflow_model_analysis'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
