"""The page of `make serve`: both languages say all of it, and no name becomes markup."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from chinese import english_in, english_on

from scripts.lib.base.language import speaking
from scripts.lib.pages import live_page, templates
from scripts.lib.workflow.progress import State

STATES = [str(state) for state in State]


@pytest.fixture(scope="module")
def page() -> str:
    return live_page.render("<b>名</b>", "zh", STATES, ["</script><script>alert(1)</script>"])[0]


def words_of(page: str) -> dict[str, dict[str, str]]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    words: dict[str, dict[str, str]] = json.loads(match[1])["words"]
    return words


def test_the_chinese_page_is_chinese_to_its_last_word(page: str) -> None:
    with speaking("zh"):
        view = templates.render("live_view.html", l="zh", dataset="")
    with speaking("en"):
        assert english_on(templates.render("live_view.html", l="en", dataset="")), "else this test would see nothing"
    assert not english_on(view)
    words = words_of(page)
    assert words["zh"].keys() == words["en"].keys()
    assert [text for text in words["zh"].values() if english_in(text)] == []
    assert [name for name in STATES if not re.search("[\u4e00-\u9fff]", words["zh"][f"state {name}"])] == []


def test_each_word_that_the_script_writes_is_there(page: str) -> None:
    script = (templates.FOLDER / "live.js").read_text(encoding="utf-8")
    written = set(re.findall(r'(?:word|tell)\("(\w+)"', script)) | set(re.findall(r'\? word\("(\w+)"', script))
    assert len(written) > 10 and written <= words_of(page)["en"].keys()
    placeholders = re.findall(r'(?:word|tell)\("(\w+)", \{ (\w+):', script)
    assert [pair for pair in placeholders if f"{{{pair[1]}}}" not in words_of(page)["en"][pair[0]]] == []


def test_no_name_becomes_markup_and_only_the_pages_scripts_run(page: str) -> None:
    assert "<b>" not in page and "<script>alert" not in page
    policy = live_page.render("demo", None, STATES)[1]
    assert policy.startswith("default-src 'none'") and "connect-src 'self'" in policy
    assert len(re.findall("'sha256-", policy)) == 3 and "unsafe-eval" not in policy


def test_the_policy_of_a_page_is_read_from_it(tmp_path: Path) -> None:
    page, policy = live_page.render("demo", "en", STATES)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "other.html").write_text("<!DOCTYPE html>", encoding="utf-8")
    assert templates.policy_of(tmp_path / "page.html") == policy
    assert templates.policy_of(tmp_path / "other.html") == "default-src 'none'"
