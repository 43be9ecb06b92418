import itertools
import json
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from serving.model_store import (
    ModelStoreError,
    ModelVersion,
    SignatureError,
    WithdrawnModelError,
    list_versions,
    make_key,
    prune,
    publish,
    read_signing_key,
    restore,
    served_version,
    verify,
    verify_signature,
    withdraw,
)
from tests.serving.fake_object_store import FakeObjectStore, StoredObject
from tests.serving.model_store_testing import provenance_of, write_saved_model

BASE = "gs://bucket/models/heart"
PREFIX = "models/heart/"
# Few, since every request of every command is cut off.
FILES = {"saved_model.pb": "graph", "variables/variables.index": "index", "assets/labels": "labels"}


@pytest.fixture(scope="module")
def running_server():
    with FakeObjectStore() as server:
        yield server


@pytest.fixture
def server(running_server, monkeypatch):
    """An empty bucket; at every moment each version that a server would load in it must be whole."""
    broken: list[str] = []

    def watch() -> None:
        try:
            visible_contents(running_server)
        except (AssertionError, KeyError) as error:
            broken.append(repr(error))

    running_server.objects = {}
    running_server.refuse_after = None
    running_server.on_change = watch
    running_server.before = lambda method, address: None
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", running_server.address)
    yield running_server
    assert broken == []


@pytest.fixture
def publish_content(tmp_path):
    def publish_content(content: str) -> ModelVersion:
        return publish(BASE, write_saved_model(tmp_path / content, content, FILES), provenance_of(content))

    return publish_content


def names(server: FakeObjectStore) -> set[str]:
    return {name.removeprefix(PREFIX) for name in server.objects}


def content_of(server: FakeObjectStore, place: str) -> str:
    """The content of a version; fails unless every object is there and belongs to it."""
    content = server.objects[f"{PREFIX}{place}/saved_model.pb"].content.decode().removeprefix("graph of ")
    for name, what in FILES.items():
        assert server.objects[f"{PREFIX}{place}/{name}"].content == f"{what} of {content}".encode()
    provenance = json.loads(server.objects[f"{PREFIX}{place}/assets.extra/provenance.json"].content)
    assert (provenance["data_fingerprint"], str(provenance["version"])) == (f"data of {content}", place.split("-")[-1])
    return content


def visible_contents(server: FakeObjectStore) -> dict[int, str]:
    """What a server can load: the content of every integer prefix with a saved_model.pb, each checked to be whole."""
    found = [re.fullmatch(r"(\d+)/saved_model\.pb", name) for name in names(server)]
    return {int(match[1]): content_of(server, match[1]) for match in found if match}


def incomplete(server: FakeObjectStore) -> set[int]:
    """What a server tries to load and cannot."""
    return {int(name.split("/")[0]) for name in names(server) if name[0].isdigit()} - visible_contents(server).keys()


def leftovers(server: FakeObjectStore) -> set[str]:
    return {name for name in names(server) if name.startswith(".staging-")}


def test_published_versions_hold_the_files_given_and_their_provenance(server, publish_content):
    first, second = publish_content("a"), publish_content("b")
    assert (second.number, second.path, second.withdrawn) == (2, f"{BASE}/2", False)
    assert visible_contents(server) == {1: "a", 2: "b"}
    assert list_versions(BASE) == [second, first]
    assert served_version(BASE) == second
    assert verify(second) == []
    assert leftovers(server) == set()


def test_verify_names_the_objects_that_are_missing_or_changed(server, publish_content):
    version = publish_content("a")
    server.on_change = lambda: None
    server.put(f"{PREFIX}1/assets/labels", b"something else", {})
    server.delete(f"{PREFIX}1/saved_model.pb", {})
    assert verify(version) == ["assets/labels", "saved_model.pb"]


