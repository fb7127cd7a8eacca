"""The language of what is read: texts are written in English in the code, their Chinese stands in chinese.yaml.

Results are the same in each language: files of numbers, their columns and what other steps read of them stay English.
Whole pages have a template in each language (scripts/lib/pages/templates and its folder zh).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from pathlib import Path

from scripts.lib.base import strict_yaml

LANGUAGES = ("en", "zh")
_language: ContextVar[str] = ContextVar("language", default="en")
#: In an English text of chinese.yaml: {} is any text, {tr} one that is translated too, (s) an s that may be missing.
_VARIABLE = re.compile(r"\\\{(?:tr)?\\\}|\\\(s\\\)")


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


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--language`` to the command of a script, for the main function of :func:`in_its_language`."""
    parser.add_argument("--language", choices=LANGUAGES, default="en", help="of what is read: English (en) or Chinese")


def in_its_language(main: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Return *main* as it runs in the language of its option ``--language``."""

    @wraps(main)
    def speak(args: argparse.Namespace) -> None:
        with speaking(args.language):
            main(args)

    return speak


def tr(text: str) -> str:
    """Return *text*, a text of the code with its numbers and names, in the language that is spoken.

    A text that has no translation stays as it is: it may be a name.

    >>> with speaking("zh"):
    ...     tr("epoch"), tr("3 of 4 images right (75.0%)"), tr("苹果")
    ('轮次', '4 张图像中 3 张正确（75.0%）', '苹果')
    """
    if language() == "en":
        return text
    exact, patterns = _chinese()
    if text in exact:
        return exact[text]
    for pattern, translated, chinese in patterns:
        if match := pattern.fullmatch(text):
            values = zip(match.groups(), translated, strict=True)
            return chinese.format(*(tr(value) if is_text else value for value, is_text in values))
    return text


@cache
def _chinese() -> tuple[dict[str, str], list[tuple[re.Pattern[str], list[bool], str]]]:
    """Return the Chinese of whole texts, and of texts with variables, those with the most fixed text first.

    Of the latter: the pattern, whether each of its variables is translated too, the Chinese.
    """
    table: dict[str, str] = strict_yaml.read(Path(__file__).with_name("chinese.yaml"))
    variables = {text: names for text in table if (names := re.findall(r"\{(?:tr)?\}", text))}
    order = sorted(variables, key=lambda text: len("".join(variables[text])) - len(text))
    return table, [(_pattern(text), [name == "{tr}" for name in variables[text]], table[text]) for text in order]


def _pattern(english: str) -> re.Pattern[str]:
    """Return what a text with variables looks like when they are filled in."""
    return re.compile(
        _VARIABLE.sub(lambda match: "s?" if match[0] == r"\(s\)" else "(.+?)", re.escape(english)), re.DOTALL
    )
