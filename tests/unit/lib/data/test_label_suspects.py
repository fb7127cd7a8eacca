"""label_suspects.csv: what is written is read back, and what is none is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.data.label_suspects import COLUMNS, LabelSuspect, read_suspects, write_suspects


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    suspects = [
        LabelSuspect('苹果/a, "b".jpg', "苹果", "NA", 0.75, 0.125, 0.875, "test", "0" * 64, ("苹果/1.jpg",), ()),
        LabelSuspect("NA/1.jpg", "NA", "1", 0.25, 0.375, 0.625, "", "1" * 64, (), ("1/a.jpg", "1/b.jpg", "1/c.jpg")),
    ]
    write_suspects(tmp_path / "label_suspects.csv", suspects)
    assert read_suspects(tmp_path / "label_suspects.csv") == suspects
    header = (tmp_path / "label_suspects.csv").read_text(encoding="utf-8").splitlines()[0]
    assert tuple(header.split(",")) == COLUMNS and header.startswith("path,label,suggested,confidence,")


@pytest.mark.parametrize("content", ["", "path,label\n", ",".join(COLUMNS) + "\na,b,c,x,0,0,,0,,,,,,\n"])
def test_another_table_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.csv: not a label_suspects\.csv"):
        read_suspects(tmp_path / "a.csv")
