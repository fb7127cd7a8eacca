"""The report's words: every text and label of the rules is there in each language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.lib.settings.load import load_settings
from scripts.lib.workflow.report_menu import CHINESE, ORDER, ReportMenu, label

ROOT = Path(__file__).resolve().parents[4]
CAPTIONS = ROOT / "scripts" / "report" / "captions"
RULES = "".join(file.read_text(encoding="utf-8") for file in sorted(ROOT.glob("rules/*.smk")))
SHOWN = re.findall(r'menu\.shown\(\s*"(\w+)", "([^"]+)"', RULES)
CONFIG = {
    "dataset": {"name": "a", "source": {"sample": {}}},
    "experiments": {"e": {"base_config": "resnet18_8xb32_in1k"}},
}


def menu(language: str) -> ReportMenu:
    return ReportMenu(load_settings({**CONFIG, "report": {"language": language}}))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_file_of_the_report_has_a_caption_and_a_place(language: str) -> None:
    assert len(SHOWN) > 15
    for caption, what in [*SHOWN, ("workflow", "table"), ("audit", "audit of the images")]:
        shown = menu(language).shown(caption, what)
        assert Path(shown["caption"]).read_text(encoding="utf-8").strip()
        assert what in ORDER or what in CHINESE


def test_both_languages_have_the_same_captions_and_speak_of_the_same_run() -> None:
    names = sorted(path.name for path in (CAPTIONS / "en").iterdir())
    assert names == sorted(path.name for path in (CAPTIONS / "zh").iterdir())
    for name in names:
        english, chinese = ((CAPTIONS / folder / name).read_text(encoding="utf-8") for folder in ("en", "zh"))
        assert sorted(re.findall(r"{{.*?}}", english)) == sorted(re.findall(r"{{.*?}}", chinese)), name
        assert re.search("[\u4e00-\u9fff]", chinese) and not re.search("[\u4e00-\u9fff]", english), name


def test_labels_are_in_the_order_of_reading_and_unknown_ones_are_refused() -> None:
    assert label("model card", "en") == "01 model card" and label("model card", "zh") == "01 模型卡"
    assert label("seed", "zh") == "种子"
    assert [label(words, "zh") for words in ORDER] == sorted(label(words, "zh") for words in ORDER)
    with pytest.raises(KeyError):
        label("something new", "zh")


@pytest.mark.parametrize(("language", "data"), [("en", "Data"), ("zh", "数据")])
def test_the_data_have_a_place_of_their_own_in_the_menu(language: str, data: str) -> None:
    shown = menu(language).shown("audit", "audit of the images", category="Data")
    assert shown["category"] == data and "subcategory" not in shown
    assert len(shown["labels"]) == 1


def test_every_file_of_a_run_that_the_report_shows_has_a_number() -> None:
    of_all_runs = {"table", "figure", "comparisons", "candidates", "audit of the images", "labels that may be wrong"}
    assert {what for _, what in SHOWN} - of_all_runs == set(ORDER)
