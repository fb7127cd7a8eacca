"""One results folder of two people, each with a umask that closes it: what one began the other goes on with."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dag import archive_bytes, settings, snakemake
from people import ALICE, BOB, GROUP, shared_folder

pytestmark = pytest.mark.long


def as_user(user: int, home: Path) -> dict[str, Any]:
    """Return the options of a process of a user's; skip where this Python lies in root's home, closed to others."""
    options: dict[str, Any] = {"user": user, "group": GROUP, "extra_groups": [], "umask": 0o022}
    try:
        subprocess.run([sys.executable, "-c", "import torch"], check=True, capture_output=True, **options)
    except (PermissionError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a Python that other users may run: {error}")
    home.mkdir()
    os.chown(home, user, GROUP)
    return {**options, "environment": {"HOME": str(home), "USER": str(user), "LOGNAME": str(user)}}


@pytest.fixture
def folder() -> Iterator[Path]:
    with shared_folder() as folder:
        yield folder


def test_two_people_take_turns(folder: Path) -> None:
    alice, bob = as_user(ALICE, folder.with_name("alice")), as_user(BOB, folder.with_name("bob"))
    data = folder.with_name("data.zip")
    data.write_bytes(archive_bytes(["apple", "pear", "plum"]))
    first = settings({"path": str(data)})
    assert (result := snakemake(folder, first, **alice)).returncode == 0, result.stdout
    second = copy.deepcopy(first)
    second["dataset"]["split"] = {"seed": 1}  # nearly all is made again
    assert (result := snakemake(folder, second, **bob)).returncode == 0, result.stdout
    assert (folder / "results/small/splits/train.txt").stat().st_uid == BOB
    closed = [
        path
        for name in ("results", "logs", ".snakemake")
        for path in (folder / name).rglob("*")
        if not path.is_symlink() and (path.stat().st_gid != GROUP or not path.stat().st_mode & 0o020)
    ]
    assert not [path for path in closed if path.is_dir() or path.parts[-2] != "log"], closed
    assert (result := snakemake(folder, second, **alice)).returncode == 0 and "Nothing to be done" in result.stdout
    assert (result := snakemake(folder, first, "--until", "train_model", **alice)).returncode == 0, result.stdout
