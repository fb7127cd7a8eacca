"""Reruns of a workflow with stand-ins for its scripts: which of them make a plan, and that it finds what changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from dag import ROOT, archive_bytes, settings
from stand_in import SNAKEFILE

from scripts.lib.workflow.last_plan import FOLDER

RUN = "results/small/quick/seed0"
#: What changed this long before a process began, it has not read half: by clocks that are coarse.
CLOCK = 4.0
#: What is said of steps that will run, in both languages.
TO_DO = ("to do; details", "个步骤要做；每一步的详情")


def start(folder: Path, config: dict[str, Any], *options: str) -> tuple[bool, str]:
    """Run the workflow as `make` does; return whether it made a plan, and what it printed."""
    (folder / "settings.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "scripts.lib.workflow.start", "--profile=profiles/local"]
    result = subprocess.run(
        [*command, "--configfile=settings.yaml", *options], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)},
        text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    log = max((folder / ".snakemake/log").iterdir()).read_text(encoding="utf-8")
    is_planned = "Nothing to be done" in log or any(line in result.stdout for line in TO_DO)
    assert is_planned or "nothing to do: everything is made as the settings say; the report: " in result.stdout
    return is_planned, result.stdout


@pytest.mark.long
def test_a_plan_is_made_where_something_may_have_changed_and_only_there(tmp_path: Path) -> None:
    folder = tmp_path / "mimflow"
    for name in ("scripts", "rules", "envs", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "Snakefile").write_text((ROOT / "Snakefile").read_text(encoding="utf-8") + SNAKEFILE, encoding="utf-8")
    (tmp_path / "data.zip").write_bytes(archive_bytes(["a", "b"]))
    config = settings({"path": str(tmp_path / "data.zip")})
    time.sleep(CLOCK)

    assert "to do" in start(folder, config)[1]
    is_planned, printed = start(folder, config)
    assert not is_planned and printed.splitlines()[-1].startswith("nothing to do")

    shutil.rmtree(folder / FOLDER)
    is_planned, planned = start(folder, config)
    assert is_planned and planned == printed  # to the letter

    metrics = folder / RUN / "metrics.json"
    status = metrics.stat()
    metrics.write_bytes(b"X" + metrics.read_bytes()[1:])
    os.utime(metrics, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert f"{RUN}/metrics.json is not what was made" in start(folder, config)[1]
    assert not start(folder, config)[0]

    (folder / "scripts/report/captions/en/workflow.rst").touch()  # of what it was: a plan, and nothing to do
    is_planned, printed = start(folder, config)
    assert is_planned and "nothing to do" in printed

    assert TO_DO[1] in start(folder, {**config, "report": {"language": "zh"}})[1]
