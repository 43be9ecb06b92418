import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.model_store import (
    ModelStoreError,
    SignatureError,
    SigningKey,
    WithdrawnModelError,
    list_versions,
    make_key,
    prune,
    publish,
    read_public_key,
    read_signing_key,
    restore,
    served_version,
    verify,
    verify_signature,
    withdraw,
)
from tests.serving.model_store_testing import (
    FILES,
    Worker,
    content_of,
    provenance_of,
    publish_content,
    visible_contents,
    write_saved_model,
)

NOBODY = 65534


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "models" / "heart"


@pytest.fixture(scope="module")
def worker():
    with Worker() as worker:
        yield worker


def numbers(base: Path) -> list[int]:
    return [version.number for version in list_versions(str(base))]


def write_foreign_version(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_text("pushed by something else")


def test_published_versions_hold_the_files_given_and_their_provenance(base, tmp_path):
    first = publish_content(base, tmp_path, "a")
    second = publish_content(base, tmp_path, "b")
    assert (first.number, first.path, first.withdrawn) == (1, str(base / "1"), False)
    assert visible_contents(base) == {1: "a", 2: "b"}
    written = json.loads((base / "2/assets.extra/provenance.json").read_text())
    assert written == second.provenance
    assert written.items() >= {**provenance_of("b"), "version": 2}.items()
    assert written["published_at"].endswith("+00:00")
    assert list_versions(str(base)) == [second, first]
    assert served_version(str(base)) == second


def test_the_provenance_of_a_model_published_before_is_replaced_and_not_checksummed(base, tmp_path):
    first = publish_content(base, tmp_path, "a")
    again = publish(str(tmp_path / "elsewhere"), first.path, provenance_of("b"))
    assert again.provenance["data_fingerprint"] == "data of b"
    assert again.provenance["checksums"] == first.provenance["checksums"]
    assert verify(again) == []


def test_numbers_of_numpy_become_json_and_nan_becomes_null(base, tmp_path):
    model = write_saved_model(tmp_path / "model", "a")
    metrics = {"auc": np.float32(0.5), "loss": float("nan")}
    publish(str(base), model, {**provenance_of("a"), "metrics": metrics})
    assert served_version(str(base)).provenance["metrics"] == {"auc": 0.5, "loss": None}


def test_every_file_is_on_the_disk_before_the_version_is_visible(base, tmp_path, monkeypatch):
    synced, flush = {}, os.fsync

    def record(descriptor: int) -> None:
        synced[Path(f"/proc/self/fd/{descriptor}").readlink()] = (base / "1").exists()
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    publish_content(base, tmp_path, "a")
    staged = next(path.parent for path in synced if path.name == "saved_model.pb")
    expected = [*FILES, "assets.extra/provenance.json", "variables", "assets", "assets.extra", ""]
    assert all(synced[staged / name] is False for name in expected)
    assert synced[base] is True


def test_a_missing_or_empty_base_path_has_no_versions(base):
    assert list_versions(str(base)) == []
    assert served_version(str(base)) is None
    assert not base.exists()
    base.mkdir(parents=True)
    assert list_versions(str(base)) == []
    assert list(base.iterdir()) == []


def test_withdrawing_the_served_version_serves_the_one_before(base, tmp_path):
    for content in "abc":
        publish_content(base, tmp_path, content)
    withdrawn = withdraw(str(base), reason="wrong on new patients")
    assert (withdrawn.number, withdrawn.withdrawn, withdrawn.reason) == (3, True, "wrong on new patients")
    assert content_of(Path(withdrawn.path)) == "c"
    assert visible_contents(base) == {1: "a", 2: "b"}
    assert served_version(str(base)).number == 2
    assert list_versions(str(base))[0] == withdrawn


def test_a_withdrawn_model_is_not_published_again_until_it_is_restored(base, tmp_path):
    for content in "ab":
        publish_content(base, tmp_path, content)
    withdraw(str(base), 2, "wrong")
    with pytest.raises(WithdrawnModelError, match=r"as version 2 \(wrong\): .* `ingraph models restore .* 2`"):
        publish_content(base, tmp_path, "b")
    assert visible_contents(base) == {1: "a"}
    assert publish_content(base, tmp_path, "c").number == 3
    restored = restore(str(base), 2)
    assert (restored.number, restored.withdrawn, restored.reason) == (2, False, "")
    assert visible_contents(base) == {1: "a", 2: "b", 3: "c"}
    assert publish_content(base, tmp_path, "b").number == 4


def test_another_code_fingerprint_makes_another_model(base, tmp_path):
    publish_content(base, tmp_path, "a")
    withdraw(str(base))
    model = write_saved_model(tmp_path / "model", "a")
    assert publish(str(base), model, {**provenance_of("a"), "code_fingerprint": "other code"}).number == 2


def test_prune_removes_the_oldest_visible_versions_only(base, tmp_path):
    for content in "abcde":
        publish_content(base, tmp_path, content)
    withdraw(str(base), 1)
    assert [version.number for version in prune(str(base), keep=2)] == [3, 2]
    assert visible_contents(base) == {4: "d", 5: "e"}
    assert numbers(base) == [5, 4, 1]
    assert prune(str(base), keep=2) == []


def test_prune_never_removes_the_served_version(base, tmp_path):
    for content in "ab":
        publish_content(base, tmp_path, content)
    prune(str(base), keep=0)
    assert visible_contents(base) == {2: "b"}


def test_a_number_never_comes_twice(base, tmp_path):
    for content in "abc":
        publish_content(base, tmp_path, content)
    withdraw(str(base), 3)
    prune(str(base), keep=0)
    assert publish_content(base, tmp_path, "d").number == 4
    prune(str(base), keep=1)
    for name in ("4", ".withdrawn-3"):  # a person cleans up by hand
        shutil.rmtree(base / name)
    assert numbers(base) == []
    assert publish_content(base, tmp_path, "e").number == 5


def test_versions_that_something_else_pushed_count(base, tmp_path):
    write_foreign_version(base / "1700000000")
    assert [(version.number, version.provenance) for version in list_versions(str(base))] == [(1700000000, {})]
    assert publish_content(base, tmp_path, "a").number == 1700000001
    assert withdraw(str(base), 1700000000).number == 1700000000
    assert restore(str(base), 1700000000).path == str(base / "1700000000")


@pytest.mark.parametrize(("name", "number"), [("007", 7), ("+7", 7), (" 7 ", 7), ("0", 0)])
def test_what_tensorflow_serving_takes_for_a_number_is_one(base, tmp_path, name, number):
    write_foreign_version(base / name)
    assert numbers(base) == [number]
    assert publish_content(base, tmp_path, "a").number == number + 1


@pytest.mark.parametrize(
    "name", ["tmp", "1.bak", "-7", "1_0", "\N{ARABIC-INDIC DIGIT SEVEN}", "99999999999999999999", ".5", "latest"]
)
def test_what_tensorflow_serving_does_not_take_for_a_number_is_left_alone(base, tmp_path, name):
    write_foreign_version(base / name)
    assert numbers(base) == []
    assert publish_content(base, tmp_path, "a").number == 1
    assert (base / name / "saved_model.pb").read_text() == "pushed by something else"


def test_of_two_names_of_one_number_the_one_tensorflow_serving_loads_is_listed(base):
    write_foreign_version(base / "007")
    write_foreign_version(base / "7")
    assert [version.path for version in list_versions(str(base))] == [str(base / "7")]


def test_stray_files_and_incomplete_directories_are_no_versions_but_their_numbers_are_taken(base, tmp_path):
    (base / "8").mkdir(parents=True)
    (base / "9").write_text("a file")
    (base / "10").symlink_to(tmp_path / "nowhere")
    assert numbers(base) == []
    assert publish_content(base, tmp_path, "a").number == 11


def test_a_link_to_a_version_is_withdrawn_restored_and_pruned_without_its_target(base, tmp_path):
    write_foreign_version(base.parent / "stable")
    (base / "tmp").mkdir(parents=True)
    (base / "3").symlink_to("../stable")
    assert numbers(base) == [3]
    assert withdraw(str(base)).number == 3
    assert restore(str(base), 3).path == str(base / "3")
    assert (base / "3" / "saved_model.pb").exists()
    assert publish_content(base, tmp_path, "a").number == 4
    assert [version.number for version in prune(str(base), keep=1)] == [3]
    assert (base.parent / "stable" / "saved_model.pb").exists()


def test_the_largest_number_there_is_leaves_none(base, tmp_path):
    write_foreign_version(base / str(2**63 - 1))
    with pytest.raises(ModelStoreError, match="no version number left, 9223372036854775807 is taken"):
        publish_content(base, tmp_path, "a")


def test_a_base_path_may_be_a_link_and_have_a_trailing_slash(base, tmp_path):
    base.mkdir(parents=True)
    (tmp_path / "link").symlink_to(base)
    assert publish_content(Path(f"{tmp_path}/link/"), tmp_path, "a").number == 1
    assert visible_contents(base) == {1: "a"}


def test_verify_names_the_files_that_are_missing_or_changed(base, tmp_path):
    version = publish_content(base, tmp_path, "a")
    (base / "1/assets/labels").write_text("something else")
    (base / "1/saved_model.pb").unlink()
    assert verify(version) == ["assets/labels", "saved_model.pb"]
    assert verify(publish_content(base, tmp_path, "b")) == []


def test_another_user_can_read_what_is_published_whatever_the_umask(base, tmp_path, worker):
    model = write_saved_model(tmp_path / "model", "a")
    (Path(model) / "saved_model.pb").chmod(0o600)
    assert worker.run("publish", str(base), model, provenance_of("a"), umask=0o077)["error"] is None
    folders = [base.parent, base, *(path for path in (base / "1").rglob("*") if path.is_dir()), base / "1"]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o755}
    assert {path.stat().st_mode & 0o777 for path in (base / "1").rglob("*") if path.is_file()} == {0o644}


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda base: withdraw(base, 9), "there is no version 9 in .*, it has 1, 2."),
        (lambda base: restore(base, 9), "there is no version 9 in .*, it has 1, 2."),
        (lambda base: restore(base, 1), "version 1 in .* is not withdrawn, there is nothing to restore."),
        (lambda base: withdraw(base, 2), "version 2 in .* is withdrawn already."),
        (lambda base: prune(base, -1), "must not be negative, received -1."),
        (lambda base: withdraw(f"{base}/1/saved_model.pb"), "must be a directory, and a file is in its place"),
        (lambda base: list_versions(f"{base}/1/saved_model.pb"), "must be a directory, and a file is in its place"),
        (lambda base: withdraw(f"{base}t"), "there is no directory .*heartt: check the name"),
        (lambda base: list_versions("s3://bucket/heart"), "local directory or gs://bucket/path, received 's3://"),
        (lambda base: publish(base, f"{base}/1/assets", provenance_of("c")), "it has no saved_model.pb"),
        (lambda base: publish(base, f"{base}/nowhere", provenance_of("c")), "it has no saved_model.pb"),
        (lambda base: publish(base, f"{base}/1", {"data_fingerprint": "c"}), "missing here: code_fingerprint"),
        (lambda base: publish(base, f"{base}/1", {**provenance_of("c"), "x": object()}), "must be JSON values"),
        (lambda base: publish(f"{base}/1/saved_model.pb", f"{base}/1", provenance_of("c")), "a file is in its place"),
        (lambda base: publish(f"{base}/1/saved_model.pb/x", f"{base}/1", provenance_of("c")), "a file is in its place"),
    ],
)
def test_a_refused_call_says_why_in_one_sentence_and_changes_nothing(base, tmp_path, call, sentence):
    for content in "ab":
        publish_content(base, tmp_path, content)
    withdraw(str(base), 2)
    before = sorted(base.rglob("*"))
    with pytest.raises(ModelStoreError, match=sentence) as raised:
        call(str(base))
    assert "\n" not in str(raised.value)
    assert sorted(base.rglob("*")) == before