def test_large_files_arrive_unchanged_in_both_directions(server, tmp_path):
    model = Path(write_saved_model(tmp_path / "model", "a"))
    weights = bytes(range(256)) * 4096 * 9  # too large for an upload in one request
    (model / "variables/variables.data-00000-of-00001").write_bytes(weights)
    server.on_change = lambda: None
    version = publish(BASE, str(model), provenance_of("a"))
    assert verify(version) == []
    copy = publish(str(tmp_path / "local"), version.path, provenance_of("a"))
    assert Path(copy.path, "variables/variables.data-00000-of-00001").read_bytes() == weights


def test_a_withdrawn_model_is_not_published_again_until_it_is_restored(server, publish_content):
    publish_content("a")
    publish_content("b")
    withdrawn = withdraw(BASE, reason="wrong")
    assert (withdrawn.number, withdrawn.path) == (2, f"{BASE}/.withdrawn-2")
    assert visible_contents(server) == {1: "a"}
    assert content_of(server, ".withdrawn-2") == "b"
    assert list_versions(BASE)[0] == withdrawn
    with pytest.raises(WithdrawnModelError, match=r"as version 2 \(wrong\)"):
        publish_content("b")
    assert restore(BASE, 2).path == f"{BASE}/2"
    assert visible_contents(server) == {1: "a", 2: "b"}
    assert not any(name.startswith(".withdrawn") for name in names(server))
    assert publish_content("b").number == 3


def test_prune_removes_the_oldest_and_no_number_comes_twice(server, publish_content):
    for content in "abcd":
        publish_content(content)
    withdraw(BASE)
    assert [version.number for version in prune(BASE, keep=1)] == [2, 1]
    assert visible_contents(server) == {3: "c"}
    withdraw(BASE)
    assert served_version(BASE) is None
    assert publish_content("e").number == 5


def test_versions_that_something_else_pushed_count_and_are_left_alone_while_they_arrive(server, publish_content):
    server.on_change = lambda: None
    server.put(f"{PREFIX}1700000000/variables/variables.index", b"index", {})
    server.put(f"{PREFIX}tmp/saved_model.pb", b"graph", {})
    assert list_versions(BASE) == []
    assert publish_content("a").number == 1700000001
    server.put(f"{PREFIX}1700000000/saved_model.pb", b"graph", {})
    assert [version.number for version in list_versions(BASE)] == [1700000001, 1700000000]
    assert withdraw(BASE, 1700000000).number == 1700000000
    assert restore(BASE, 1700000000).number == 1700000000
    assert names(server) >= {"1700000000/variables/variables.index", "1700000000/saved_model.pb", "tmp/saved_model.pb"}


def test_what_is_below_another_base_path_is_not_ours(server, publish_content):
    server.on_change = lambda: None
    server.put("models/heart2/7/saved_model.pb", b"graph", {})
    server.put("models/7/saved_model.pb", b"graph", {})
    assert publish_content("a").number == 1


def cut_off_at_every_request(server: FakeObjectStore, change):
    """The bucket after a call was cut off from it after one, two, ... requests, until it came to its end."""
    prepared = dict(server.objects)
    for step in itertools.count(1):
        server.objects, server.requests, server.refuse_after = dict(prepared), 0, step
        try:
            change()
            finished = True
        except ModelStoreError as error:
            assert "cannot be written (403" in str(error)
            finished = False
        server.refuse_after, requests = None, server.requests
        yield finished
        if requests <= step:
            assert finished
            assert step > 5
            return


def test_publish_cut_off_at_every_request_is_finished_or_taken_back_by_the_next_command(server, publish_content):
    publish_content("a")
    seen = []
    for finished in cut_off_at_every_request(server, lambda: publish_content("b")):
        seen.append(visible_contents(server))
        assert seen[-1] == ({1: "a", 2: "b"} if finished else {1: "a"})
        was_copied = incomplete(server) == {2}
        assert was_copied or incomplete(server) == set()
        number = publish_content("next").number
        expected = {1: "a", 2: "b", number: "next"} if finished or was_copied else {1: "a", number: "next"}
        assert visible_contents(server) == expected
        assert number > max(seen[-1])
        assert incomplete(server) == set()
    assert {1: "a"} in seen and {1: "a", 2: "b"} in seen


