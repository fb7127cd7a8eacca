"""What a dry run prints, and that Snakemake plans the same with and without mimflow's shortcuts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import stand_in
from dag import QUICK, ROOT, archive_bytes, settings, snakemake

pytestmark = pytest.mark.long


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Return the settings of four runs on data of their own."""
    (tmp_path / "data.zip").write_bytes(archive_bytes(["a", "b"]))
    (tmp_path / "weights.pth").touch()
    fast = {**QUICK, "checkpoint": {"path": "weights.pth"}, "recipe": "fast"}
    return settings({"path": "data.zip"}, (0, 1), slow=QUICK, quick=fast)


def test_a_dry_run_counts_the_steps_of_each_rule_and_says_why(tmp_path: Path, config: dict[str, Any]) -> None:
    result = snakemake(tmp_path, config, "-n", is_detailed=False)
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    assert ["train_model", "4", "2 each of quick, slow"] in [re.split(r" {2,}", line) for line in lines]
    assert "fit_head" in result.stdout and "training quick, seed 0" not in result.stdout
    assert lines[-1].startswith("nothing has been run; ") and lines[-2].endswith(" steps to do")

    assert stand_in.run(tmp_path, config).returncode == 0
    config["experiments"]["slow"] = {**QUICK, "epochs": 2}
    lines = snakemake(tmp_path, config, "-n", is_detailed=False).stdout.splitlines()
    assert ["train_model", "2", "2 of slow"] in [re.split(r" {2,}", line) for line in lines]
    assert "because slow: epochs 1 -> 2" in lines and not any(line.startswith("fetch_") for line in lines)


def plan(folder: Path, config: dict[str, Any], known: str) -> list[str]:
    """Return what a dry run prints of each step, sorted, where shortcuts are known for a version of Snakemake."""
    text = (ROOT / "Snakefile").read_text(encoding="utf-8").replace('include: "', f'include: "{ROOT}/')
    line = "from scripts.lib.workflow.session import Session\n"
    assert line in text
    hook = f"from scripts.lib.workflow import planning\nplanning.KNOWN = {known!r} or planning.KNOWN\n"
    snakefile = folder / "Snakefile"
    snakefile.write_text(text.replace(line, hook + line), encoding="utf-8")
    result = snakemake(folder, config, "-n", snakefile=snakefile)
    assert result.returncode == 0, result.stdout
    return sorted(re.sub(r"jobid: \d+|\[.* \d{4}\]", "", line) for line in result.stdout.splitlines())


def test_the_plan_is_the_same_without_the_shortcuts(tmp_path: Path, config: dict[str, Any]) -> None:
    ours, snakemakes = plan(tmp_path, config, ""), plan(tmp_path, config, "none")
    assert ours == snakemakes and sum("training quick" in line for line in ours) == 2
