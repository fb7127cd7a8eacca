"""A data stage in shards: a Slurm job each; one that is killed is done again alone, with the files of one job."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from checkout import Checkout, finish
from cluster import Cluster
from daemons import wait_until
from dag import archive_bytes, settings

pytestmark = [pytest.mark.timeout(1200), pytest.mark.on_demand]

SHORT_SIDE = 40
#: Each attempt at a shard notes which job it is in; the first one at the second shard waits for its end.
WAITING = """    import os
    from pathlib import Path
    step = Path(__file__).stem
    with open("attempts.txt", "a") as file:
        file.write(f"{step} {args.shard} {os.environ['SLURM_JOB_ID']}\\n")
    if args.shard.number == 2 and Path("attempts.txt").read_text().count(f"{step} {args.shard} ") == 1:
        time.sleep(600)
    began = time.monotonic()
"""


def command(config: str, profile: str, dataset: str) -> list[str]:
    targets = (f"results/{dataset}/audit.json", f"results/{dataset}/packed/{SHORT_SIDE}")
    return ["snakemake", *targets, "--profile", profile, "--configfile", config]


def results_of(folder: Path) -> dict[str, bytes]:
    """Return the files of the data stage, without what is kept for later audits and records with times."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".made" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if path.suffix != ".cache"}


def attempts_at(checkout: Checkout) -> dict[tuple[str, str], list[str]]:
    """Return the jobs that did a shard of a step, by both."""
    jobs: dict[tuple[str, str], list[str]] = defaultdict(list)
    file = checkout.folder / "attempts.txt"
    for line in file.read_text().splitlines() if file.exists() else ():
        step, shard, job = line.split(" ")
        jobs[step, shard].append(job)
    return dict(jobs)


def test_a_shard_whose_job_is_killed_is_done_again_alone(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(archive_bytes(["apple", "pear", "plum"], per_class=10))
    checkout = Checkout(tmp_path / "mimflow")
    checkout.edit("profiles/slurm/profile.yaml", ("# slurm_account: my_lab", "slurm_account: lab"))
    checkout.edit("profiles/slurm/profile.yaml", ("# slurm_partition: gpu", "slurm_partition: cpu"))
    small = settings({"path": str(tmp_path / "data.zip")})
    whole = {**small, "dataset": {**small["dataset"], "name": "whole"}}
    status, output = checkout.run(*command(checkout.write_settings("whole.yaml", whole), "profiles/local", "whole"))
    assert status == 0, output
    for script in ("check_images", "decode_images"):
        checkout.edit(f"scripts/data/{script}.py", ("    began = time.monotonic()\n", WAITING))
    checkout.edit("scripts/lib/data/shards.py", ("WORTHWHILE = 250_000", "WORTHWHILE = 10"))  # three for 30 images
    config = checkout.write_settings("small.yaml", {**small, "data_shards": "auto"})
    controller = checkout.start(*command(config, "slurm", "small"))
    killed = {}
    try:
        for script in ("check_images", "decode_images"):
            assert wait_until(lambda script=script: (script, "2of3") in attempts_at(checkout), 300, every=0.2)
            (killed[script],) = attempts_at(checkout)[script, "2of3"]
            subprocess.run(["scancel", "--signal=KILL", "--full", killed[script]], check=True)
    finally:
        status, output = finish(controller, 600 if len(killed) == 2 else 1)
    assert status == 0, output
    results = results_of(checkout.folder / "results/small")
    assert json.loads(results.pop("shards.json")) == {"images": 30, "shards": 3}
    assert results == results_of(checkout.folder / "results/whole")

    jobs = [row for row in cluster.jobs() if row["WorkDir"] == str(checkout.folder)]
    assert {row["JobIDRaw"] for row in jobs if row["State"] != "COMPLETED"} == set(killed.values())
    numbers = {attempt: len(set(ids)) for attempt, ids in attempts_at(checkout).items()}
    again = {(script, "2of3"): 2 for script in killed}
    assert numbers == {(script, f"{number}of3"): 1 for script in killed for number in (1, 3)} | again
    # Beside the shards: unpacking, the audit with the split, and the pixel cache.
    assert len(jobs) == 8 + 3, jobs
