"""The language of what is read: texts are written in English in the code, their Chinese stands in chinese.yaml.

Lines of commands, errors too, are English where they are written, in logs and records; they are translated where they
are shown, by chinese_messages.yaml.

Results are the same in each language: files of numbers, their columns and what other steps read of them stay English.
Whole pages have a template in each language (scripts/lib/pages/templates and its folder zh).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from pathlib import Path
from typing import Any, NamedTuple

LANGUAGES = ("en", "zh")
_language: ContextVar[str] = ContextVar("language", default="en")
#: In an English text of chinese.yaml: {} is any text, {tr} one that is translated too, (s) an s that may be missing.
_VARIABLE = re.compile(r"\\\{(?:tr)?\\\}|\\\(s\\\)")
#: The Chinese of texts, and of the lines of commands.
_TEXTS, _LINES = "chinese.yaml", "chinese_messages.yaml"
#: Between the clauses of a line, and its Chinese.
_BETWEEN = {": ": "：", "; ": "；"}
#: Fixed letters by which a line is known as a text with variables. Of a text with fewer, variables are single words.
_CERTAIN = 10
#: A longer line, or one of more clauses, is none of ours.
_LONGEST, _MOST = 1500, 12


def language() -> str:
    """Return the language that is spoken: ``en`` or ``zh``."""
    return _language.get()


@contextmanager
def speaking(name: str) -> Iterator[None]:
    """Speak the language *name* inside the block."""
    token = _language.set(name)
    try:
        yield
    finally:
        _language.reset(token)


def speak(name: str) -> None:
    """Speak the language *name* from now on, in this thread."""
    _language.set(name)


def language_of(config: Any) -> str | None:
    """Return report.language of a configuration, which need not be valid; None where it names no language."""
    report = config.get("report") if isinstance(config, Mapping) else None
    name = report.get("language") if isinstance(report, Mapping) else None
    return name if name in LANGUAGES else None


def add_option(parser: argparse.ArgumentParser, default: str | None = "en") -> None:
    """Add ``--language`` to the command of a script, for the main function of :func:`in_its_language`.

    Parameters
    ----------
    default : None for the commands that people type, whose language command_language.py determines.
    """
    parser.add_argument("--language", choices=LANGUAGES, default=default, help="of what is read: English or Chinese")


def in_its_language(main: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Return *main* as it runs in the language of its option ``--language``; without one, in that of the command."""

    @wraps(main)
    def speak(args: argparse.Namespace) -> None:
        with speaking(args.language or language()):
            main(args)

    return speak


def tr(text: str) -> str:
    """Return *text*, a text of the code with its numbers and names, in the language that is spoken.

    A text that has no translation stays as it is: it may be a name.

    >>> with speaking("zh"):
    ...     tr("epoch"), tr("3 of 4 images right (75.0%)"), tr("苹果")
    ('轮次', '4 张图像中 3 张正确（75.0%）', '苹果')
    """
    return text if language() == "en" else _looked_up(text, _chinese(_TEXTS), tr) or text


def tr_line(line: str) -> str:
    """Return a line of a command in the language that is spoken, clause by clause: an error, a result, its remedy.

    Paths, keys and names before a colon stay as they are, and so does what has no translation.

    >>> with speaking("zh"):
    ...     tr_line("error: results/a.csv: no such file; make it again")
    '错误：results/a.csv：没有这个文件；请重新生成'
    """
    if language() == "en" or len(line) > _LONGEST or sum(map(line.count, _BETWEEN)) > _MOST:
        return line
    shown = _by_clauses(line)
    for first, between, rest in reversed(_splits(shown)):  # after a text of somebody else's, what is to be done
        if chinese := _clause(rest, least=_CERTAIN):
            return f"{first}{_BETWEEN[between]}{chinese}"
    return shown


def _splits(line: str) -> list[tuple[str, str, str]]:
    """Return what stands before, in and after each place at which a clause of a line may end."""
    return [(line[: at.start()], at[0], line[at.end() :]) for at in re.finditer("|".join(_BETWEEN), line)]


