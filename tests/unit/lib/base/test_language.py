"""Texts in the language that is spoken: only what is a text is translated, and every entry of the table is used."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chinese import english_in

from scripts.lib.base import strict_yaml
from scripts.lib.base.language import language, language_of, speaking, tr, tr_line

SCRIPTS = Path(__file__).resolve().parents[4] / "scripts"
TABLE: dict[str, str] = strict_yaml.read(SCRIPTS / "lib" / "base" / "chinese.yaml")
LINES: dict[str, str] = strict_yaml.read(SCRIPTS / "lib" / "base" / "chinese_messages.yaml")
#: Lines of pydantic and of the operating system, and lines that are put together of several texts.
OF_OTHERS = frozenset({
    "Connection refused", "Name or service not known", "a valid integer", "a valid number", "a valid string",
    "a valid boolean", "a valid list", "a finite number", "greater than {}", "greater than or equal to {}",
    "less than {}", "less than or equal to {}", "1 process", "1 test image", "{} pending, {} running in Slurm",
    *(line for line in LINES if line.startswith(("unknown key", "column ", "argument ", "the following arguments"))),
    "unrecognized arguments", "expected one argument", "one of the arguments {} is required",
})  # fmt: skip
#: Of who develops mimflow.
STILL_ENGLISH = ("document_settings",)


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
        (
            "the labels were not judged: fewer than two classes have images for 5 folds",
            "没有检查标签：有图像可分成 5 折的类别少于两个",
        ),
        (
            "a/model.onnx: 300 MB are more than a page can hold (200 MB): use onnx_example.py",
            "a/model.onnx：300 MB 超过页面所能容纳的 200 MB：请使用 onnx_example.py",
        ),
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


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("because quick: epochs 2 -> 3", "重做的原因：quick：epochs 2 -> 3"),
        ("because training a, seed 0: it was interrupted", "重做的原因：训练 a，随机种子 0：上次被中断"),
        ("because mimflow itself has changed", "重做的原因：mimflow 本身有变化"),
        ("because a/b.csv is newer than what was made of it", "重做的原因：a/b.csv 比由它生成的文件新"),
        ("a/best.pth is gone: it is made again", "a/best.pth 不见了：将重新生成"),
        (
            "error: mine.yaml: experiments.quick.epochs: should be a valid integer, not 'many'",
            "错误：mine.yaml：experiments.quick.epochs：应为整数，而不是 'many'",
        ),
        ("x.zip: refused: more than 9 entries (--max-images); nothing was written",
         "x.zip：已拒绝：超过 9 个条目（--max-images）；没有写入任何内容"),
        ("error: a.tar: no image in a class folder (left out: 1 file: outside any class folder): nothing was written",
         "错误：a.tar：类别文件夹中没有图像（略去：1 个文件：不在任何类别文件夹中）：没有写入任何内容"),
        ("left out 3 of photos: links to nothing", "略去 photos 中的 3 个：指向不存在的文件的链接"),
        ("left out 2: no .cls beside it, such as 'a'", "略去 2 个：旁边没有 .cls 文件，例如 'a'"),
        ("13 images predicted, 1 skipped; 1 that cannot be decoded; 0 other files ignored: a.csv",
         "预测了 13 张图像，跳过 1 个；1 个无法解码；忽略 0 个其他文件：a.csv"),
        ("http://a/b.zip: HTTPConnection(host='a', port=1): no route: to it; trying again in 1 s",
         "http://a/b.zip: HTTPConnection(host='a', port=1): no route: to it；1 秒后再试"),
        # What is no text of ours stays whole, or as much of it as is none.
        ("3 trains of thought: to be or not to be", "3 trains of thought: to be or not to be"),
        ("training was odd: it is said", "training was odd: it is said"),
        ("error: {x} of {tr}; %s $HOME", "错误：{x} of {tr}; %s $HOME"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_line_is_translated_clause_by_clause_and_names_stay(english: str, chinese: str) -> None:
    assert tr_line(english) == english
    with speaking("zh"):
        assert tr_line(english) == chinese


def test_a_long_line_of_somebody_else_takes_no_time() -> None:
    with speaking("zh"):
        for line in ("a: " * 600, "of to is ; " * 180, "x" * 10**6):
            assert tr_line(line) == line


@pytest.mark.parametrize("config", [None, {}, [], {"report": None}, {"report": {"language": ["zh"]}}, {"report": "zh"}])
def test_settings_that_name_no_language_name_none(config: object) -> None:
    assert language_of(config) is None and language_of({"report": {"language": "zh"}, "dataset": 7}) == "zh"


def errors_of(path: Path) -> Iterator[str]:
    """Yield what is wrong and what to do, of each error in a file whose text stands there; names are x1."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("UserError", "PassingError", "Stopped"):
            for text in node.args:
                if isinstance(text, ast.JoinedStr):
                    yield "".join(
                        str(value.value) if isinstance(value, ast.Constant) else "x1" for value in text.values
                    )
                elif isinstance(text, ast.Constant):
                    yield str(text.value)


def test_what_stops_a_run_is_said_in_chinese() -> None:
    english = {}
    for path in sorted(SCRIPTS.rglob("*.py")):
        module = str(path.relative_to(SCRIPTS).with_suffix(""))
        for text in errors_of(path) if module not in STILL_ENGLISH else ():
            with speaking("zh"):
                if not text.startswith("--") and english_in(tr_line(text)):  # --option: of who calls a script by hand
                    english[f"{module}: {text}"] = tr_line(text)
    assert len(english) < 10, english  # a new error may wait a while for its Chinese


@pytest.mark.parametrize("table", [TABLE, LINES], ids=["texts", "lines"])
def test_each_translation_has_the_variables_of_its_text_and_is_chinese(table: dict[str, str]) -> None:
    for english, chinese in table.items():
        variables = len(re.findall(r"\{(?:tr)?\}", english))
        assert {int(number) for number in re.findall(r"\{(\d+)\}", chinese)} == set(range(variables)), english
        assert re.search("[\u4e00-\u9fff，。：/]", chinese) or english == chinese, english


def test_each_text_of_the_table_is_one_of_the_code() -> None:
    """Whoever changes a text sees that its Chinese is now of another one; some are put together of two strings."""
    files = [
        *sorted(SCRIPTS.rglob("*.py")),
        *(path for kind in ("rules/*.smk", "envs/*.py") for path in sorted(SCRIPTS.parent.glob(kind))),
    ]
    code = " ".join(path.read_text(encoding="utf-8") for path in files)
    code = " ".join(re.sub(r'"\s*f?"', "", code.replace("\\n", " ")).split())
    for english in [*TABLE, *(line for line in LINES if line not in OF_OTHERS)]:
        pieces = [piece.split() for piece in re.split(r"\{(?:tr)?\}|\(s\)", english)]
        triples = [" ".join(piece[i : i + 3]).strip(" :;,.") for piece in pieces for i in range(max(1, len(piece) - 2))]
        assert 2 * sum(triple in code for triple in triples) >= len(triples), english
