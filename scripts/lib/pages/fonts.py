"""The one font that draws class names in any language: Noto Sans CJK, as it came with the pip environment."""

from __future__ import annotations

import base64
import functools
import io
from importlib import resources
from pathlib import Path

from jinja2 import Template
from PIL import ImageFont

from scripts.lib.base.problems import UserError

#: The package of the locks that carries the font, and the file in it.
FONT_PACKAGE = "noto_cjk_sans_otc"
FONT_FILE = "NotoSansCJK-Regular.ttc"
#: The .ttc holds ten faces of the same glyphs; these are the Simplified Chinese one's place and name.
FACE_INDEX = 2
FACE_NAME = "Noto Sans CJK SC"
#: From here on Unicode has the scripts that a computer need not have a font for: Chinese, Japanese, Korean.
FIRST_CJK = "\u2e80"
#: The rule of a page that brings characters along.
RULE = Path(__file__).with_name("templates") / "font_face.css"
#: Tables of a font that a few words on a page have no use for.
SPARED = ("BASE", "DSIG", "GPOS", "GSUB", "VORG", "vhea", "vmtx")


@functools.cache
def cjk_font_path() -> Path:
    """Return the path of the CJK font in this Python environment (never a system font: clusters have none).

    Raises
    ------
    UserError : the package is not installed.
    """
    try:
        path = Path(str(resources.files(FONT_PACKAGE).joinpath(FONT_FILE)))
    except ModuleNotFoundError:
        path = Path(FONT_FILE)
    if not path.is_file():
        raise UserError(f"the font {FONT_FILE} of the package {FONT_PACKAGE} is not installed: run `make setup` again")
    return path


@functools.lru_cache(maxsize=64)
def pil_font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font for pillow at *size* pixels."""
    # Basic layout: names are short and left to right, and raqm is not in every pillow build.
    return ImageFont.truetype(str(cjk_font_path()), size, index=FACE_INDEX, layout_engine=ImageFont.Layout.BASIC)


def use_cjk_font() -> None:
    """Make matplotlib draw every text with the font; DejaVu Sans fills in the symbols that it lacks."""
    import matplotlib
    from matplotlib import font_manager

    path = str(cjk_font_path())
    if FACE_NAME not in font_manager.fontManager.get_font_names():
        font_manager.fontManager.addfont(path)
    matplotlib.rcParams["font.family"] = [FACE_NAME, "DejaVu Sans"]


def embedded_face(text: str, family: str) -> str:
    """Return a rule of CSS that brings along the CJK characters of *text* as the font *family*; "" where it has none.

    A page that is handed on must be readable on a computer without such a font. 200 characters take about 50 kB.
    """
    wanted = "".join(sorted({char for char in text if char >= FIRST_CJK}))
    return _embedded_face(wanted, family) if wanted else ""


@functools.lru_cache(maxsize=8)
def _embedded_face(characters: str, family: str) -> str:
    from fontTools import subset
    from fontTools.ttLib import TTFont

    options = subset.Options(layout_features=[], hinting=False, name_IDs=[])
    options.drop_tables += SPARED
    subsetter = subset.Subsetter(options)
    subsetter.populate(text=characters)
    # The same characters give the same bytes: the font keeps its own dates.
    with TTFont(cjk_font_path(), fontNumber=FACE_INDEX, lazy=True, recalcTimestamp=False) as font:
        subsetter.subset(font)
        font.flavor = "woff"
        stream = io.BytesIO()
        font.save(stream)
    data = base64.b64encode(stream.getvalue()).decode()
    rule = Template(RULE.read_text(encoding="utf-8"))
    return rule.render(family=family, data=data, first=f"{ord(FIRST_CJK):X}")
