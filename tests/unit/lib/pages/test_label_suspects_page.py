"""The page of the labels that may be wrong: hostile names, decisions made before, both languages."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from tiny_run import photograph

from scripts.lib.base.language import speaking
from scripts.lib.data.corrections import Correction
from scripts.lib.data.label_suspects import LabelSuspect
from scripts.lib.pages import label_suspects_page
from scripts.lib.pages.label_suspects_page import render

CLASSES = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "苹果"]
SUMMARY: dict[str, Any] = {
    "images": 90, "suspects": 3, "reason": None, "base_config": "resnet18", "probe_accuracy": 0.9,
    "pairs": [{"first": CLASSES[0], "second": CLASSES[2], "there": 2, "back": 1, "share": 0.1, "are_one": False}],
    "classes_not_judged": [CLASSES[1]], "two_groups": [], "odd_ones_out": [],
    "check": None,
}  # fmt: skip


def suspects_in(folder: Path) -> list[LabelSuspect]:
    """Return three suspects whose pictures are in *folder*."""
    for number in range(5):
        photograph(number).save(folder / f"{number}.png")
    return [
        LabelSuspect(f"{number}.png", CLASSES[0], CLASSES[2], 0.9 - number / 10, 0.01, 0.91, "test", str(number) * 64,
                     ("3.png",), ("4.png", "gone.png"))
        for number in range(3)
    ]  # fmt: skip


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    return json.loads(match[1])  # type: ignore[no-any-return]


def test_hostile_names_are_text_and_the_order_is_kept(tmp_path: Path) -> None:
    page = render(suspects_in(tmp_path), SUMMARY, CLASSES, tmp_path, "d")
    assert "<script>alert" not in page and "<img src=x" not in page
    assert re.findall(r'data-path="(.*?)"', page) == ["0.png", "1.png", "2.png"]
    assert unescape(re.findall(r'data-label="(.*?)"', page)[0]) == CLASSES[0]
    assert data_of(page)["classes"] == CLASSES
    assert page.count("<img src=") == 9, "a picture and two that are there, three times"
    assert page == render(suspects_in(tmp_path), SUMMARY, CLASSES, tmp_path, "d")


def test_what_was_decided_before_is_not_shown_but_is_in_the_data(tmp_path: Path) -> None:
    earlier = [Correction("1" * 64, "1.png", CLASSES[0], CLASSES[0], "keep")]
    page = render(suspects_in(tmp_path), SUMMARY, CLASSES, tmp_path, earlier=earlier)
    assert re.findall(r'data-path="(.*?)"', page) == ["0.png", "2.png"]
    assert data_of(page)["earlier"] == [earlier[0].as_row()]
    assert "1 suspect that you decided about before is not shown" in page.replace("\n", " ")


def test_a_large_page_says_how_many_it_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_suspects_page, "MOST_SUSPECTS", 2)
    page = render(suspects_in(tmp_path), SUMMARY, CLASSES, tmp_path)
    assert page.count("<article") == 2 and "The first 2 of 3 are shown" in page


def test_labels_that_were_not_judged_are_said_to_be_so(tmp_path: Path) -> None:
    summary = SUMMARY | {"reason": "there are no weights", "suspects": 0, "pairs": []}
    page = render([], summary, CLASSES, tmp_path)
    assert "The labels were not judged: there are no weights." in page and "<article" not in page


@pytest.mark.parametrize("is_weak", [False, True])
def test_of_a_weak_classifier_it_is_said_that_most_suspects_are_its_mistakes(tmp_path: Path, is_weak: bool) -> None:
    page = render(suspects_in(tmp_path), SUMMARY | {"is_weak": is_weak}, CLASSES, tmp_path)
    assert ("most are mistakes of the classifier" in page) == is_weak


def test_the_chinese_page_has_the_same_suspects_and_no_english_words(tmp_path: Path) -> None:
    with speaking("zh"):
        page = render(suspects_in(tmp_path), SUMMARY, CLASSES, tmp_path, "d")
    assert "<h1>可能有误的标签: d</h1>" in page and page.count("<article") == 3
    for words in ("Accept", "Keep", "Drop", "undecided", "another class"):
        assert words not in page


def test_images_unlike_all_others_are_shown_with_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suspects_in(tmp_path)
    photograph(7).save(tmp_path / "<b>.png")
    odd = ["<b>.png", "gone.png", "3.png"]
    page = render([], SUMMARY | {"suspects": 0, "odd_ones_out": odd}, CLASSES, tmp_path)
    assert "3 images are farther from all others" in page and "<b>.png" not in page
    assert [unescape(path) for path in re.findall(r'<figure class="odd">.*?alt="(.*?)"', page)] == ["<b>.png", "3.png"]
    monkeypatch.setattr(label_suspects_page, "MOST_ODD", 1)
    assert "the 1 oddest are shown" in render([], SUMMARY | {"odd_ones_out": odd}, CLASSES, tmp_path)
    assert "Images unlike" not in render([], SUMMARY, CLASSES, tmp_path)


@pytest.mark.parametrize(
    ("language", "between"), [("en", "4.0\xa0% of its different images"), ("zh", "有 4.0\xa0% 的图像")]
)
def test_a_class_that_looks_like_two_is_shown_by_both_groups(tmp_path: Path, language: str, between: str) -> None:
    suspects_in(tmp_path)
    names = [f"{number}.png" for number in range(5)]
    divided = {"class": CLASSES[0], "between": 0.04, "groups": [[*names[:3], *["gone.png"] * 9], names[3:]]}
    pairs = [SUMMARY["pairs"][0] | {"are_one": True}]
    with speaking(language):
        page = render([], SUMMARY | {"two_groups": [divided], "pairs": pairs}, CLASSES, tmp_path)
        plain = render([], SUMMARY, CLASSES, tmp_path)
    assert between in page and "<script>alert" not in page
    (section,) = re.findall(r'<section class="divided">.*?</section>', page, re.DOTALL)
    groups = re.findall(r"<p>(\d+).*?</p>", section.partition("</p>")[2], re.DOTALL)
    assert groups == ["12", "2"]
    assert re.findall(r'alt="(.*?)"', section) == names
    told = {"en": "Cannot be told apart", "zh": "完全无法区分"}[language]
    assert told in page and told not in plain and "divided" not in plain


def test_a_summary_of_an_older_mimflow_gives_the_page_without_what_it_did_not_know(tmp_path: Path) -> None:
    pairs = [{name: value for name, value in SUMMARY["pairs"][0].items() if name != "are_one"}]
    older = {name: value for name, value in SUMMARY.items() if name not in ("two_groups", "odd_ones_out")}
    assert render([], older | {"pairs": pairs}, CLASSES, tmp_path) == render([], SUMMARY, CLASSES, tmp_path)


def test_the_page_says_how_many_planted_wrong_labels_were_seen(tmp_path: Path) -> None:
    page = " ".join(render([], SUMMARY | {"check": {"planted": 20, "hits": 13.4}}, CLASSES, tmp_path).split())
    assert "20 labels were changed on purpose" in page
    assert "13.4 of these 20 came among the first 20 suspects" in page
    assert "on purpose" not in render([], SUMMARY, CLASSES, tmp_path)
    with speaking("zh"):
        page = render([], SUMMARY | {"check": {"planted": 20, "hits": 13.0}}, CLASSES, tmp_path)
    assert "把 20 个标签改成" in page and "找到了其中的 13 个" in page
