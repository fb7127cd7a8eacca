"""Whose commit provenance names: mimflow's own, or none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.lib.runs.machine import describe_code, find_repository

NOTHING = (None, None)


def git(folder: Path, *words: str) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "protocol.file.allow=always", *words]
    subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True)


def commit_all(folder: Path) -> None:
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    git(folder, "remote", "add", "origin", "https://example.org/theirs.git")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with a workflow, as an unpacked archive has it."""
    root = tmp_path / "above" / "mimflow"
    (root / "scripts").mkdir(parents=True)
    (root / "Snakefile").write_text("rule all:\n")
    (root / "scripts" / "a.py").write_text("a = 1\n")
    return root


def recorded(root: Path) -> tuple[str | None, bool | None]:
    return (code := describe_code(root))["commit"], code["dirty"]


def test_below_another_repository_no_commit_is_named(code: Path) -> None:
    (code.parent / "thesis.tex").write_text("")
    (code.parent / ".gitignore").write_text("mimflow\n")
    commit_all(code.parent)
    assert recorded(code) == NOTHING and find_repository(code) is None
    (code.parent / ".gitignore").unlink()  # also where the other one holds a copy of the files
    git(code.parent, "add", ".")
    git(code.parent, "commit", "-qm", "with mimflow")
    assert recorded(code) == NOTHING and find_repository(code) is None


def test_a_broken_git_folder_does_not_lead_to_the_repository_above(code: Path) -> None:
    (code.parent / "thesis.tex").write_text("")
    commit_all(code.parent)
    (code / ".git").mkdir()
    assert recorded(code) == NOTHING


def test_a_repository_of_something_else_in_the_same_folder_is_not_named(code: Path) -> None:
    (code / "notes.md").write_text("")
    (code / ".gitignore").write_text("scripts\nSnakefile\n")
    commit_all(code)
    assert recorded(code) == NOTHING


def test_a_repository_without_commits_is_not_named(code: Path) -> None:
    git(code, "init", "-q")
    assert recorded(code) == NOTHING


@pytest.mark.parametrize("variable", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CEILING_DIRECTORIES"])
def test_variables_of_a_hook_do_not_change_the_repository(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    commit_all(code)
    mine = recorded(code)
    other = tmp_path / "other"
    shutil.copytree(code / "scripts", other)
    commit_all(other)
    monkeypatch.setenv(variable, str(other / ".git"))
    assert mine[0] and recorded(code) == mine


@pytest.mark.parametrize("kind", ["worktree", "submodule"])
def test_a_worktree_and_a_submodule_have_a_commit_of_their_own(code: Path, tmp_path: Path, kind: str) -> None:
    commit_all(code)
    mine, other = recorded(code), tmp_path / "other"
    if kind == "worktree":
        git(code, "worktree", "add", "-q", str(other))
    else:
        above = tmp_path / "thesis"
        above.mkdir()
        (above / "thesis.tex").write_text("")
        commit_all(above)
        git(above, "submodule", "add", "-q", str(code), "mimflow")
        git(above, "commit", "-qm", "with mimflow")
        other = above / "mimflow"
    assert mine[1] is False and recorded(other) == mine
    (other / "scripts" / "a.py").write_text("a = 2\n")
    assert recorded(other) == (mine[0], True)


def test_code_that_is_not_in_the_commit_is_dirty(code: Path) -> None:
    commit_all(code)
    (code / "notes.txt").write_text("")
    assert recorded(code)[1] is False
    (code / "scripts" / "mine.py").write_text("")
    assert recorded(code)[1] is True


@pytest.mark.parametrize(
    "hide",
    [
        ["update-index", "--assume-unchanged", "scripts/a.py"],
        ["update-index", "--skip-worktree", "scripts/a.py"],
        ["config", "status.showUntrackedFiles", "no"],
    ],
)
def test_changed_code_is_dirty_whatever_git_was_told_to_hide(code: Path, hide: list[str]) -> None:
    commit_all(code)
    git(code, *hide)
    assert recorded(code)[1] is False
    (code / "scripts" / "a.py").write_text("a = 2\n")
    assert recorded(code)[1] is True


def test_code_with_other_line_ends_of_a_clone_on_windows_is_not_dirty(code: Path) -> None:
    git(code, "init", "-q")
    git(code, "config", "core.autocrlf", "true")
    commit_all(code)
    (code / "scripts" / "a.py").unlink()
    git(code, "checkout", "-q", "--", ".")
    assert b"\r\n" in (code / "scripts" / "a.py").read_bytes() and recorded(code)[1] is False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_clone_of_another_user_is_named(code: Path) -> None:
    commit_all(code)
    for path in (code, *code.rglob("*")):
        os.chown(path, 12345, 12345)
    commit, dirty = recorded(code)
    assert re.fullmatch("[0-9a-f]{40}", commit or "") and dirty is False
