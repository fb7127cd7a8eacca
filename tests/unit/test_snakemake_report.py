"""What is done to Snakemake's own report after it was written."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont

from scripts.lib.base.problems import UserError
from scripts.snakemake_report import mend_page


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


def test_a_page_without_a_head_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<html>")
    with pytest.raises(UserError, match=r"report\.html: Snakemake's page has no head"):
        mend_page(tmp_path / "report.html", "en")