def test_withdrawing_where_nothing_is_served_says_so(base, tmp_path):
    publish_content(base, tmp_path, "a")
    withdraw(str(base))
    with pytest.raises(ModelStoreError, match="serves no version, there is none to withdraw"):
        withdraw(str(base))


def test_a_version_pushed_again_under_a_withdrawn_number_is_not_mixed_up_with_it(base, tmp_path):
    publish_content(base, tmp_path, "a")
    withdraw(str(base))
    write_foreign_version(base / "1")
    assert [(version.number, version.withdrawn) for version in list_versions(str(base))] == [(1, False), (1, True)]
    with pytest.raises(ModelStoreError, match="was withdrawn before and something else has written it again"):
        withdraw(str(base))
    with pytest.raises(ModelStoreError, match="is not withdrawn"):
        restore(str(base), 1)


def test_an_unwritable_base_path_stays_as_it_was(base, tmp_path, worker):
    if os.getuid() != 0:
        pytest.skip("only root can act as another user")
    publish_content(base, tmp_path, "a")
    model = write_saved_model(tmp_path / "model", "b")
    for folder in [tmp_path, *tmp_path.parents]:
        if not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    before = sorted(base.rglob("*"))
    for call in (("publish", str(base), model, provenance_of("b")), ("withdraw", str(base)), ("prune", str(base), 1)):
        assert "cannot be written by this user (Permission denied" in worker.run(*call, user=NOBODY)["error"]
    assert (
        "cannot be written by this user"
        in worker.run("publish", str(base.parent / "new"), model, provenance_of("b"), user=NOBODY)["error"]
    )
    assert worker.run("list_versions", str(base), user=NOBODY)["error"] is None
    assert sorted(base.rglob("*")) == before


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 256 KiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=755", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_base_path_as_it_was(small_disk, tmp_path):
    base = small_disk / "heart"
    publish_content(base, tmp_path, "a")
    publish_content(base, tmp_path, "b")
    large = Path(write_saved_model(tmp_path / "large", "c"))
    (large / "variables/variables.data-00000-of-00001").write_bytes(bytes(300_000))
    before = sorted(base.rglob("*"))
    with pytest.raises(ModelStoreError, match=r"the disk or the quota is full .* free some space"):
        publish(str(base), str(large), provenance_of("c"))
    assert sorted(base.rglob("*")) == before
    assert visible_contents(base) == {1: "a", 2: "b"}
    assert publish_content(base, tmp_path, "c").number == 3


