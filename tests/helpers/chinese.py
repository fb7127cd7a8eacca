"""What of a text in Chinese is still English: sentences and phrases, but no names, paths, keys or code."""

from __future__ import annotations

import re
from html.parser import HTMLParser

#: Three words of Latin letters one after the other, or two with a small letter each that are no name.
PHRASE = re.compile(r"(?<![\w./_=-])[A-Za-z][a-z']+(?:[ ,:;]+[A-Za-z][a-z']+){2,}(?![\w./_=-])")
#: Titles of publications, and what programs and formats are called.
NAMES = re.compile(r"Model Cards for Model Reporting|Reporting, https|Mitchell et al\.")


class Visible(HTMLParser):
    """The texts of a page that a reader sees, those of attributes too, but no code."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._hidden = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("style", "script", "pre", "code", "bdi")
        self.texts += [value for name, value in attrs if value and name in ("aria-label", "placeholder")]

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script", "pre", "code", "bdi")

    def handle_data(self, data: str) -> None:
        if not self._hidden and data.strip():
            self.texts.append(data)


def english_in(text: str) -> list[str]:
    """Return the English phrases of a text."""
    return PHRASE.findall(NAMES.sub("", " ".join(text.split())))


def english_on(page: str) -> list[str]:
    """Return the English phrases of a page."""
    return [phrase for text in Visible(page).texts for phrase in english_in(text)]


#: What lines of commands have besides sentences: code, names in quotes, paths, addresses, options, keys with a value.
CODE = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"|\S*[/=_@\\]\S*|--?[a-z]\S*|\S+\.[a-z]\w*")
#: Two words of small letters one after the other.
WORDS = re.compile(r"(?<![\w.-])[a-z]{2,}[ ,;]+[a-z]{2,}(?![\w.-])")


def english_of_line(line: str) -> list[str]:
    """Return the English phrases, of two words and more, of a line that a command printed."""
    return WORDS.findall(CODE.sub("0", NAMES.sub("", line)))
