"""The font: found in the environment, and able to draw what class names are made of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from scripts.lib.base.problems import UserError
from scripts.lib.base.text import columns, shorten, shorten_all
from scripts.lib.pages import fonts


def test_the_font_comes_with_the_environment() -> None:
    assert Path(sys.prefix).resolve() in fonts.cjk_font_path().resolve().parents


def test_chinese_and_latin_names_have_glyphs() -> None:
    font = fonts.pil_font(24)
    assert font.getname()[0] == fonts.FACE_NAME
    box = bytes(font.getmask("\U0010fffd"))  # a private character: the box of a missing glyph
    for character in "哈密瓜圣女果火龙橘a7-é":
        assert bytes(font.getmask(character)) != box, character


def test_matplotlib_draws_chinese_with_it() -> None:
    import matplotlib
    from matplotlib import font_manager

    with matplotlib.rc_context():
        fonts.use_cjk_font()
        font = font_manager.findfont(matplotlib.rcParams["font.family"][0], fallback_to_default=False)
    assert Path(font).name == fonts.FONT_FILE


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "FONT_PACKAGE", "no_such_package")
    fonts.cjk_font_path.cache_clear()
    try:
        with pytest.raises(UserError, match="make setup"):
            fonts.cjk_font_path()
    finally:
        fonts.cjk_font_path.cache_clear()


def test_chinese_takes_two_columns() -> None:
    rows = [["苹果 a", "1", "x"], ["e\u0301", "10", "[red]苹果"]]
    assert columns(rows, right={1}) == ["苹果 a   1  x", "e\u0301       10  [red]苹果"]
    assert columns([["a", ""]], right=(), gap=1) == ["a"]


def test_long_names_lose_their_middle() -> None:
    assert shorten("short", 11) == "short"
    assert shorten("a very long class name", 11) == "a very…name"
    assert all(cell_len(shorten("一二三四五六七八九十", width)) <= width for width in range(3, 25))


def test_names_that_would_look_alike_are_numbered() -> None:
    names = shorten_all(["the same beginning, one, the same end", "the same beginning, two, the same end", "other"], 16)
    assert len(set(names)) == 3 and names[2] == "other"
    assert all(cell_len(name) <= 16 for name in names)


@pytest.mark.long
def test_a_page_brings_along_the_chinese_characters_that_it_shows_and_no_others() -> None:
    import base64
    import io

    from fontTools.ttLib import TTFont

    face = fonts.embedded_face("<p>apple 草莓, 樱桃 莓</p>", "own")
    data = base64.b64decode(face.split("base64,")[1].split(")")[0])
    with TTFont(io.BytesIO(data)) as font, TTFont(fonts.cjk_font_path(), fontNumber=fonts.FACE_INDEX) as whole:
        assert font["head"].modified == whole["head"].modified, "the same page gives the same bytes, whenever"
        assert set(font.getBestCmap()) == {ord(char) for char in "草莓樱桃"}
    assert face == fonts.embedded_face("樱桃 草莓", "own") and len(face) < 6000
    assert fonts.embedded_face("plain é and – only", "own") == ""
