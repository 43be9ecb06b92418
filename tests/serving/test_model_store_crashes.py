import itertools
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving.model_store import list_versions, restore, served_version, verify, withdraw
from tests.serving.model_store_testing import (
    Worker,
    content_of,
    provenance_of,
    publish_content,
    visible_contents,
    write_saved_model,
)


@pytest.fixture(scope="module")
def worker():
    with Worker() as worker:
        yield worker


def base_path_with_three_versions(folder: Path) -> Path:
    for content in "abc":
        publish_content(folder / "base", folder, content)
    return folder / "base"


def no_leftovers(base: Path) -> bool:
    # The two files of the store itself, and whole withdrawn versions with their reasons.
    hidden = {path.name for path in base.iterdir() if not path.name.isdigit()} - {".lock", ".largest-number"}
    withdrawn = {name for name in hidden if name.startswith(".withdrawn-") and (base / name).is_dir()}
    return hidden == withdrawn | {f"{name}.json" for name in withdrawn}


def kill_at_every_step(worker: Worker, folder: Path, prepare, call: str, *arguments):
    """The base path after a call was killed before its first, second, ... step, until it came to its end."""
    for step in itertools.count(1):
        base = prepare(folder / str(step))
        outcome = worker.run(call, str(base), *arguments, step=step)
        assert outcome["error"] is None
        yield base
        # Whatever was left, the next command works and tidies up.
        largest = max(version.number for version in list_versions(str(base)))
        assert publish_content(base, folder / str(step), "next").number > max(largest, 3)
        assert no_leftovers(base)
        if not outcome["killed"]:
            assert step > 10
            return


def test_publish_killed_at_every_step_shows_the_new_version_whole_or_not_at_all(worker, tmp_path):
    model = write_saved_model(tmp_path / "model", "d")
    before = {1: "a", 2: "b", 3: "c"}
    seen = []
    arguments = (model, provenance_of("d"))
    for base in kill_at_every_step(worker, tmp_path, base_path_with_three_versions, "publish", *arguments):
        seen.append(visible_contents(base))
        assert seen[-1] in (before, {**before, 4: "d"})
    assert seen[0] == before
    assert seen[-1] == {**before, 4: "d"}


def test_withdraw_killed_at_every_step_leaves_the_version_in_one_place(worker, tmp_path):
    seen = []
    for base in kill_at_every_step(worker, tmp_path, base_path_with_three_versions, "withdraw", 3, "too slow"):
        seen.append([(version.number, version.withdrawn, version.reason) for version in list_versions(str(base))])
        assert all(content_of(Path(version.path)) == "cba"[3 - version.number] for version in list_versions(str(base)))
        assert set(visible_contents(base)) | {3} == {1, 2, 3}
        assert seen[-1][0] in [(3, False, ""), (3, True, "too slow")]
        assert seen[-1][1:] == [(2, False, ""), (1, False, "")]
    assert seen[0][0] == (3, False, "")
    assert seen[-1][0] == (3, True, "too slow")


def test_restore_killed_at_every_step_leaves_the_version_in_one_place(worker, tmp_path):
    def prepare(folder: Path) -> Path:
        base = base_path_with_three_versions(folder)
        withdraw(str(base), 3, "too slow")
        return base

    seen = []
    for base in kill_at_every_step(worker, tmp_path, prepare, "restore", 3):
        seen.append([(version.number, version.withdrawn, version.reason) for version in list_versions(str(base))])
        assert all(content_of(Path(version.path)) == "cba"[3 - version.number] for version in list_versions(str(base)))
        assert seen[-1][0] in [(3, True, "too slow"), (3, False, "")]
        assert seen[-1][1:] == [(2, False, ""), (1, False, "")]
    assert seen[0][0] == (3, True, "too slow")
    assert seen[-1][0] == (3, False, "")


def test_prune_killed_at_every_step_shows_no_version_half_removed(worker, tmp_path):
    seen = []
    for base in kill_at_every_step(worker, tmp_path, base_path_with_three_versions, "prune", 1):
        seen.append(visible_contents(base))
        assert seen[-1] in ({1: "a", 2: "b", 3: "c"}, {2: "b", 3: "c"}, {3: "c"})
    assert seen[0] == {1: "a", 2: "b", 3: "c"}
    assert seen[-1] == {3: "c"}


