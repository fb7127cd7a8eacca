"""Texts in the language that is spoken: only what is a text is translated, and every entry of the table is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.lib.base import strict_yaml
from scripts.lib.base.language import language, speaking, tr

SCRIPTS = Path(__file__).resolve().parents[4] / "scripts"
TABLE: dict[str, str] = strict_yaml.read(SCRIPTS / "lib" / "base" / "chinese.yaml")


def test_english_is_spoken_unless_another_language_is_chosen() -> None:
    assert language() == "en" and tr("epoch") == "epoch"
    with pytest.raises(ZeroDivisionError), speaking("zh"):
        assert tr("epoch") == "轮次"
        raise ZeroDivisionError
    assert language() == "en"


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("1 image", "1 张图像"),
        ("1,200 images", "1,200 张图像"),
        ("resnet, seed 3", "resnet，随机种子 3"),
        ("resnet, seed 3, fold 1", "resnet，随机种子 3，第 1 折"),
        ("a, b is better", "a, b 更好"),
        ("not comparable: no seed in common", "不可比较：没有共同的随机种子"),
        ("left out 3: an archive inside the archive, such as 'a.zip'", "略去 3 个：压缩包中的压缩包，例如 'a.zip'"),
        ("because quick: epochs 2 -> 3", "重做的原因：quick: epochs 2 -> 3"),
        (
            "the labels were not judged: fewer than two classes have images for 5 folds",
            "没有检查标签：有图像可分成 5 折的类别少于两个",
        ),
        (
            "a/model.onnx: 300 MB are more than a page can hold (200 MB): use onnx_example.py",
            "a/model.onnx：300 MB 超过页面所能容纳的 200 MB：请使用 onnx_example.py",
        ),
        ("because quick: other settings", "重做的原因：quick：其他设置有变化"),
        ("because mimflow itself has changed", "重做的原因：mimflow 本身有变化"),
        ("目录 {x} and more", "目录 {x} and more"),
        ("", ""),
    ],
)
def test_variables_stay_as_they_are_and_an_unknown_text_too(english: str, chinese: str) -> None:
    with speaking("zh"):
        assert tr(english) == chinese


@pytest.mark.parametrize("name", ["{0}", "{tr}", "a{}b", "%s", "\\1"])
def test_a_name_in_a_text_is_no_placeholder(name: str) -> None:
    with speaking("zh"):
        assert tr(f"exact copy of {name}") == f"与 {name} 完全相同"


def test_each_translation_has_the_variables_of_its_text_and_is_chinese() -> None:
    for english, chinese in TABLE.items():
        variables = len(re.findall(r"\{(?:tr)?\}", english))
        assert {int(number) for number in re.findall(r"\{(\d+)\}", chinese)} == set(range(variables)), english
        assert re.search("[\u4e00-\u9fff，。：]", chinese) or english == chinese, english


def test_each_text_of_the_table_is_one_of_the_code() -> None:
    """Whoever changes a text sees that its Chinese is now of another one; some are put together of two strings."""
    code = " ".join(path.read_text(encoding="utf-8") for path in sorted(SCRIPTS.rglob("*.py")))
    code = " ".join(re.sub(r'"\s*f?"', "", code.replace("\\n", " ")).split())
    for english in TABLE:
        pieces = [piece.split() for piece in re.split(r"\{(?:tr)?\}|\(s\)", english)]
        triples = [" ".join(piece[i : i + 3]).strip(" :;,.") for piece in pieces for i in range(max(1, len(piece) - 2))]
        assert 2 * sum(triple in code for triple in triples) >= len(triples), english
