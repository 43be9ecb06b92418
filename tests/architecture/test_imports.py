"""The rules that keep the parts apart, read off the source of every tracked file."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
# Imports go one way: a package may import itself and those of a lower layer.
LAYERS = {"serving": 0, "transform": 1, "trainers": 2, "components": 3, "pipeline": 4}
TFX = {"tfx", "tfx_bsl", "ml_metadata", "apache_beam", "tensorflow_data_validation", "tensorflow_model_analysis", "kfp"}
TENSORFLOW = {"tensorflow", "keras", "tensorflow_serving", "tensorflow_transform", "tfx"}
MEBIBYTE = 2**20


def tracked_files():
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    return [path for path in (ROOT / name for name in listed.split("\0") if name) if path.is_file()]


def tracked_modules(package=""):
    return [path for path in tracked_files() if path.suffix == ".py" and path.is_relative_to(ROOT / package)]


def imported_names(source):
    """The dotted names that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def imports_of(paths):
    return [
        (str(path.relative_to(ROOT)), name)
        for path in paths
        for name in imported_names(path.read_text(encoding="utf-8"))
    ]


def root_of(dotted_name):
    return dotted_name.split(".")[0]


def uses_keras_through_tensorflow(source):
    attributes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute))
    through_attribute = any(
        node.attr == "keras" and isinstance(node.value, ast.Name) and node.value.id in {"tf", "tensorflow"}
        for node in attributes
    )
    return through_attribute or any(name.startswith("tensorflow.keras") for name in imported_names(source))


def registry_hosts():
    """The hosts that the package clients of this machine talk to, asked from them."""
    from pip._internal.models.index import PyPI

    hosts = {PyPI.netloc, PyPI.file_storage_domain}
    settings = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    hosts.update(urlsplit(address).netloc for address in re.findall(r"https?://[^'\s]+", settings.stdout))
    return sorted(host for host in hosts if host)


@pytest.mark.parametrize("package", LAYERS)
def test_a_package_imports_no_package_above_it(package):
    upwards = [
        (path, name)
        for path, name in imports_of(tracked_modules(package))
        if LAYERS.get(root_of(name), -1) > LAYERS[package]
    ]
    assert upwards == []


def test_the_product_imports_nothing_from_its_tests_and_benchmarks():
    modules = [path for package in LAYERS for path in tracked_modules(package)]
    assert [found for found in imports_of(modules) if root_of(found[1]) in {"tests", "benchmarks"}] == []


def test_serving_imports_no_tfx():
    assert [found for found in imports_of(tracked_modules("serving")) if root_of(found[1]) in TFX] == []


def test_the_client_brings_no_tensorflow_in():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in tracked_modules("serving/client")
    ]
    assert "serving.client" in modules
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True))
    assert "serving" in loaded
    assert TENSORFLOW.intersection(loaded) == set()


def test_what_comes_before_a_run_brings_no_tensorflow_in():
    """Whoever makes a mistake in a config, or lists runs, waits for no library that takes seconds."""
    modules = [
        "pipeline.cli",
        "pipeline.config",
        "pipeline.container_main",
        "pipeline.history",
        "pipeline.run",
        "pipeline.runners.compile",
        "pipeline.schedules.cluster",
        "pipeline.schedules.daemon",
        "components.serving_check.model_process",
        *(f"pipeline.commands.{path.stem}" for path in (ROOT / "pipeline/commands").glob("[a-z]*.py")),
    ]
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True))
    assert "pipeline" in loaded
    assert {*TENSORFLOW, *TFX}.intersection(loaded) == set()


def test_keras_is_imported_by_its_own_name():
    found = [path for path in tracked_modules() if uses_keras_through_tensorflow(path.read_text(encoding="utf-8"))]
    assert found == []


def test_no_file_is_larger_than_a_mebibyte():
    assert [path for path in tracked_files() if path.stat().st_size > MEBIBYTE] == []


def test_no_file_names_a_package_registry_or_a_home_directory():
    forbidden = re.compile("|".join([*map(re.escape, registry_hosts()), r"/(?:root|home/\w+|Users/\w+)/"]))
    found = [
        (str(path.relative_to(ROOT)), match.group())
        for path in tracked_files()
        if (match := forbidden.search(path.read_text(encoding="utf-8", errors="replace")))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b", ["a.b"]),
        ("from a.b import c, d", ["a.b.c", "a.b.d"]),
        ("def f():\n    import late", ["late"]),
        ("from . import near", []),
    ],
)
def test_every_form_of_import_is_seen(source, names):
    assert list(imported_names(source)) == names


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("import tensorflow as tf\ntf." + "keras.Model", True),
        ("from tensorflow import keras", True),
        ("import tensorflow.keras.layers", True),
        ("import keras\nkeras.Model", False),
    ],
)
def test_every_form_of_keras_through_tensorflow_is_seen(source, seen):
    assert uses_keras_through_tensorflow(source) is seen


def test_the_modules_of_the_playground_s_page_import_each_other_in_one_direction():
    page = ROOT / "serving/server/playground/page"
    imports = {
        path.name: set(re.findall(r'from "\./([a-z_]+\.js)"', path.read_text(encoding="utf-8")))
        for path in page.glob("*.js")
    }
    assert imports["main.js"]
    while free := [name for name, others in imports.items() if not others & imports.keys()]:
        for name in free:
            del imports[name]
    assert imports == {}
