"""What `make doctor` says of a clone, of folders, of the shell and of Slurm, each before anything is computed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.lib.base.environment import ROOT
from scripts.lib.base.problems import Problem
from scripts.lib.workflow.surroundings_check import LINKS, surroundings_problems

#: A shell in which nothing is wrong.
SHELL = {"HOME": os.path.expanduser("~"), "LANG": "C.UTF-8", "PATH": os.environ["PATH"]}


def problems_of(root: Path, started: bool = True, **shell: str) -> list[Problem]:
    environment = SHELL | shell
    return surroundings_problems(environment | ({"MIMFLOW_SHELL": json.dumps({})} if started else {}), root)


def the_one(problems: list[Problem]) -> Problem:
    [problem] = problems
    assert problem.remedy
    return problem


def test_where_nothing_is_wrong_nothing_is_said(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == []
    assert problems_of(tmp_path, LANG="zh_CN.UTF-8", LC_CTYPE="en_US.utf8") == []


# --- the clone --------------------------------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with this one's shell files, its link and its .gitattributes, to be cloned from."""
    origin = tmp_path / "origin"
    (origin / "envs").mkdir(parents=True)
    for name in ("Makefile", "envs/setup.sh", "envs/find_python.sh", "envs/cpu.lock", ".gitattributes"):
        shutil.copy(ROOT / name, origin / name)
    (origin / "config").mkdir()
    for link, (target, _) in LINKS.items():
        (origin / link).symlink_to(target)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=origin, check=True)
    return origin


@pytest.mark.parametrize("setting", ["core.autocrlf=true", "core.autocrlf=input", "core.eol=crlf"])
def test_a_clone_has_the_same_bytes_whatever_git_is_set_to(clone: Path, tmp_path: Path, setting: str) -> None:
    subprocess.run(["git", "clone", "-q", "-c", setting, clone, tmp_path / "clone"], check=True)
    for name in ("Makefile", "envs/setup.sh", "envs/cpu.lock"):
        assert (tmp_path / "clone" / name).read_bytes() == (ROOT / name).read_bytes()
    assert problems_of(tmp_path / "clone") == []


def test_a_link_that_git_wrote_as_a_file_is_named(clone: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", "-c", "core.symlinks=false", clone, tmp_path / "clone"], check=True)
    problems = problems_of(tmp_path / "clone")
    assert [problem.what.split(" (")[0] for problem in problems] == [
        "`slurm` is a text file, not a link to profiles/slurm",
        "`config/config.yaml` is a text file, not a link to ../configs/demo.yaml",
    ]
    for problem in problems:
        assert not problem.fatal
        subprocess.run(["sh", "-c", problem.remedy.split(";")[0]], cwd=tmp_path / "clone", check=True)
    assert problems_of(tmp_path / "clone") == []


def test_the_links_of_the_repository_are_all_known() -> None:
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    links = {line.split("\t")[1] for line in listed.splitlines() if line.startswith("120000")}
    assert links == set(LINKS)


def test_names_of_the_repository_suit_every_file_system() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = listed.strip("\0").split("\0")
    assert len({name.casefold() for name in names}) == len(names), "two differ in case only"
    forbidden = re.compile(r'[<>:"\\|?*\x00-\x1f]|[ .](/|$)|(^|/)(con|prn|aux|nul|com\d|lpt\d)(\.|/|$)', re.IGNORECASE)
    assert [name for name in names if forbidden.search(name) or len(name) > 120] == []


def test_a_config_of_the_user_s_in_place_of_a_link_is_no_finding(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("dataset: {name: mine}\n")
    assert problems_of(tmp_path) == []


def test_line_ends_of_windows_are_named(clone: Path) -> None:
    script = clone / "envs" / "setup.sh"
    script.write_bytes(script.read_bytes().replace(b"\n", b"\r\n"))
    assert the_one(problems_of(clone)).what.startswith("envs/setup.sh has the line ends of Windows")


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"HOME": "/proc/self/fd"}, "home (/proc/self/fd) cannot be written to"),
        ({"HOME": "/nonexistent"}, "home (/nonexistent) cannot be written to (there is no such folder)"),
        ({"XDG_CACHE_HOME": "/proc/self/fd"}, "XDG_CACHE_HOME (/proc/self/fd) cannot be written to"),
        ({"MPLCONFIGDIR": "/proc/self/fd"}, "MPLCONFIGDIR (/proc/self/fd) cannot be written to"),
        ({"TMPDIR": "/proc/self/fd"}, "the folder for temporary files, /proc/self/fd, cannot be written to"),
        ({"TMPDIR": "/nonexistent"}, "the folder for temporary files, /nonexistent, cannot be written to"),
    ],
)
def test_a_folder_that_takes_nothing_is_named(tmp_path: Path, variables: dict[str, str], words: str) -> None:
    problem = the_one(problems_of(tmp_path, **variables))
    assert words in problem.what and problem.fatal == ("TMPDIR" in variables)