def _by_clauses(line: str) -> str:
    """Return a line with its clauses translated, up to the first that has no translation and is no name."""
    if whole := _clause(line):
        return whole
    for first, between, rest in _splits(line):
        chinese = _clause(first)
        if not chinese and " " in first:
            continue
        others = _by_clauses(rest)
        if chinese or others != rest:
            return f"{chinese or first}{_BETWEEN[between]}{others}"
    return line


def heading(name: str) -> str:
    """Return the heading of a column, or of a line, of a command in the language that is spoken.

    Not by :func:`tr`, whose texts are all that is called so: ``left`` may be a class.
    """
    return tr_line(f"column {name}").removeprefix("column ")


def titled(name: str, text: str) -> str:
    """Return a text behind what it is of, both of them in the language that is spoken already."""
    return f"{name}：{text}" if language() == "zh" else f"{name}: {text}"


def _clause(text: str, least: int = 0) -> str | None:
    """Return the Chinese of one clause, or of a whole line; None: it has none.

    Parameters
    ----------
    least : fixed letters that a text with variables has to have.
    """
    tables = map(_chinese, (_LINES, _TEXTS))
    return next(filter(None, (_looked_up(text, table, _by_clauses, _CERTAIN, least) for table in tables)), None)


def _looked_up(
    text: str, table: _Table, translate: Callable[[str], str], certain: int = 0, least: int = 0
) -> str | None:
    """Return the Chinese of a text in a table; None: it has none there.

    Parameters
    ----------
    translate : what is done with those of its variables that are texts.
    certain : other than 0, of lines: with fewer letters of fixed text, one is only meant where its variables are single
        words or have a translation; with more, where they hold no two clauses.
    least : letters of fixed text that a text with variables has to have.
    """
    exact, patterns = table
    if text in exact:
        return exact[text]
    for pattern in patterns:
        if len("".join(pattern.pieces)) < least:
            break  # those with the most come first
        if all(piece in text for piece in pattern.pieces) and (match := pattern.english.fullmatch(text)):
            values = match.groups()
            both = zip(values, pattern.translated, strict=True)
            shown = [translate(value) if is_text else value for value, is_text in both]
            names = set(values).intersection(shown)
            odd = " " if len("".join(pattern.pieces)) < certain else "|".join(_BETWEEN)
            if not (certain and any(re.search(odd, name) for name in names)):
                return pattern.chinese.format(*shown)
    return None


class _Pattern(NamedTuple):
    """A text with variables: what it looks like, what stands between them, which are translated too, its Chinese."""

    english: re.Pattern[str]
    pieces: list[str]
    translated: list[bool]
    chinese: str


#: Whole texts; and those with variables, those with the most fixed text first.
_Table = tuple[dict[str, str], list[_Pattern]]


@cache
def _chinese(name: str) -> _Table:
    from scripts.lib.base import strict_yaml  # only here: `make doctor` works without a .venv, and so without PyYAML

    table: dict[str, str] = strict_yaml.read(Path(__file__).with_name(name))
    patterns = []
    for text, chinese in table.items():
        if names := re.findall(r"\{(?:tr)?\}", text):
            pieces = re.split(r"\{(?:tr)?\}|\(s\)", text)
            translated = [name == "{tr}" for name in names]
            patterns.append(_Pattern(_pattern(text, name != _TEXTS), pieces, translated, chinese))
    return table, sorted(patterns, key=lambda pattern: -len("".join(pattern.pieces)))


def _pattern(english: str, of_line: bool) -> re.Pattern[str]:
    """Return what a text with variables looks like when they are filled in; of a line, names hold no two clauses."""
    name = "((?:(?!: |; ).)+?)" if of_line else "(.+?)"
    forms = {r"\(s\)": "s?", r"\{\}": name, r"\{tr\}": "(.+?)"}
    return re.compile(_VARIABLE.sub(lambda match: forms[match[0]], re.escape(english)), re.DOTALL)
