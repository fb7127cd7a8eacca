"""The one test of this folder that `make test` runs: a training that is killed goes on as if nothing had been."""

from __future__ import annotations

from pathlib import Path

from training import EXPERIMENT, assert_a_kill_changes_nothing


def test_a_kill_and_a_second_start_change_nothing(tmp_path: Path) -> None:
    assert_a_kill_changes_nothing(tmp_path, {**EXPERIMENT, "epochs": 3}, beyond=4)
