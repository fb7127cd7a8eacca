"""A search that is killed, gets a longer list, or weights that could not be had before: only what is new is tried."""

from __future__ import annotations

import json
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
from http_server import HttpServer
from tiny_search import CANDIDATES, SEARCH, outcome, search_among

from scripts.lib.base.environment import Variable

pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
pytestmark = pytest.mark.long

#: So many candidates that there is a second round.
SIX = (*CANDIDATES, "test_efficientnet", "test_convnext2", "test_efficientnet_ln")
#: What a search has got to when it is killed: while candidates are tried, and while a finalist of each round trains.
MOMENTS = ("timm-test_*/probe.json", "round1/1/work", "round2/0/work")


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
    """The one that is killed is of forks, the other of ordinary processes."""
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, killed):
        folder.mkdir()
    config = search_of(tmp_path, SIX)
    ordinary = {str(Variable.FORK): "no"}
    result = snakemake(alone, config, "--", str(SEARCH / "choice.json"), environment=ordinary)
    assert result.returncode == 0, result.stdout

    for moment in MOMENTS:
        kill_at(killed, config, moment)
    result = snakemake(killed, config, "--", str(SEARCH / "choice.json"))
    assert result.returncode == 0, result.stdout
    assert outcome(killed) == outcome(alone)
    assert len(outcome(alone)["hashes"]) == 3 + 2

    longer = search_of(tmp_path, (*SIX, "test_nfnet"))
    result = snakemake(alone, longer, "--", str(SEARCH / "choice.json"))
    assert result.returncode == 0, result.stdout
    assert jobs_run(result.stdout).count("probe_candidate") == 1, result.stdout


@pytest.mark.timeout(900)
def test_weights_that_could_not_be_had_are_asked_for_by_the_same_command(tmp_path: Path) -> None:
    config = search_of(tmp_path, CANDIDATES)
    late = config["experiments"]["best"]["candidates"][2]["checkpoint"]
    content = Path(late.pop("path")).read_bytes()
    target = ("--", str(SEARCH / "choice.json"))
    with HttpServer() as hub:
        late["url"] = hub.url("late.pth")
        result = snakemake(tmp_path, config, *target)
        assert result.returncode == 0, result.stdout
        assert "the same command asks for them again" in left_out(tmp_path)[CANDIDATES[2]]

        result = snakemake(tmp_path, config, *target)
        assert result.returncode == 0, result.stdout
        assert "asked for again" in result.stdout and jobs_run(result.stdout) == [], result.stdout

        trained = {path: path.stat().st_mtime_ns for path in (tmp_path / SEARCH).glob("round1/*/work/*/*.csv")}
        hub.serve("late.pth", content)
        result = snakemake(tmp_path, config, *target)
    assert result.returncode == 0, result.stdout
    assert "may change which model it chooses" in result.stdout
    assert jobs_run(result.stdout).count("probe_candidate") == 1, result.stdout
    assert "fetch_checkpoint" not in jobs_run(result.stdout) and not left_out(tmp_path), result.stdout
    assert trained and all(path.stat().st_mtime_ns == then for path, then in trained.items())


def left_out(folder: Path) -> dict[str, str]:
    """Return the candidates that were left out, each with its reason."""
    candidates = json.loads((folder / SEARCH / "choice.json").read_text())["candidates"]
    return {tried["base_config"].removeprefix("timm/"): tried["left_out"] for tried in candidates if tried["left_out"]}