def test_the_first_publish_killed_at_every_step_leaves_a_base_path_that_works(worker, tmp_path):
    model = write_saved_model(tmp_path / "model", "a")
    for step in itertools.count(1):
        base = tmp_path / str(step) / "models" / "heart"
        outcome = worker.run("publish", str(base), model, provenance_of("a"), step=step)
        assert served_version(str(base)) is None or visible_contents(base) == {1: "a"}
        assert publish_content(base, tmp_path, "next").number in (1, 2)
        assert no_leftovers(base)
        assert all(path.stat().st_mode & 0o777 == 0o755 for path in (base, base.parent))
        if not outcome["killed"]:
            break


def start_publishing_a_pipe(worker: Worker, base: Path, folder: Path) -> int:
    """Let the worker publish "slow" until it waits for the content of one file, which is a pipe; the open pipe."""
    model = Path(write_saved_model(folder / "slow model", "slow"))
    pipe = model / "variables/variables.index"
    pipe.unlink()
    os.mkfifo(pipe)
    writing = os.open(pipe, os.O_RDWR)
    worker.send("publish", str(base), str(model), provenance_of("slow"))
    deadline = time.monotonic() + 30
    while not list(base.glob(".staging-*/model/variables/variables.index")):
        assert time.monotonic() < deadline, "the publisher never came to the pipe"
        time.sleep(0.005)
    return writing


def test_a_live_publisher_survives_the_commands_of_others(worker, tmp_path):
    base = tmp_path / "base"
    writing = start_publishing_a_pipe(worker, base, tmp_path)
    publish_content(base, tmp_path, "quick")
    withdraw(str(base))
    restore(str(base), 1)
    assert visible_contents(base) == {1: "quick"}
    os.write(writing, b"index of slow")
    os.close(writing)
    assert worker.receive() == {"killed": False, "error": None}
    assert visible_contents(base) == {1: "quick", 2: "slow"}
    assert no_leftovers(base)


def test_a_model_withdrawn_while_its_like_is_being_copied_is_not_published(worker, tmp_path):
    base = tmp_path / "base"
    writing = start_publishing_a_pipe(worker, base, tmp_path)
    publish_content(base, tmp_path, "slow")
    withdraw(str(base), reason="wrong")
    os.write(writing, b"index of slow")
    os.close(writing)
    assert "was withdrawn" in worker.receive()["error"]
    assert visible_contents(base) == {}
    assert no_leftovers(base)


def test_eight_processes_publishing_at_once_lose_nothing_and_never_collide(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    contents = [f"model {index}" for index in range(24)]
    models = [write_saved_model(tmp_path / content, content) for content in contents]
    finished, seen = threading.Event(), []

    def watch() -> None:
        while not finished.is_set():
            seen.append(visible_contents(base))

    watching = threading.Thread(target=watch)
    with ExitStack() as closing:
        workers = [closing.enter_context(Worker()) for _ in range(8)]
        watching.start()
        closing.callback(watching.join)
        closing.callback(finished.set)
        for index, (content, model) in enumerate(zip(contents, models, strict=True)):
            workers[index % 8].send("publish", str(base), model, provenance_of(content))
        outcomes = [workers[index % 8].receive() for index in range(24)]
    assert outcomes == [{"killed": False, "error": None}] * 24
    assert sorted(visible_contents(base)) == list(range(1, 25))
    assert sorted(visible_contents(base).values()) == sorted(contents)
    assert [version.provenance["version"] for version in list_versions(str(base))] == list(range(24, 0, -1))
    assert no_leftovers(base)
    # What a server polling meanwhile saw only ever grew, by complete versions larger than all before.
    for earlier, later in itertools.pairwise(seen):
        assert earlier.items() <= later.items()
        assert all(number > max(earlier, default=0) for number in later.keys() - earlier.keys())
    assert len(seen) > 1


def test_commands_of_several_processes_at_once_leave_every_version_whole(tmp_path):
    base = base_path_with_three_versions(tmp_path)
    model = write_saved_model(tmp_path / "d", "d")
    calls = [
        ("publish", str(base), model, provenance_of("d")),
        ("withdraw", str(base), 1),
        ("restore", str(base), 1),
        ("withdraw", str(base), 3, "wrong"),
        ("prune", str(base), 3),
        ("publish", str(base), model, provenance_of("e")),
    ]
    with ExitStack() as closing:
        workers = [closing.enter_context(Worker()) for _ in calls]
        for worker, call in zip(workers, calls, strict=True):
            worker.send(*call)
        errors = [worker.receive()["error"] for worker in workers]
    assert errors[0] is None and errors[3] is None and errors[4] is None and errors[5] is None
    versions = list_versions(str(base))
    assert all(verify(version) == [] for version in versions)
    assert [version.number for version in versions if version.number > 2] == [5, 4, 3]
    assert no_leftovers(base)
