"""Images on the node's own disk: there while they are needed, gone afterwards, the originals where they do not fit."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lib.data import scratch
from scripts.lib.data.scratch import staged, staged_pixel_cache

HOLD = """
import sys, time
from pathlib import Path
from scripts.lib.data.scratch import staged
with staged(Path(sys.argv[1]), [Path(sys.argv[2])], [sys.argv[3]]) as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path, Path]:
    images, split, node = tmp_path / "images", tmp_path / "train.txt", tmp_path / "scratch"
    node.mkdir()
    names = ["a b/1.jpg", "苹果/2.jpg", "c/3.jpg"]
    for name in names:
        (images / name).parent.mkdir(parents=True)
        (images / name).write_bytes(os.urandom(1000))
    split.write_text(f"{names[0]} 0\n{names[1]} 1\n", encoding="utf-8")
    return images, split, node


def test_the_split_is_copied_and_removed(data: tuple[Path, Path, Path]) -> None:
    images, split, node = data
    with staged(images, [split], ["$NOT_SET_HERE", "/no/such/folder", str(node)]) as folder:
        assert folder.parent == node
        for name in ("a b/1.jpg", "苹果/2.jpg"):
            assert (folder / name).read_bytes() == (images / name).read_bytes()
        assert not (folder / "c").exists()
    assert not list(node.iterdir())


def test_a_pack_is_copied_as_a_whole(tmp_path: Path) -> None:
    cache, node = tmp_path / "183", tmp_path / "scratch"
    for folder in (cache, node):
        folder.mkdir()
    for name in ("images.bin", "index.csv", "pack.json"):
        (cache / name).write_bytes(os.urandom(100))
    with staged_pixel_cache(cache, [str(node)]) as folder:
        assert folder.parent == node
        assert all((folder / path.name).read_bytes() == path.read_bytes() for path in cache.iterdir())
    assert not list(node.iterdir())


def test_removed_after_an_error_too(data: tuple[Path, Path, Path]) -> None:
    images, split, node = data
    with pytest.raises(OSError, match="mine"), staged(images, [split], [str(node)]):
        raise OSError("mine")
    assert not list(node.iterdir())


def test_what_does_not_fit_stays_where_it_is(data: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    images, split, node = data
    with staged(images, [split], [str(node)], 1e-6) as folder:
        assert folder == images
    monkeypatch.setattr(scratch, "FRACTION_OF_FREE", 0.0)
    with staged(images, [split], [str(node)]) as folder:
        assert folder == images
    with staged(images, [split], []) as folder:
        assert folder == images


def test_a_place_that_fills_up_meanwhile(data: tuple[Path, Path, Path], tmp_path: Path) -> None:
    images, split, _ = data
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    small = tmp_path / "small"
    small.mkdir()
    (images / "a b/1.jpg").write_bytes(os.urandom(600_000))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", small], check=True)
    try:
        original = scratch._folder_with_room
        scratch._folder_with_room = lambda folders, size: small  # type: ignore[assignment]  # as if it had room a moment ago
        with staged(images, [split], [str(small)]) as folder:
            assert folder == images
        assert not list(small.iterdir())
    finally:
        scratch._folder_with_room = original
        subprocess.run(["umount", small], check=True)


def test_the_copy_of_a_killed_process_is_removed_by_the_next(data: tuple[Path, Path, Path]) -> None:
    images, split, node = data
    words = [sys.executable, "-c", HOLD, str(images), str(split), str(node)]
    first, second = (subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2))
    try:
        assert first.stdout and second.stdout
        lost, kept = Path(first.stdout.readline().strip()), Path(second.stdout.readline().strip())
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert lost.is_dir()
        with staged(images, [split], [str(node)]):
            assert not lost.exists()
            assert kept.is_dir()  # its process lives
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def test_a_folder_that_another_process_sweeps_before_it_is_locked_is_made_anew(
    data: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, split, node = data
    flock, swept = fcntl.flock, []

    def late(lock: int, how: int) -> None:
        if not swept:
            swept.extend(node.iterdir())
            scratch._sweep(node)
            assert not any(folder.exists() for folder in swept)
        flock(lock, how)

    monkeypatch.setattr(scratch.fcntl, "flock", late)
    with staged(images, [split], [str(node)]) as folder:
        assert swept and folder not in swept
        assert (folder / scratch.LOCK_NAME).is_file()
        scratch._sweep(node)
        assert (folder / "a b/1.jpg").is_file()
    assert not list(node.iterdir())


def test_a_sweep_that_is_killed_is_finished_by_the_next(
    data: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, node = data
    folder = node / f"{scratch.PREFIX}left"
    for name in ("a/1.jpg", "b/2.jpg", "z/3.jpg", scratch.LOCK_NAME):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    rmtree, removed = scratch.shutil.rmtree, []

    def killed(path: str, ignore_errors: bool = False) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        rmtree(path)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(scratch.shutil, "rmtree", killed)
        scratch._sweep(node)
    assert folder.is_dir()
    scratch._sweep(node)
    assert not folder.exists()
