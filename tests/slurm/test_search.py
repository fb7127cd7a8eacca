"""A search through Slurm: candidates and finalists are jobs side by side, and the choice is the local one."""

from __future__ import annotations

from pathlib import Path

import pytest
from accounts import at_the_same_time, jobs_in
from checkout import Checkout
from cluster import Cluster
from dag import archive_bytes, settings
from tiny_search import CANDIDATES, SEARCH, outcome, search_among

pytestmark = pytest.mark.timeout(900)


def test_candidates_are_jobs_side_by_side_and_the_choice_is_the_local_one(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(archive_bytes(["a", "b", "c"], per_class=20))
    wanted = settings({"path": str(tmp_path / "data.zip")}, best=search_among(tmp_path))
    slurm, local = Checkout(tmp_path / "slurm"), Checkout(tmp_path / "local")
    slurm.edit(
        "profiles/slurm/profile.yaml",
        ("# slurm_partition: gpu", "slurm_partition: gpu"),
        ("# slurm_account: my_lab", "slurm_account: lab"),
        ("# gpu_model: rtx3090", "gpu_model: rtx3090"),
    )
    # The GPUs are not real: what searches on the CPU takes one all the same.
    slurm.edit("profiles/slurm/site.yaml", ("device: cuda", "device: cuda\ncpu_jobs: false"))
    for checkout, profile in ((slurm, "slurm"), (local, "profiles/local")):
        config = checkout.write_settings("search.yaml", wanted)
        words = ("--profile", profile, "--configfile", config, "--", str(SEARCH / "choice.json"))
        status, output = checkout.run("snakemake", *words)
        assert status == 0, output
    assert outcome(slurm.folder) == outcome(local.folder)
    assert len(outcome(slurm.folder)["hashes"]) == 2
    data, *others = jobs_in(cluster, slurm.folder)
    assert [row["State"] for row in (data, *others)] == ["COMPLETED"] * (1 + len(CANDIDATES) + 2)
    probes, finalists = others[: len(CANDIDATES)], others[len(CANDIDATES) :]
    assert data["End"] <= min(row["Start"] for row in probes)
    assert at_the_same_time(probes) and at_the_same_time(finalists)
    assert max(row["End"] for row in probes) <= min(row["Start"] for row in finalists)