@pytest.mark.parametrize("number", [1, 2])
def test_withdraw_cut_off_at_every_request_leaves_the_version_visible_or_withdrawn(server, publish_content, number):
    publish_content("a")
    publish_content("b")
    states = set()
    for _ in cut_off_at_every_request(server, lambda: withdraw(BASE, number, "wrong")):
        state = {version.number: (version.withdrawn, version.reason) for version in list_versions(BASE)}
        states.add(state[number])
        assert state == {1: (False, ""), 2: (False, ""), number: state[number]}
        prune(BASE, keep=9)
        visible = {1: "a", 2: "b"}
        if state[number][0]:
            assert content_of(server, f".withdrawn-{number}") == visible.pop(number)
        assert visible_contents(server) == visible
        assert incomplete(server) == leftovers(server) == set()
    assert states == {(False, ""), (True, "wrong")}


def test_restore_cut_off_at_every_request_leaves_the_version_withdrawn_or_visible(server, publish_content):
    publish_content("a")
    publish_content("b")
    withdraw(BASE, 2, "wrong")
    states = set()
    for _ in cut_off_at_every_request(server, lambda: restore(BASE, 2)):
        state = {version.number: (version.withdrawn, version.reason) for version in list_versions(BASE)}
        states.add(state[2])
        assert state == {1: (False, ""), 2: state[2]}
        try:
            restore(BASE, 2)
        except ModelStoreError as error:
            assert "version 2 in gs://bucket/models/heart is not withdrawn" in str(error)
        assert visible_contents(server) == {1: "a", 2: "b"}
        assert incomplete(server) == set()
    assert states == {(False, ""), (True, "wrong")}


def test_prune_cut_off_at_every_request_leaves_versions_whole_or_gone(server, publish_content):
    for content in "abc":
        publish_content(content)
    seen = []
    for _ in cut_off_at_every_request(server, lambda: prune(BASE, keep=1)):
        seen.append(visible_contents(server))
        assert seen[-1] in ({1: "a", 2: "b", 3: "c"}, {2: "b", 3: "c"}, {3: "c"})
        prune(BASE, keep=9)
        assert incomplete(server) == leftovers(server) == set()
        assert [version.number for version in list_versions(BASE)] == sorted(seen[-1], reverse=True)
    assert seen[0] == {1: "a", 2: "b", 3: "c"}
    assert seen[-1] == {3: "c"}


def test_after_any_cut_off_a_publication_gets_a_number_of_its_own(server, publish_content):
    publish_content("a")
    publish_content("b")
    for step in (5, 10, 15, 20):
        server.requests, server.refuse_after = 0, step
        with pytest.raises(ModelStoreError):
            withdraw(BASE, reason="wrong")
        server.refuse_after = None
        largest = list_versions(BASE)[0].number
        assert publish_content(f"after {step}").number > largest


def test_a_foreign_version_pruned_half_way_is_removed_by_the_next_command(server, publish_content):
    publish_content("a")
    server.on_change = lambda: None
    for name in ("saved_model.pb", "variables/variables.index"):
        server.put(f"{PREFIX}0/{name}", b"pushed by something else", {})
    for _ in cut_off_at_every_request(server, lambda: prune(BASE, keep=1)):
        prune(BASE, keep=9)
        assert len([name for name in names(server) if name.startswith("0/")]) in (0, 2)


def at_the_first(server: FakeObjectStore, method: str, what: str, call) -> None:
    """Let another process do something right before the first such request."""

    def before(actual_method: str, address: str) -> None:
        if actual_method == method and what in address:
            server.before = lambda method, address: None
            call()

    server.before = before


def test_a_version_restored_while_its_withdrawal_still_deletes_stays_whole(server, publish_content):
    publish_content("a")
    at_the_first(server, "DELETE", "heart/1/variables", lambda: restore(BASE, 1))
    withdraw(BASE, 1)
    assert visible_contents(server) == {1: "a"}


