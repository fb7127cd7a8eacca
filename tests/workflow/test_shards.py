"""A data stage that several jobs share: the files of one job, a shard that failed alone done again, nothing left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkout import Checkout
from dag import archive_bytes, jobs_run, settings, snakemake

from scripts.lib.workflow import quick

pytestmark = pytest.mark.long

SHORT_SIDE = 40
TARGETS = ("--", "results/small/audit.html", f"results/small/packed/{SHORT_SIDE}")
RULES = ["audit_images", "describe_data", "fetch_archive", "pack_images", "split_dataset", "unpack_archive"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    archive = tmp_path_factory.mktemp("data") / "data.zip"
    archive.write_bytes(archive_bytes(["apple", "梨"], per_class=8))
    return settings({"path": str(archive)})


def results_of(folder: Path) -> dict[str, bytes]:
    """Return the files of the data stage; what is kept for later audits, and records with times, are of no result."""
    files = (path for path in (folder / "results/small").rglob("*") if path.is_file() and ".made" not in path.parts)
    return {
        path.relative_to(folder / "results/small").as_posix(): path.read_bytes()
        for path in files
        if path.suffix != ".cache"
    }


@pytest.fixture(scope="module")
def whole(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of one job for each step."""
    folder = tmp_path_factory.mktemp("whole")
    result = snakemake(folder, config, *TARGETS)
    assert result.returncode == 0 and jobs_run(result.stdout) == RULES, result.stdout
    return results_of(folder)


@pytest.mark.parametrize("shards", [2, 7])
def test_the_results_of_shards_are_those_of_one_job(
    shards: int, config: dict[str, Any], whole: dict[str, bytes], tmp_path: Path
) -> None:
    divided = {**config, "data_shards": shards}
    result = snakemake(tmp_path, divided, *TARGETS)
    assert result.returncode == 0, result.stdout
    assert jobs_run(result.stdout) == sorted([*RULES, *["check_images", "decode_images"] * shards])
    assert results_of(tmp_path) == whole
    again = snakemake(tmp_path, divided, *TARGETS)
    assert again.returncode == 0 and jobs_run(again.stdout) == [] and "Nothing to be done" in again.stdout, again.stdout
    quick.verify(tmp_path / "results")
    undivided = snakemake(tmp_path, config, *TARGETS)
    assert undivided.returncode == 0, undivided.stdout
    assert results_of(tmp_path) == whole


def test_a_shard_that_failed_is_done_again_alone(
    config: dict[str, Any], whole: dict[str, bytes], tmp_path: Path
) -> None:
    divided = {**config, "data_shards": 3}
    in_the_way = tmp_path / "results/small/audit_2of3.cache"
    in_the_way.mkdir(parents=True)
    failed = snakemake(tmp_path, divided, *TARGETS)
    assert failed.returncode == 1 and jobs_run(failed.stdout).count("check_images") == 2, failed.stdout
    in_the_way.rmdir()
    result = snakemake(tmp_path, divided, *TARGETS)
    assert result.returncode == 0 and jobs_run(result.stdout).count("check_images") == 1, result.stdout
    assert results_of(tmp_path) == whole


def test_auto_divides_by_the_number_of_images(config: dict[str, Any], whole: dict[str, bytes], tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "mimflow")
    divided = checkout.write_settings("small.yaml", {**config, "data_shards": "auto"})
    command = ["snakemake", "--profile=profiles/local", f"--configfile={divided}", "--printshellcmds", *TARGETS]
    for before, least, shards in (("250_000", "17", 1), ("17", "8", 2)):
        checkout.edit("scripts/lib/data/shards.py", (f"WORTHWHILE = {before}", f"WORTHWHILE = {least}"))
        shutil.rmtree(checkout.folder / "results", ignore_errors=True)
        status, output = checkout.run(*command)
        assert status == 0, output
        jobs = ["check_images", "decode_images"] * shards if shards > 1 else []
        assert jobs_run(output) == sorted([*RULES, "count_images", *jobs])
        results = results_of(checkout.folder)
        assert json.loads(results.pop("shards.json")) == {"images": 16, "shards": shards}
        assert results == whole
        status, output = checkout.run(*command)
        assert status == 0 and jobs_run(output) == [] and "Nothing to be done" in output, output
        quick.verify(checkout.folder / "results")
