"""What YAML is read as: numbers, text, and what is refused in one line because readers differ or nothing bounds it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.lib.base.problems import UserError
from scripts.lib.base.strict_yaml import MOST_LEVELS, dump, parse, read


def refusal_of(text: str) -> str:
    started = time.process_time()
    with pytest.raises(UserError) as caught:
        parse(text, "x.yaml")
    message = str(caught.value)
    assert message.startswith("x.yaml: ") and "\n" not in message and len(message) < 400
    assert time.process_time() - started < 2
    return message


@pytest.mark.parametrize(
    ("text", "lines", "key"),
    [
        ("a: 1\nb: 2\na: 3\n", "lines 1 and 3", "the key a "),
        ("experiments:\n  m: {x: 1}\n  n: {}\n  m: {x: 2}\n", "lines 2 and 4", "experiments.m "),
        ("a:\n- b\n- {c: 1, d: 2,\n   c: 3}\n", "lines 3 and 4", "a.1.c "),
        ("1: a\n01: b\n", "lines 1 and 2", "(as 1 and 01)"),
        ("m: a\n'm': b\n", "lines 1 and 2", "the key m "),
        ('{"m": 1,\n "m": 2}', "lines 1 and 2", "the key m "),
        ("1: a\n1.0: b\n", "lines 1 and 2", "(as 1 and 1.0)"),
        ("true: a\nTrue: b\n", "lines 1 and 2", "(as true and True)"),
        ("a: &a {x: 1}\nb: &b {x: 2}\nc:\n  <<: *a\n  <<: *b\n", "lines 4 and 5", "<<: [*a, *b]"),
        ("a: &a {x: 1, x: 2}\nb: {<<: *a}\n", "line 1:", "a.x "),
        ("&k a: 1\nb: 2\n*k : 3\n", "lines 1 and 3", "the key a "),
        ("{&k a: 1, *k : 3}\n", "line 1:", "the key a "),
        ("~: a\nnull: b\n", "lines 1 and 2", "(as ~ and null)"),
        ("1e1: a\n10: b\n", "lines 1 and 2", "(as 1e1 and 10)"),
        ("a: {<<: [{x: 1}, {y: 1,\n y: 2}]}\n", "lines 1 and 2", "a.<<.1.y "),
        ("- &k x\n- {*k : 1,\n   x: 2}\n", "lines 2 and 3", "1.x "),
    ],
)  # fmt: skip
def test_a_key_that_stands_twice_is_refused_with_both_lines(text: str, lines: str, key: str) -> None:
    message = refusal_of(text)
    assert lines in message and key in message and "twice" in message


def test_a_merged_key_may_be_replaced_and_several_sections_may_be_merged() -> None:
    base = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\n"
    assert parse(base + "c: {<<: *a, x: 3}")["c"] == {"x": 3, "y": 1}
    assert parse(base + "c: {<<: [*a, *b]}")["c"] == yaml.safe_load(base + "c: {<<: [*a, *b]}")["c"]
    assert parse("1: a\n'01': b\n") == {"1": "a", "01": "b"}  # texts that differ


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001), ("1E5", 100000.0), ("1e+3", 1000.0), ("-1e-3", -0.001), ("[1e-3, 1e-4]", [0.001, 0.0001]),
        ("{a: {b: [2.5e-5]}}", {"a": {"b": [2.5e-5]}}), (".5", 0.5), ("1.", 1.0), ("+2", 2), ("-0", 0), ("0", 0),
        ("true", True), ("FALSE", False), ("null", None), ("~", None), ("", None), ('"1e-4"', "1e-4"), ("'7'", "7"),
        ("2024-01-01", "2024-01-01"), ("1.2.3", "1.2.3"), ("1e", "1e"), ("n", "n"), ("y", "y"), ("inf", "inf"),
        ("yes please", "yes please"), ("-", ["a"]), ("=", "="), ('"yes"', "yes"), ("e5", "e5"), ("1 2", "1 2"),
    ],
)  # fmt: skip
def test_numbers_are_numbers_and_text_stays_text(text: str, value: Any) -> None:
    read_value = parse(f"key: {text}" if text != "-" else "key:\n- a")["key"]
    assert read_value == value and type(read_value) is type(value)


@pytest.mark.parametrize(
    ("value", "otherwise"),
    [
        ("yes", "write true"), ("Off", "write false"), ("NO", "write false"), ("017", "without leading zeros"),
        ("08", "leading zeros"), ("0o17", "write 15"), ("0x1F", "write 31"), ("0b11", "write 3"),
        ("1_000", "write 1000"),
        ("1_0.5", "write 10.5"), ("1:30", "one decimal number"), ("1:30.5", "one decimal number"), ("01.5", "zeros"),
        (".inf", "finite"), ("-.INF", "finite"), (".NaN", "finite"),
    ],
)  # fmt: skip
def test_what_programs_read_differently_is_refused_and_quotes_make_it_text(value: str, otherwise: str) -> None:
    message = refusal_of(f"a:\n  b: {value}\n")
    assert "line 2: a.b: " in message and otherwise in message and message.endswith(f'quotes are needed: b: "{value}"')
    assert parse(f'a: "{value}"') == {"a": value}


def test_the_line_is_shown_as_it_should_be() -> None:
    assert refusal_of("classes: [yes, no]").endswith('quotes are needed: classes: ["yes", "no"]')
    assert refusal_of("classes: [001, 1, cat]").endswith('quotes are needed: classes: ["001", "1", cat]')
    assert refusal_of("classes:\n- cat\n- no\n").endswith('quotes are needed: - "no"')


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "its aliases stand for"),
        (LAUGHS.replace("[x,x,x,x,x,x,x,x,x]", "{k: 1}").replace("[*", "[*") + "z: {<<: *a}", "its aliases stand for"),
        ("a: &a [*a]", "holds itself"),
        ("a: &a {b: {<<: *a}}", "holds itself"),
        ("a: " + "[" * 100_000, f"more than {MOST_LEVELS} levels"),
        ("a: " + "{a: " * 60 + "}" * 60, f"more than {MOST_LEVELS} levels"),
        ("".join(f"a{i}: &a{i} [{f'*a{i - 1}' if i else 1}]\n" for i in range(3000)), "levels deep"),
        ("a:\n\tb: 1", "line 2: a tab"),
        ("a: 1\nb: \x07", "line 2: a control character (U+0007)"),
        ("--- 1\n--- 2", "another document"),
        ("a: !!python/object/apply:os.system [x]", "tag"),
        ("a: !!int x", "no value of !!int"),
        ("a: 1e400", "no value of !!float"),
        ("a: " + "9" * 5000, "no value of !!int"),
        ("? [a]\n: 1", "a key that is a list"),
        ("<<: 3", "<<: *name"),
        ("a: *b", "undefined alias"),
        ("a: [1\nb: 2", "line 2"),
    ],
)  # fmt: skip
def test_what_is_unbounded_or_no_yaml_is_one_short_line(text: str, words: str) -> None:
    assert words in refusal_of(text)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1".encode("utf-16"), "UTF-16"), ("a: 1".encode("utf-16-be"), "UTF-16"), (b"\x89PNG\r\n\0", "no text file"),
        ("a: 1\nb: Größe".encode("latin-1"), "line 2: not UTF-8"), ("水果: 1".encode("gb18030"), "not UTF-8"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_text_in_utf_8_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read(path)
    with pytest.raises(UserError, match="it is a folder"):
        read(tmp_path)


def test_a_byte_order_mark_and_json_with_tabs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(path) == {"a": 1}
    value = {"a": [1, 2.5, 1e-7, True, None, "x"], "b": {"c": "1e-4"}}
    assert parse(json.dumps(value, indent="\t")) == value


def test_what_is_written_is_read_back_by_this_and_by_other_readers() -> None:
    texts = [
        "1e-4",
        "yes",
        "017",
        "1_000",
        "1:30",
        ".inf",
        "true",
        "null",
        "",
        "~",
        "<<",
        "1.5",
        "=",
        "a: b",
        "#x",
        "-",
    ]
    value = {"texts": [*texts, "08", "0o17", "1e5", "中文", "n", "{c}"], "numbers": [1e-5, 1e20, 0, True, None]}
    assert parse(dump(value)) == value
    assert yaml.safe_load(dump(value)) == value
