"""Bundles of someone else's: only what a bundle may hold is unpacked, and nothing in it is run."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.workflow.bundles import MANIFEST, find_lock, unpack, write_bundle

GOOD = {"README.txt": b"hello", "results/d/e/seed0/config.py": b"a = 1\n"}


def entry(name: str, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def manifest(files: dict[str, bytes]) -> tuple[tarfile.TarInfo, bytes]:
    lines = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
    return entry(MANIFEST, lines.encode())


def write(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content) if content else None)
    return path


def test_what_was_bundled_is_unpacked_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"\0" * 3000)
    files = {"results/checkpoints/x-1.pth": tmp_path / "weights"}
    write_bundle(tmp_path / "a.tar", files, GOOD)
    names = unpack(tmp_path / "a.tar", tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names} == {
        **GOOD, "results/checkpoints/x-1.pth": b"\0" * 3000
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("x", b"1"), manifest(GOOD)], "does not begin with"),
        ([manifest({"../evil": b"1"}), entry("../evil", b"1")], "refused"),
        ([manifest({"/tmp/evil": b"1"}), entry("/tmp/evil", b"1")], "refused"),
        ([manifest({".git/config": b"1"}), entry(".git/config", b"1")], "refused"),
        ([manifest(GOOD), entry("README.txt", b"hello"), entry("more", b"1")], "not a file that its manifest names"),
        ([manifest(GOOD), entry("README.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "not a file"),
        ([manifest(GOOD), entry("README.txt", type=tarfile.LNKTYPE, linkname="/etc/passwd")], "not a file"),
        ([manifest(GOOD), entry("README.txt", type=tarfile.FIFOTYPE)], "not a file"),
        ([manifest(GOOD), entry("README.txt", b"hello"), entry("README.txt", b"hello")], "twice"),
        ([manifest(GOOD), entry("README.txt", b"HELLO")], "damaged, or was changed"),
        ([manifest(GOOD), entry("README.txt", b"hello")], "incomplete: results/d/e/seed0/config.py"),
        ([], "incomplete"),
    ],
)
def test_a_bundle_that_is_not_one_is_refused(
    tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        unpack(write(tmp_path / "a.tar", *entries), tmp_path / "deep" / "out")
    written = {path.name for path in (tmp_path / "deep").rglob("*") if path.is_file()}
    assert written <= {"README.txt"} and not (tmp_path / "deep" / "evil").exists()


def test_a_bundle_cut_short_or_of_another_kind_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", manifest(GOOD), entry("README.txt", b"hello" * 1000))
    path.write_bytes(path.read_bytes()[:2500])
    with pytest.raises(UserError, match="damaged or truncated"):
        unpack(path, tmp_path / "out")
    (tmp_path / "b.tar").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="not a bundle"):
        unpack(tmp_path / "b.tar", tmp_path / "out")
    with pytest.raises(UserError, match="no such file"):
        unpack(tmp_path / "c.tar", tmp_path / "out")


def test_the_lock_in_a_bundle_is_the_run_s_or_none(tmp_path: Path) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "cpu.lock").write_bytes(b"lock")
    inputs = {
        "environment": {"name": "cpu", "lock_sha256": hashlib.sha256(b"lock").hexdigest()},
        "code": {"commit": None},
    }
    assert find_lock(inputs, tmp_path) == b"lock"
    (tmp_path / "envs" / "cpu.lock").write_bytes(b"another")
    assert find_lock(inputs, tmp_path) is None


def test_the_lock_of_the_run_comes_from_its_commit_also_in_a_clone_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "envs" / "cpu.lock"
    lock.parent.mkdir()
    lock.write_bytes(b"lock\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    inputs = {
        "environment": {"name": "cpu", "lock_sha256": hashlib.sha256(b"lock\n").hexdigest()},
        "code": {"commit": commit},
    }
    lock.write_bytes(b"another")
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 12345, 12345)
    assert find_lock(inputs, tmp_path) == b"lock\n"
    monkeypatch.setenv("PATH", "")  # where git is not installed
    assert find_lock(inputs, tmp_path) is None
