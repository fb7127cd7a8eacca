from __future__ import annotations

import subprocess
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scripts.lib.runs import mim


def test_the_answer_that_is_given_is_what_train_py_says() -> None:
    # Read in its source, since its help takes seconds to print; the trainings of other tests show that it is taken.
    source = Path(str(distribution("mmcls").locate_file("mmcls/.mim/tools/train.py"))).read_text(encoding="utf-8")
    assert "'--gpus'," in source and "'--device'," in source


@pytest.mark.parametrize(("gpus", "option"), [("0", "--device cpu"), ("1", "--gpus 1")])
def test_train_py_is_started_once_with_the_options_of_mim(
    gpus: str, option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.py").touch()
    started: list[str] = []

    def note(command: list[str], **options: Any) -> int:
        started.append(" ".join(command))
        return 0

    monkeypatch.setattr(subprocess, "check_output", mim.check_output_but_help)
    monkeypatch.setattr(subprocess, "check_call", note)
    result = CliRunner().invoke(mim.cli, ["train", "mmcls", str(tmp_path / "config.py"), "--gpus", gpus])
    assert result.exit_code == 0, result.output
    (command,) = started
    assert command.endswith(f"tools/train.py {tmp_path}/config.py --launcher none {option}")


def test_every_other_command_is_run() -> None:
    assert mim.check_output_but_help(["echo", "-h"]) == b"-h\n"
