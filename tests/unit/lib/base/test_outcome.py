"""How a command ends stands beside its log as data: nobody has to read it out of the words."""

from __future__ import annotations

import argparse
import errno
import json
from pathlib import Path

import pytest

from scripts.lib.base.console import EXIT_INTERRUPTED, run_cli
from scripts.lib.base.outcome import Ending, Outcome, outcome_path
from scripts.lib.base.problems import STOPPED, PassingError, Stopped, UserError


def end(log: Path, error: BaseException | None) -> int:
    def main(_args: argparse.Namespace) -> None:
        if error:
            raise error

    with pytest.raises(SystemExit) as exit_:
        run_cli(argparse.ArgumentParser, main, ["--log", str(log)])
    return int(exit_.value.code or 0)


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (UserError("a.jpg: not\nan image", "leave it out"), 1, (Ending.FAILED, "a.jpg: not an image", "leave it out")),
        (Stopped("training was stopped", "go on"), 1, (Ending.STOPPED, "training was stopped", "go on")),
        (OSError(errno.EROFS, "", "x"), 1, (Ending.FAILED, "read-only file system (x): choose another folder; ", "")),
        (
            OSError(errno.ENOENT, "", "苹果".encode()),
            1,
            (Ending.FAILED, "no such file or folder (苹果): check the path; ", ""),
        ),
        (OSError(errno.ETXTBSY, "No", b"a\xff"), 1, (Ending.FAILED, "No (a\\udcff); ", "")),
        (OSError(errno.EACCES, "", 7), 1, (Ending.FAILED, "permission denied (open file 7): check who owns it; ", "")),
        (ValueError("1: 2"), 1, (Ending.FAILED, "unexpected ValueError: 1: 2; ", "")),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, (Ending.INTERRUPTED, "interrupted", "")),
    ],
)
def test_whatever_ends_a_command_stands_beside_its_log(
    error: BaseException, status: int, outcome: tuple[Ending, str, str], tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "fetch_archive.tar.log"
    assert end(log, error) == status
    written = Outcome.read(tmp_path / "logs" / "fetch_archive.tar.outcome.json")
    what = outcome[1] + ("details: " + str(log)) * outcome[1].endswith("; ")
    assert written is not None and (written.ending, written.what, written.remedy) == (outcome[0], what, outcome[2])
    expected = STOPPED if isinstance(error, KeyboardInterrupt) else f"error: {written}"
    assert f"ERROR scripts.lib.base.console: {expected}" in log.read_text()


def test_a_command_that_finishes_leaves_no_outcome_of_an_earlier_one(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert end(log, UserError("wrong")) == 1 and outcome_path(log).exists()
    assert end(log, None) == 0 and not outcome_path(log).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"outcome": "new", "what": "", "remedy": ""}'])
def test_a_file_that_says_nothing_is_no_outcome(text: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(text)
    assert Outcome.read(tmp_path / "x") is None and Outcome.read(tmp_path / "y") is None


def test_it_is_plain_json(tmp_path: Path) -> None:
    Outcome(Ending.STOPPED, "水果").write(tmp_path / "x")
    assert json.loads((tmp_path / "x").read_text()) == {
        "outcome": "stopped",
        "what": "水果",
        "remedy": "",
        "again": False,
    }


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (UserError("a.jpg: no image"), False),
        (PassingError("the server does not answer"), True),
        (Stopped("training was stopped"), True),
        (OSError(errno.EIO, "", "x"), True),
        (ValueError("shapes"), False),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("NCCL communicator was aborted"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_it_says_whether_another_attempt_may_succeed(error: Exception, again: bool, tmp_path: Path) -> None:
    end(tmp_path / "a.log", error)
    outcome = Outcome.read(outcome_path(tmp_path / "a.log"))
    assert outcome is not None and outcome.again == again
