"""history.csv: a line for each change of an experiment's results, and what is said of the last one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from chinese import english_in
from small_runs import answer, make_run, run_cli_on

from scripts.lib.base.language import speaking
from scripts.lib.metrics import history, leaderboard

MORNING = datetime(2026, 11, 30, 8, 0, tzinfo=UTC)


def compared(folders: list[Path], root: Path, hours: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Compare runs so many hours after MORNING; return what is said of the difference to before."""

    class Clock:
        now = staticmethod(lambda zone: MORNING + timedelta(hours=hours))

    monkeypatch.setattr("scripts.report.compare_runs.datetime", Clock)
    monkeypatch.setenv("TZ", "UTC")
    run_cli_on(folders, root)
    return history.differences(root / "history.csv")


def test_what_changed_since_the_last_time_is_said_and_what_did_not_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [make_run(tmp_path, "a", 0, 0.9), make_run(tmp_path, "b", 0, 0.8)]
    assert compared(runs, tmp_path, 0, monkeypatch) == []
    kept = (tmp_path / "history.csv").read_bytes()
    assert compared(runs, tmp_path, 1, monkeypatch) == [] and (tmp_path / "history.csv").read_bytes() == kept
    answer(runs[1], range(6))
    (line,) = compared(runs, tmp_path, 2, monkeypatch)
    assert line == "b: 80.0 % on 2026-11-30 08:00, 95.0 % now (+15.0); the same test images"
    with speaking("zh"):
        (chinese,) = history.differences(tmp_path / "history.csv")
    assert "2026-11-30 08:00" in chinese and "95.0 %" in chinese and not english_in(chinese.removeprefix("b"))
    answer(runs[1], range(12))
    assert compared(runs, tmp_path, 3, monkeypatch)[0].startswith("b: 95.0 % on 2026-11-30 10:00, 90.0 % now (-5.0)")
    table = pd.read_csv(tmp_path / "history.csv", dtype={"test_sha256": str})
    assert table["experiment"].tolist() == ["a", "b", "b", "b"] and set(table["n_test"]) == {120}
    board = leaderboard.read_leaderboard(tmp_path / "l.csv").set_index("experiment")
    last = table.groupby("experiment").last()
    assert last["accuracy_top1_ci95_low"].to_dict() == pytest.approx(board["accuracy_top1_ci95_low"].to_dict())


def test_other_test_images_are_not_compared_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make_run(tmp_path, "a", 0, 0.9)]
    compared(runs, tmp_path, 0, monkeypatch)
    answer(runs[0], range(12), names="other {}.jpg", images=100)  # as after a class was deleted
    (line,) = compared(runs, tmp_path, 1, monkeypatch)
    assert line.endswith("; not the same test images: 120 images of 4 classes before, 100 images of 4 classes now")
    with speaking("zh"):
        (chinese,) = history.differences(tmp_path / "history.csv")
    assert not english_in(chinese.removeprefix("a"))


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", ",".join(history.COLUMNS) + "\n2026,a\n", "\udcff"])
def test_a_damaged_history_stays_as_it_is_and_stops_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = text.encode("utf-8", "surrogateescape")
    (tmp_path / "history.csv").write_bytes(damaged)
    assert compared([make_run(tmp_path, "a", 0, 0.9)], tmp_path, 0, monkeypatch) == []
    assert (tmp_path / "history.csv").read_bytes() == damaged and (tmp_path / "l.csv").is_file()
    assert "nothing is added to it; remove it to begin a new one" in caplog.text
