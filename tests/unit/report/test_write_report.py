"""The last lines of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chinese import english_in
from small_runs import make_run, run_cli_on

from scripts.report import write_report


@pytest.mark.parametrize(("language", "line"), [("en", "report: {} (open it"), ("zh", "报告：{}（用浏览器打开")])
def test_the_last_lines_speak_the_language_of_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], language: str, line: str
) -> None:
    run_cli_on([make_run(tmp_path, "a", seed, 0.9) for seed in range(2)], tmp_path)
    (tmp_path / "l.csv").rename(tmp_path / "leaderboard.csv")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    summary = {"images": 9, "set_aside": 1, "left_out": 0, "findings": {"unreadable": 1}, "classes": {"a": {"all": 9}}}
    left_out = ["left out 3: not an image, such as 'a.txt'"]
    (tmp_path / "audit.json").write_text(json.dumps(summary | {"left_out_files": left_out}))
    write_report.show_results(tmp_path, language)
    text = capsys.readouterr().out
    assert line.format(tmp_path / "report.html") in text.splitlines()[-1]
    assert ("left out 3" if language == "en" else "略去 3 个") in text.splitlines()[-2]
    assert bool(english_in(text)) == (language == "en")
