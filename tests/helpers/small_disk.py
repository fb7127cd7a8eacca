"""Small disks that are full or read-only, for tests of what happens then."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: int = 4, *options: str) -> Iterator[Path]:
    """Yield *folder* as a disk of its own; skip the test where that is not allowed (most containers)."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={megabytes}m", *options]), "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_inodes(folder: Path, leave: int = 0) -> None:
    """Make files on the disk of *folder* until it takes only *leave* more."""
    (folder / "filler").mkdir()
    for number in range(os.statvfs(folder).f_favail - leave):
        (folder / "filler" / str(number)).touch()


def fill(folder: Path, leave: int = 0) -> None:
    """Fill the disk of *folder* but for *leave* bytes."""
    (folder / "filler").write_bytes(b"x" * max(0, shutil.disk_usage(folder).free - leave))
