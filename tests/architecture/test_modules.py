"""A module is a concept: the rules that hold the house together, and that each of them finds what breaks it."""

import statistics
import subprocess
from pathlib import Path

import pytest

from tests.architecture import rules

ROOT = Path(__file__).parents[2]
RULES = (
    rules.crowded_folders,
    rules.long_modules,
    rules.helpers_apart,
    rules.import_circles,
    rules.unexported_imports,
    rules.missing_exports,
    rules.repeated_names,
    rules.task_questions,
)
LONG = "\n".join(f"name_{number} = {number}" for number in range(60)) + "\n"


@pytest.fixture(scope="module")
def modules():
    return rules.read_modules(ROOT)


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.check_output(["git", "ls-files", "-z", pattern], cwd=ROOT, text=True)
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(modules, rule):
    assert rule(modules) == []


def test_files_are_as_many_and_as_long_as_concepts_are():
    sources = [path for path in tracked("*.py") if not path.is_relative_to(ROOT / "tests")]
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in sources if path.name != "__init__.py"]
    assert len(sources) <= 250
    assert len(tracked("tests/*.py")) <= 115
    assert statistics.median(lengths) >= 100
    assert [path for path in tracked("*.py") if len(path.read_text(encoding="utf-8").splitlines()) > 600] == []


def broken(folder: Path, sources: dict[str, str]) -> dict[str, rules.Module]:
    """The modules of a small project, each package of which has an `__init__`."""
    for name, source in sources.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    for path in list(folder.rglob("*.py")):
        for parent in path.parents:
            if parent == folder:
                break
            (parent / "__init__.py").touch()
    return rules.read_modules(folder)


def test_a_sixteenth_module_is_one_too_many(tmp_path):
    sources = {f"serving/m{number}.py": "" for number in range(16)}
    assert rules.crowded_folders(broken(tmp_path, sources)) == ["serving: 16 modules"]
    (tmp_path / "serving/m0.py").unlink()
    assert rules.crowded_folders(rules.read_modules(tmp_path)) == []


def test_a_module_of_more_than_600_lines_is_found(tmp_path):
    modules = broken(tmp_path, {"serving/long.py": "x = 1\n" * 601, "serving/fits.py": "x = 1\n" * 600})
    assert rules.long_modules(modules) == ["serving/long.py: 601 lines"]


def test_a_small_helper_with_one_user_in_its_folder_belongs_into_it(tmp_path):
    sources = {
        "serving/helper.py": '"""What it does."""\n\n\ndef helper(): ...\n',
        "serving/user.py": "from serving.helper import helper\n" + LONG,
        "serving/large.py": LONG,
        "serving/errors.py": "class Failed(Exception): ...\n",
        "serving/other.py": "from serving.large import name_1\nfrom serving.errors import Failed\n" + LONG,
        "pipeline/elsewhere.py": "def far(): ...\n",
        "pipeline/commands/far.py": "from pipeline.elsewhere import far\n" + LONG,
    }
    modules = broken(tmp_path, sources)
    assert rules.helpers_apart(modules) == ["serving/helper.py: 1 lines, only for serving.user"]


def test_a_circle_is_found_also_through_an_import_within_a_function(tmp_path):
    sources = {
        "serving/a.py": "from serving.b import b\n",
        "serving/b.py": "def b():\n    from serving import c\n",
        "serving/c.py": "import serving.a\n",
        "serving/d.py": "from serving.a import a\n",
        "serving/e.py": "",
    }
    assert rules.import_circles(broken(tmp_path, sources)) == ["serving.a", "serving.b", "serving.c"]


def test_what_is_not_in_all_is_not_for_others(tmp_path):
    sources = {
        "serving/client/__init__.py": '__all__ = ["rest"]\n',
        "serving/__init__.py": '__all__ = ["client"]\n',
        "serving/client/rest.py": "from serving.client.wire import body\n",
        "serving/client/wire.py": "",
        "pipeline/good.py": "from serving.client.rest import RestClient\n",
        "pipeline/bad.py": "from serving.client import wire\n",
    }
    assert rules.unexported_imports(broken(tmp_path, sources)) == [
        "pipeline/bad.py: wire is not in serving.client.__all__"
    ]


def test_a_name_in_all_must_be_there(tmp_path):
    sources = {
        "serving/__init__.py": '__all__ = ["client", "gone", "made"]\n\nmade = 1\n',
        "serving/client.py": "",
    }
    assert rules.missing_exports(broken(tmp_path, sources)) == ["serving/__init__.py: gone"]


def test_one_name_for_two_modules_is_found_unless_they_share_it_on_purpose(tmp_path):
    sources = {
        "serving/drift.py": "",
        "components/drift.py": "",
        "serving/errors.py": "",
        "components/errors.py": "",
        "pipeline/run.py": "",
        "pipeline/commands/run.py": "",
    }
    assert rules.repeated_names(broken(tmp_path, sources)) == ["components/drift.py and serving/drift.py"]


@pytest.mark.parametrize(
    "question",
    [
        'config.task == "image"',
        '"image" != task',
        'task in ("text", "image")',
        "isinstance(options, ImageOptions)",
        "isinstance(options, TextOptions | ImageOptions)",
    ],
)
def test_who_asks_for_the_task_is_found(tmp_path, question):
    modules = broken(tmp_path, {"pipeline/dag.py": f"chosen = {question}\n", "pipeline/tasks.py": f"x = {question}\n"})
    (found,) = rules.task_questions(modules)
    assert found.startswith("pipeline/dag.py:1: ")


def test_tasks_that_are_no_tasks_of_a_config_are_left_alone(tmp_path):
    modules = broken(tmp_path, {"pipeline/a.py": "[name for name, task in tasks if name not in seen]\n"})
    assert rules.task_questions(modules) == []