@pytest.mark.parametrize("name", ["results", "logs", ".snakemake"])
@pytest.mark.parametrize("target", ["/proc/self/fd", "/nonexistent/disk", "/etc/passwd"])
def test_a_folder_of_the_project_that_takes_nothing_is_named(tmp_path: Path, name: str, target: str) -> None:
    (tmp_path / name).symlink_to(target)
    problem = the_one(problems_of(tmp_path))
    assert f"{tmp_path / name} cannot be written to" in problem.what and problem.fatal


# --- the shell --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MPLBACKEND", "module://matplotlib_inline.backend_inline"),
        ("PYTHONOPTIMIZE", "2"),
        ("PYTHONWARNINGS", "error"),
        ("LD_PRELOAD", "/opt/x.so"),
        ("OMP_NUM_THREADS", "1"),
        ("SOURCE_DATE_EPOCH", "abc"),
        ("GIT_DIR", "/opt/old/.git"),
        ("LOCAL_RANK", "1"),
    ],
)
def test_a_variable_that_does_not_reach_mimflow_is_named(tmp_path: Path, name: str, value: str) -> None:
    problem = the_one(problems_of(tmp_path, **{name: value}))
    assert f"{name}={value}" in problem.what and not problem.fatal


@pytest.mark.parametrize("locale", ["zh_CN.GBK", "zh_CN.gb18030", "en_US.ISO-8859-1", "ja_JP.eucJP", "zh_CN"])
def test_a_locale_that_is_not_utf8_is_named(tmp_path: Path, locale: str) -> None:
    assert locale in the_one(problems_of(tmp_path, LC_ALL=locale)).what
    assert the_one(problems_of(tmp_path, started=False, LC_ALL=locale)).fatal


def test_what_start_has_replaced_is_seen_as_the_shell_had_it(tmp_path: Path) -> None:
    environment = SHELL | {"MPLBACKEND": "Agg", "LC_ALL": "C", "PYTHONUTF8": "1"}
    replaced = {"MPLBACKEND": "module://x", "LC_ALL": None, "PYTHONUTF8": None}
    [problem] = surroundings_problems(environment | {"MIMFLOW_SHELL": json.dumps(replaced)}, tmp_path)
    assert "MPLBACKEND=module://x" in problem.what and "PYTHONUTF8" not in problem.what


# --- Slurm ------------------------------------------------------------------------------------------------------------


def test_a_shell_in_a_slurm_job_is_named(tmp_path: Path) -> None:
    assert "Slurm job 7" in the_one(problems_of(tmp_path, SLURM_JOB_ID="7")).what


def test_a_file_of_slurm_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert the_one(problems_of(tmp_path, SLURM_CONF="/nonexistent/slurm.conf")).fatal


def test_jobs_of_a_dead_controller_are_named_where_there_is_no_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".snakemake").mkdir()
    record = tmp_path / ".snakemake" / "mimflow-controller.json"
    record.write_text(json.dumps({"holder": {}, "slurm": True}))
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "--unlock" in the_one(problems_of(tmp_path)).remedy
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'Could not establish a configuration source' >&2; exit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Slurm has no settings here" in the_one(problems_of(tmp_path)).what
    record.write_text(json.dumps({"holder": {}, "slurm": False}))
    assert problems_of(tmp_path) == []