def test_a_version_withdrawn_while_its_restoration_still_tidies_up_is_kept(server, publish_content):
    publish_content("a")
    withdraw(BASE, 1)
    at_the_first(server, "DELETE", "heart/.withdrawn-1", lambda: withdraw(BASE, 1, "wrong after all"))
    restore(BASE, 1)
    assert visible_contents(server) == {}
    assert [(version.withdrawn, version.reason) for version in list_versions(BASE)] == [(True, "wrong after all")]
    assert content_of(server, ".withdrawn-1") == "a"


def test_a_publication_whose_staging_place_is_just_being_removed_is_not_shown(server, publish_content):
    def remove_one_staged_object() -> None:
        make_older(server, timedelta(hours=25))
        at_the_first(server, "DELETE", "heart/.staging-", lambda: setattr(server, "refuse_after", server.requests + 1))
        with pytest.raises(ModelStoreError):
            prune(BASE, keep=9)
        server.refuse_after = None

    # Between the publisher's look at saved_model.pb and its listing of the rest.
    at_the_first(server, "GET", "/o?projection=noAcl&prefix=models/heart/.staging-", remove_one_staged_object)
    with pytest.raises(ModelStoreError, match="another process is changing gs://bucket/models/heart"):
        publish_content("a")
    assert visible_contents(server) == {}
    assert incomplete(server) == leftovers(server) == set()


def test_a_publication_refused_half_way_takes_itself_back(server, publish_content):
    publish_content("a")

    def refuse_this_one() -> None:
        server.refuse_after = server.requests
        server.before = lambda method, address: setattr(server, "refuse_after", None)

    at_the_first(server, "POST", "variables/variables.index/rewriteTo", refuse_this_one)
    with pytest.raises(ModelStoreError, match=r"cannot be written \(403"):
        publish_content("b")
    assert visible_contents(server) == {1: "a"}
    assert incomplete(server) == leftovers(server) == set()


def test_of_two_restorations_at_once_one_is_told_of_the_other(server, publish_content):
    publish_content("a")
    withdraw(BASE, 1)
    # Before the first has said which staging place is the version's.
    at_the_first(server, "POST", "/upload/", lambda: restore(BASE, 1))
    with pytest.raises(ModelStoreError, match="another process is changing gs://bucket/models/heart"):
        restore(BASE, 1)
    assert visible_contents(server) == {1: "a"}
    assert names(server) == {name for name in names(server) if name.startswith("1/")} | {".number-1"}


def test_what_is_replaced_while_it_is_copied_is_not_shown(server, publish_content):
    publish_content("a")
    withdraw(BASE, 1)
    saved_model = f"{PREFIX}.withdrawn-1/saved_model.pb"

    def replace() -> None:
        server.put(saved_model, server.objects[saved_model].content, {})

    at_the_first(server, "POST", ".withdrawn-1/variables/variables.index/rewriteTo", replace)
    with pytest.raises(ModelStoreError, match="another process is changing gs://bucket/models/heart"):
        restore(BASE, 1)
    assert visible_contents(server) == {}
    assert content_of(server, ".withdrawn-1") == "a"


def test_pruning_what_was_once_restored_half_way_does_not_withdraw_it(server, publish_content):
    publish_content("a")
    publish_content("b")
    withdraw(BASE, 1, "wrong")
    withdrawn = dict(server.objects)
    restore(BASE, 1)
    server.objects = withdrawn | server.objects  # as when the restoration was killed before its last requests
    assert [version.withdrawn for version in list_versions(BASE)] == [False, False]
    prune(BASE, 1)
    assert [(version.number, version.withdrawn) for version in list_versions(BASE)] == [(2, False)]


def make_older(server: FakeObjectStore, age: timedelta) -> None:
    for name, stored in server.objects.items():
        server.objects[name] = StoredObject(stored.content, stored.generation, datetime.now(UTC) - age)


