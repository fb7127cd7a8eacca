"""The definition files for Apptainer: made from the locks of today, of files that are there."""

from __future__ import annotations

import re
import subprocess

import pytest
from set_up import ENVS, ROOT, load

ENVIRONMENTS = ("cpu", "cuda11", "cuda13")


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_each_definition_file_is_what_the_locks_say_today(env: str) -> None:
    apptainer = load(ENVS / "apptainer.py")
    text = (ENVS / f"{env}.def").read_text(encoding="utf-8")
    assert text == apptainer.definition(env), "run `python3 envs/apptainer.py`"


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_a_definition_file_copies_what_is_there_and_its_sums_are_those_of_the_locks(env: str) -> None:
    text = (ENVS / f"{env}.def").read_text(encoding="utf-8")
    copied = re.findall(r"^    (\S+) /opt/mimflow/\1$", text, re.MULTILINE)
    assert {"envs", "scripts", "Snakefile"} <= set(copied) and all((ROOT / name).exists() for name in copied)
    sums = "".join(re.findall(r"^[0-9a-f]{64}  envs/.*\n", text, re.MULTILINE))
    checked = subprocess.run(["sha256sum", "--check"], cwd=ROOT, input=sums, text=True, capture_output=True)
    assert checked.returncode == 0 and f"envs/{env}.lock: OK" in checked.stdout
