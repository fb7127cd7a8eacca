"""What is done to Snakemake's report after it was written."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import pytest
from chinese import english_in
from fontTools.ttLib import TTFont
from small_runs import make_run, run_cli_on

from scripts.lib.base.problems import UserError
from scripts.report import write_report
from scripts.report.write_report import mend_page


def test_a_chinese_report_brings_its_characters_along(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    page = "<html><head><meta charset='utf-8'></head><body><script>'</head>'</script></body></html>"
    report.write_text(page, encoding="utf-8")
    mend_page(report, "zh")
    text = report.read_text(encoding="utf-8")
    assert text.startswith("<html><head><meta charset='utf-8'><style>")
    assert text.endswith("</style>\n</head><body><script>'</head>'</script></body></html>")
    data = re.search(r"base64,([^)]*)\)", text)
    assert data
    known = TTFont(io.BytesIO(base64.b64decode(data[1]))).getBestCmap()
    # of the menu, and of the captions
    assert {ord(char) for char in "混淆矩阵排行榜圆圈标出权重"} <= set(known)


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


def test_a_page_without_a_head_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<html>")
    with pytest.raises(UserError, match=r"report\.html: Snakemake's page has no head"):
        mend_page(tmp_path / "report.html", "en")