def test_the_staged_objects_of_a_killed_process_are_removed_after_a_day_and_not_before(server, publish_content):
    server.requests, server.refuse_after = 0, 12
    with pytest.raises(ModelStoreError):
        publish_content("a")
    server.refuse_after = None
    staged = leftovers(server)
    assert len(staged) > 1
    publish_content("withdrawn")
    withdrawn = withdraw(BASE)
    make_older(server, timedelta(hours=23))
    publish_content("b")
    assert leftovers(server) == staged
    make_older(server, timedelta(hours=25))
    publish_content("c")
    assert leftovers(server) == set()
    assert set(visible_contents(server).values()) == {"b", "c"}
    assert content_of(server, f".withdrawn-{withdrawn.number}") == "withdrawn"


def test_eight_publishers_at_once_lose_nothing_and_never_collide(server, publish_content):
    contents = [f"model {index}" for index in range(16)]
    failed = []

    def publish_two(contents: list[str]) -> None:
        try:
            for content in contents:
                publish_content(content)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=publish_two, args=(contents[index::8],)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(visible_contents(server).values()) == sorted(contents)
    assert sorted(visible_contents(server)) == list(range(1, 17))
    assert incomplete(server) == leftovers(server) == set()


def test_commands_of_several_processes_at_once_leave_every_version_whole(server, publish_content):
    for content in "abc":
        publish_content(content)
    withdraw(BASE, 1)
    calls = [
        lambda: publish_content("d"),
        lambda: restore(BASE, 1),
        lambda: restore(BASE, 1),
        lambda: withdraw(BASE, 3, "wrong"),
        lambda: withdraw(BASE, 3, "wrong"),
        lambda: restore(BASE, 3),
        lambda: prune(BASE, 2),
    ]
    unexpected = []

    def run(call) -> None:
        try:
            call()
        except ModelStoreError:
            pass  # another was quicker
        except Exception as error:
            unexpected.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    prune(BASE, 9)
    assert unexpected == []
    assert incomplete(server) == set()
    versions = list_versions(BASE)
    assert all(verify(version) == [] for version in versions)
    assert {3, 4} <= {version.number for version in versions} <= {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: list_versions("gs://nowhere/heart"), r"gs://nowhere/heart cannot be read \(404 .* bucket exists"),
        (lambda: list_versions("gs://bucket"), "is gs://bucket/path, received 'gs://bucket'"),
        (lambda: withdraw(BASE), "serves no version, there is none to withdraw"),
        (lambda: restore(BASE, 1), "there is no version 1 in gs://bucket/models/heart, it has none"),
        (lambda: publish(BASE, "gs://bucket/nothing", provenance_of("a")), "gs://bucket/nothing is not a SavedModel"),
    ],
)
def test_a_refused_call_says_why_in_one_sentence(server, call, sentence):
    with pytest.raises(ModelStoreError, match=sentence) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert server.objects == {}


def test_a_signature_is_of_every_object_and_outlives_a_rollback(server, tmp_path):
    public = make_key(tmp_path / "key.pem")
    model = write_saved_model(tmp_path / "model", "a", FILES)
    version = publish(BASE, model, provenance_of("a"), key=read_signing_key(tmp_path / "key.pem"))
    assert verify_signature(version.path, 1, [public], tmp_path / "copy") == public
    assert (tmp_path / "copy/assets/labels").read_text() == (Path(model) / "assets/labels").read_text()
    assert verify_signature(withdraw(BASE).path, 1, [public]) == public
    assert verify_signature(restore(BASE, 1).path, 1, [public]) == public
    server.objects[f"{PREFIX}1/assets/labels"].content = b"labels of another"
    with pytest.raises(SignatureError, match=r"gs://bucket/models/heart/1 was changed .* signed: assets/labels"):
        verify_signature(version.path, 1, [public])
    server.on_change = lambda: None
