"""The captions of the report, in each language, as docutils reads them: Snakemake shows what it complains of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils.core import publish_parts
from jinja2 import Template

CAPTIONS = Path(__file__).resolve().parents[3] / "scripts" / "report" / "captions"
ALL = sorted(CAPTIONS.rglob("*.rst"))


@pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}-{path.stem}")
@pytest.mark.parametrize("fold", [False, True])
def test_no_caption_is_markup_that_went_wrong(path: Path, fold: bool) -> None:
    wildcards = SimpleNamespace(experiment="mobilenet-v2_x", seed="0", **({"fold": "fold1"} if fold else {}))
    snakemake = SimpleNamespace(wildcards=wildcards, config={"dataset": {"name": "demo_1"}})
    text = Template(path.read_text(encoding="utf-8")).render(snakemake=snakemake)
    body = publish_parts(text, writer_name="html", settings_overrides={"report_level": 1, "halt_level": 5})["body"]
    assert "System Message" not in body and "system-message" not in body
    assert "**" not in body and "``" not in body, "a star or a quote that was meant as markup"


def test_both_languages_have_the_same_captions() -> None:
    names = {language: {path.name for path in (CAPTIONS / language).glob("*.rst")} for language in ("en", "zh")}
    assert names["en"] == names["zh"] and len(names["en"]) > 15