def test_on_a_full_disk_old_versions_can_be_pruned_and_bad_ones_are_refused_whole(small_disk, tmp_path):
    base = small_disk / "heart"
    publish_content(base, tmp_path, "a")
    publish_content(base, tmp_path, "b")
    with pytest.raises(OSError, match="No space left"), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    before = sorted(base.rglob("*"))
    with pytest.raises(ModelStoreError, match="the disk or the quota is full"):
        withdraw(str(base), reason="wrong")
    assert sorted(base.rglob("*")) == before
    assert [version.number for version in prune(str(base), keep=1)] == [1]
    assert withdraw(str(base), reason="wrong").number == 2


def test_a_read_only_file_system_can_be_read(small_disk, tmp_path):
    base = small_disk / "heart"
    publish_content(base, tmp_path, "a")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert numbers(base) == [1]
    with pytest.raises(ModelStoreError, match=r"cannot be written by this user \(Read-only file system"):
        publish_content(base, tmp_path, "b")


def test_on_a_file_system_neither_tensorflow_nor_google_cloud_storage_is_imported(base, tmp_path):
    model = write_saved_model(tmp_path / "model", "a")
    script = (
        "import sys; from serving.model_store import *; "
        f"publish({str(base)!r}, {model!r}, {provenance_of('a')!r}); withdraw({str(base)!r}); "
        f"restore({str(base)!r}, 1); prune({str(base)!r}, 1); verify(served_version({str(base)!r})); "
        "print([name for name in sys.modules if name.startswith(('tensorflow', 'google.cloud.', 'google.auth'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def key(tmp_path) -> SigningKey:
    make_key(tmp_path / "key.pem")
    return read_signing_key(tmp_path / "key.pem")


@pytest.fixture
def public(key, tmp_path):
    return read_public_key(tmp_path / "key.pem.pub")


@pytest.fixture
def signed(base, tmp_path, key):
    return publish(str(base), write_saved_model(tmp_path / "model", "a"), provenance_of("a"), {"extra": b"e"}, key)


def test_a_signature_is_of_every_file_and_outlives_rollback_and_copies(signed, public, base, tmp_path):
    assert signed.provenance["signed_by"] == public.fingerprint
    assert verify_signature(signed.path, 1, [public]) == public
    assert verify(signed) == []
    hidden = withdraw(str(base))
    assert verify_signature(hidden.path, 1, [public]) == public
    assert verify_signature(restore(str(base), 1).path, 1, [public]) == public
    shutil.copytree(signed.path, tmp_path / "elsewhere" / "1")
    (tmp_path / "copy").mkdir()
    assert verify_signature(str(tmp_path / "elsewhere/1"), 1, [public], tmp_path / "copy") == public
    copied = {path.relative_to(tmp_path / "copy").as_posix() for path in (tmp_path / "copy").rglob("*.*")}
    assert {"saved_model.pb", "assets.extra/provenance.json", "variables/variables.index"} <= copied
    assert (tmp_path / "copy/variables/variables.index").read_text() == "index of a"


def test_openssl_and_sha256sum_accept_a_signature_too(signed, tmp_path):
    encoded = Path(signed.path, "assets.extra/SHA256SUMS.sig").read_bytes()
    (tmp_path / "raw").write_bytes(base64.b64decode(encoded))
    by_openssl = ["openssl", "dgst", "-sha256", "-verify", tmp_path / "key.pem.pub", "-signature", tmp_path / "raw"]
    for command in (
        [*by_openssl, "assets.extra/SHA256SUMS"],
        ["sha256sum", "--strict", "-c", "assets.extra/SHA256SUMS"],
    ):
        done = subprocess.run(command, cwd=signed.path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def _edit(name: str, content: bytes):
    def edit(version: Path) -> None:
        (version / name).parent.mkdir(exist_ok=True)
        (version / name).write_bytes(content)

    return edit


def _sign_again(version: Path) -> None:
    """Somebody else changes a file, and signs what he has made of it."""
    make_key(version.parent / "other.pem")
    other = read_signing_key(version.parent / "other.pem")
    manifest = version / "assets.extra/SHA256SUMS"
    (version / "assets.extra/SHA256SUMS.sig").write_bytes(other.sign(manifest.read_bytes()))


def _pipe(version: Path) -> None:
    (version / "saved_model.pb").unlink()
    os.mkfifo(version / "saved_model.pb")


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_edit("saved_model.pb", b"evil"), "not as they were signed: saved_model.pb"),
        (_edit("assets/evil", b""), "not among the signed ones: assets/evil"),
        (_edit("assets.extra/provenance.json", b"{}"), "not as they were signed: assets.extra/provenance.json"),
        (_edit("assets.extra/SHA256SUMS", b""), "is not signed by the key"),
        (_edit("assets.extra/SHA256SUMS", b"x" * (2**24 + 1)), "has more than 16777216 bytes"),
        (_edit("assets.extra/SHA256SUMS.sig", b"AAAA"), "is not signed by the key"),
        (_edit("assets.extra/SHA256SUMS.sig", b"\xff no base64"), "is not signed by the key"),
        (_sign_again, "is not signed by the key"),
        (_pipe, "is no regular file"),
        (lambda version: (version / "assets/labels").unlink(), "missing: assets/labels"),
        (lambda version: (version / "assets/labels").rename(version / "assets/x"), "missing: assets/labels"),
        (lambda version: (version / "assets.extra/SHA256SUMS.sig").unlink(), "it has no assets.extra/SHA256SUMS.sig"),
        (lambda version: (version / "assets.extra/SHA256SUMS").unlink(), "it has no assets.extra/SHA256SUMS"),
    ],
)
def test_a_version_that_was_changed_after_it_was_signed_is_refused(signed, public, tamper, said):
    tamper(Path(signed.path))
    with pytest.raises(ModelStoreError, match=said):
        verify_signature(signed.path, 1, [public])


