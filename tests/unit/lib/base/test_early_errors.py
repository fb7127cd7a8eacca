"""A command that cannot be loaded ends in one line, with an outcome where a rule calls it: by real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from dag import ROOT

from scripts.lib.base.outcome import Ending, Outcome

LOAD = "a module does not load{}: ModuleNotFoundError: No module named "
SEEN = LOAD.format(" (see logs/a.log)")


def run(folder: Path, line: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of mimflow's whose module begins by *line*."""
    (folder / "scripts" / "broken.py").write_text(f"{line}\n")
    command = [sys.executable, "-m", "scripts.broken", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with mimflow's package and room for one more command."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "__init__.py").write_text((ROOT / "scripts/__init__.py").read_text())
    (tmp_path / "scripts" / "lib").symlink_to(ROOT / "scripts" / "lib")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("import nothing_of_this_name", f"{SEEN}'nothing_of_this_name': remove .venv, then"),
        ("import scripts.nothing", f"{SEEN}'scripts.nothing': `git status` shows"),
        ("def (", "unexpected SyntaxError: invalid syntax (broken.py, line 1); details: logs/a.log"),
        ("raise MemoryError", "no memory left: end other programs"),
        ("open('gone.csv')", "no such file or folder (gone.csv): check the path; details: logs/a.log"),
    ],
)
def test_the_step_of_a_rule_that_cannot_be_loaded_tells_why(line: str, error: str, folder: Path) -> None:
    result = run(folder, line, "--log", "logs/a.log")
    assert result.returncode == 1 and result.stderr.startswith(f"error: {error}") and result.stderr.count("\n") == 1
    outcome = Outcome.read(folder / "logs" / "a.outcome.json")
    assert outcome is not None and outcome.ending == Ending.FAILED and str(outcome).startswith(error)
    assert "Traceback (most recent call last)" in (folder / "logs" / "a.log").read_text()


def test_a_command_of_a_person_has_one_line_for_a_missing_package_and_the_traceback_of_a_slip(folder: Path) -> None:
    missing = run(folder, "import nothing_of_this_name").stderr
    assert (
        missing == f"error: {LOAD.format('')}'nothing_of_this_name': remove .venv, then `make setup` builds it anew\n"
    )
    assert run(folder, "1 / 0").stderr.startswith("Traceback (most recent call last)")
