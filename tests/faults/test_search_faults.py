"""A search for a model that is killed at any moment ends in the same choice, and a changed list tries what is new."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from dag import ROOT, archive_bytes, jobs_run, settings, snakemake
from tiny_search import CANDIDATES, SEARCH, outcome, search_among

pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
pytestmark = pytest.mark.long

#: What a search has got to when it is killed: while candidates are tried, and while a finalist trains.
MOMENTS = ("timm-test_*/probe.json", "round1/1/work")


def search_of(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Write the images and the weights; return the settings."""
    if not (folder / "data.zip").exists():
        (folder / "data.zip").write_bytes(archive_bytes(["a", "b", "c"], per_class=20))
    return settings({"path": str(folder / "data.zip")}, best=search_among(folder, names))


def kill_at(folder: Path, config: dict[str, Any], moment: str) -> None:
    """Start the search, and kill all of its processes once *moment* is there."""
    (folder / "settings.yaml").write_text(yaml.safe_dump(config))
    command = [str(Path(sys.executable).with_name("snakemake")), "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--profile", str(ROOT / "profiles" / "local")]
    command += ["--configfile", str(folder / "settings.yaml"), "--", str(SEARCH / "choice.json")]
    with open(folder / "killed.txt", "ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + 300
    while not list((folder / SEARCH).glob(moment)):
        assert process.poll() is None and time.monotonic() < deadline, (folder / "killed.txt").read_text()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.timeout(900)
def test_a_search_that_is_killed_ends_in_the_same_choice_and_a_longer_list_tries_only_what_is_new(
    tmp_path: Path,
) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, killed):
        folder.mkdir()
    config = search_of(tmp_path, CANDIDATES)
    result = snakemake(alone, config, "--", str(SEARCH / "choice.json"))
    assert result.returncode == 0, result.stdout

    for moment in MOMENTS:
        kill_at(killed, config, moment)
    result = snakemake(killed, config, "--", str(SEARCH / "choice.json"))
    assert result.returncode == 0, result.stdout
    assert outcome(killed) == outcome(alone)

    longer = search_of(tmp_path, (*CANDIDATES, "test_nfnet"))
    result = snakemake(alone, longer, "--", str(SEARCH / "choice.json"))
    assert result.returncode == 0, result.stdout
    assert jobs_run(result.stdout).count("probe_candidate") == 1, result.stdout
