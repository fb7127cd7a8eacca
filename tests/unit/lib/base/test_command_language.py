"""The language of a command: asked for, of its settings, of the results that it is about, of the shell's locale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from dag import ROOT
from terminal import Terminal

from scripts.lib.base.command_language import encoding_of_shell, language_of_command, language_of_words

CHINESE, ENGLISH = {"LANG": "zh_CN.UTF-8"}, {"LANG": "en_GB.UTF-8"}


def settings(path: Path, language: str | None, name: str = "fruit") -> Path:
    report = f"report: {{language: {language}}}\n" if language else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"dataset: {{name: {name}}}\n{report}", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("shell", "language"),
    [
        ({}, "en"),
        ({"LANG": "C"}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.GB18030"}, "zh"),
        ({"LANG": "zh_CN"}, "zh"),
        ({"LANG": "zh_TW.Big5"}, "zh"),
        ({"LANG": "zh"}, "zh"),
        ({"LANG": "zha_CN.UTF-8"}, "en"),  # Zhuang
        ({"LANG": "", "LC_MESSAGES": "", "LC_ALL": ""}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_CTYPE": "zh_CN.UTF-8"}, "en"),  # how letters are written, not what is said
        # `make` starts commands with LC_ALL=C, and keeps what the shell had.
        ({"LC_ALL": "C", "MIMFLOW_SHELL": json.dumps({"LC_ALL": None, "LANG": "zh_CN.UTF-8"})}, "zh"),
        ({"LC_ALL": "C", "MIMFLOW_SHELL": json.dumps({"LC_ALL": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"})}, "en"),
    ],
)
def test_without_settings_the_shell_s_locale_decides(shell: dict[str, str], language: str) -> None:
    assert language_of_command({}, shell) == language


def test_what_is_asked_for_comes_before_settings_and_these_before_results_and_locale(tmp_path: Path) -> None:
    chinese, english = settings(tmp_path / "zh.yaml", "zh"), settings(tmp_path / "en.yaml", "en")
    none = settings(tmp_path / "none.yaml", None)
    run = settings(tmp_path / "results/fruit/settings.yaml", "zh").parent / "small/seed0"
    run.mkdir(parents=True)
    assert language_of_command({"language": "en", "config": chinese, "run": run}, CHINESE) == "en"
    assert language_of_command({"language": "zh", "config": english}, ENGLISH) == "zh"
    assert language_of_command({"config": english, "run": run}, CHINESE) == "en"
    assert language_of_command({"config": str(chinese)}, ENGLISH) == "zh"
    assert language_of_command({"files": [none, chinese]}, ENGLISH) == "zh"
    assert language_of_command({"config": none, "run": run}, ENGLISH) == "zh"
    assert language_of_command({"config": none}, CHINESE) == "zh" and language_of_command({"config": none}, {}) == "en"
    for odd in ("report: {language: fr}\n", "report: [\n", "- 1\n"):
        none.write_text(odd)
        assert language_of_command({"config": none}, CHINESE) == "zh", "the command itself tells what is wrong with it"
    assert language_of_command({"config": tmp_path / "missing.yaml"}, {}) == "en"


@pytest.mark.parametrize("option", ["run", "onnx", "results", "dataset", "folder"])
def test_the_results_that_a_command_is_about_tell_the_language_of_their_settings(option: str, tmp_path: Path) -> None:
    results = tmp_path / "results"
    settings(results / "fruit/settings.yaml", "zh")
    run = results / "fruit/small/seed0/fold1"
    run.mkdir(parents=True)
    options: list[Mapping[str, Any]] = {
        "run": [{"run": folder} for folder in (run, run.parent, run.parents[1], run.parents[2], results)],
        "onnx": [{"onnx": run / "model.onnx"}, {"onnx": run.parent / "model.onnx"}],
        "results": [{"results": results}],
        "dataset": [{"results": results, "dataset": "fruit"}],
        "folder": [{"folder": tmp_path}],
    }[option]
    for words in options:
        assert language_of_command(words, ENGLISH) == "zh", words
    settings(results / "other/settings.yaml", "en", "other")
    of_all = [words for words in options if results in words.values() or tmp_path in words.values()]
    for words in options:
        several = words in of_all and "dataset" not in words
        assert language_of_command(words, ENGLISH) == ("en" if several else "zh"), words


def test_settings_that_lie_elsewhere_decide_nothing(tmp_path: Path) -> None:
    settings(tmp_path / "settings.yaml", "zh", tmp_path.name)
    settings(tmp_path / "results/settings.yaml", "zh", "results")
    of_another = settings(tmp_path / "results/fruit/settings.yaml", "zh", "another").parent
    (of_another / "small/seed0").mkdir(parents=True)
    model = tmp_path / "exported" / "model.onnx"
    model.parent.mkdir()
    cases = [{"run": of_another / "small/seed0"}, {"run": of_another}, {"onnx": model}, {"onnx": tmp_path / "m.onnx"}]
    cases += [{"run": model.parent}, {"run": tmp_path / "a/b/seed0"}, {"results": tmp_path / "results"}]
    cases += [{"run": Path("/seed0")}, {"run": Path("/")}]
    for words in cases:
        assert language_of_command(words, ENGLISH) == "en", words


def typed(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Type a command that fails, in a Chinese shell."""
    command = [sys.executable, "-m", "scripts.clean", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "LC_ALL": "zh_CN.UTF-8"}, capture_output=True, text=True
    )


def test_the_step_of_a_rule_speaks_english_and_writes_an_english_log(tmp_path: Path) -> None:
    log = tmp_path / "step.log"
    done = typed("--run", "results/none", "--log", log)
    assert done.returncode == 1 and done.stderr.startswith("error: results/none: there is no such folder")
    assert "error: results/none: there is no such folder" in log.read_text(encoding="utf-8")
    assert "there is no such folder" in log.with_suffix(".outcome.json").read_text(encoding="utf-8")
    assert typed("--run", "results/none").stderr.startswith("错误：results/none：没有这个文件夹")
    assert typed("--run", "results/none", "--language", "en").stderr == done.stderr


def test_words_that_are_no_command_are_refused_in_its_language(tmp_path: Path) -> None:
    assert language_of_words(["--run", "--config", str(settings(tmp_path / "a.yaml", "zh")), "--odd"], ENGLISH) == "zh"
    assert language_of_words(["--language"], CHINESE) == "zh"
    done = typed("--runs", "x")
    assert done.returncode == 2 and done.stderr.startswith("错误：缺少必需的参数：--run"), done.stderr


def test_a_terminal_of_another_encoding_is_written_in_it(tmp_path: Path) -> None:
    assert encoding_of_shell({"LANG": "zh_CN.GB18030"}) == "GB18030"
    assert encoding_of_shell({"LANG": "zh_CN.UTF-8", "LC_CTYPE": "zh_CN.gbk@x"}) == "gbk"
    assert encoding_of_shell({"LANG": "zh_CN"}) == encoding_of_shell({}) == ""
    command = [sys.executable, "-X", "utf8", "-m", "scripts.clean", "--run", "results/没有"]
    for locale, expected in {"zh_CN.GB18030": "gb18030", "zh_CN.UTF-8": "utf-8", "zh_CN.odd": "utf-8"}.items():
        terminal = Terminal(command, ROOT, {"LC_ALL": locale}, encoding=expected)
        assert terminal.end(60) == 1
        assert "错误：results/没有：没有这个文件夹" in terminal.output, terminal.output