def test_a_version_under_another_number_than_it_was_signed_for_is_refused(signed, public, base):
    shutil.copytree(signed.path, base / "7")
    with pytest.raises(SignatureError, match="was published as version 1, and is found as version 7"):
        verify_signature(str(base / "7"), 7, [public])


def test_what_is_published_again_is_signed_anew_or_not_at_all(signed, key, public, tmp_path):
    plain = publish(str(tmp_path / "plain"), signed.path, provenance_of("b"))
    assert not Path(plain.path, "assets.extra/SHA256SUMS").exists()
    with pytest.raises(SignatureError, match=r"it has no assets\.extra/SHA256SUMS"):
        verify_signature(plain.path, 1, [public])
    again = publish(str(tmp_path / "again"), signed.path, provenance_of("b"), key=key)
    assert verify_signature(again.path, 1, [public]) == public


def test_a_file_name_that_would_be_two_lines_is_not_signed(key, base, tmp_path):
    model = Path(write_saved_model(tmp_path / "model", "a"))
    (model / f"x\n{'0' * 64}  evil").write_text("")
    with pytest.raises(ModelStoreError, match="has a line break or a backslash"):
        publish(str(base), str(model), provenance_of("a"), key=key)
    assert numbers(base) == []


def test_ed25519_keys_of_openssl_sign_too_and_any_of_several_keys_will_do(base, public, tmp_path):
    private, shown = tmp_path / "ed.pem", tmp_path / "ed.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", shown], check=True)
    ed25519 = read_signing_key(private)
    version = publish(str(base), write_saved_model(tmp_path / "m", "a"), provenance_of("a"), key=ed25519)
    assert verify_signature(version.path, 1, [public, read_public_key(shown)]).fingerprint == ed25519.fingerprint
    with pytest.raises(SignatureError, match="is not signed by the key"):
        verify_signature(version.path, 1, [public])


def test_a_key_is_its_owners_alone_and_its_passphrase_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("INGRAPH_SIGNING_KEY_PASSWORD", "correct horse")
    made = make_key(tmp_path / "secret.pem")
    assert (tmp_path / "secret.pem").stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in (tmp_path / "secret.pem").read_bytes()
    key = read_signing_key(tmp_path / "secret.pem")
    assert key.fingerprint == made.fingerprint == read_public_key(tmp_path / "secret.pem.pub").fingerprint
    assert repr(key) == f"SigningKey({key.fingerprint!r})"
    with pytest.raises(ModelStoreError, match="cannot be written: File exists; name a file that is not there yet"):
        make_key(tmp_path / "secret.pem")
    monkeypatch.setenv("INGRAPH_SIGNING_KEY_PASSWORD", "wrong")
    with pytest.raises(ModelStoreError, match="INGRAPH_SIGNING_KEY_PASSWORD is not its passphrase"):
        read_signing_key(tmp_path / "secret.pem")
    monkeypatch.delenv("INGRAPH_SIGNING_KEY_PASSWORD")
    with pytest.raises(ModelStoreError, match="has a passphrase: set INGRAPH_SIGNING_KEY_PASSWORD"):
        read_signing_key(tmp_path / "secret.pem")


def test_what_is_no_key_is_a_sentence_that_names_no_path_of_a_private_one(tmp_path):
    (tmp_path / "rubbish").write_text("rubbish")
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "rsa", "-out", tmp_path / "rsa.pem"], check=True, capture_output=True
    )
    for name, said in (
        ("rubbish", "is no private key in PEM"),
        ("rsa.pem", "is of another kind"),
        ("no", "No such file"),
    ):
        with pytest.raises(ModelStoreError, match=said) as raised:
            read_signing_key(tmp_path / name)
        assert str(tmp_path) not in str(raised.value)
        with pytest.raises(ModelStoreError, match=f"{name}: (expected a|the) public key"):
            read_public_key(tmp_path / name)
