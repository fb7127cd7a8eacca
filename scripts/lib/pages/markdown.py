"""Documents in Markdown from the templates beside this file, and as HTML; whatever a value holds stays text."""

from __future__ import annotations

import re
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

from scripts.lib.base.console import one_line
from scripts.lib.base.language import language
from scripts.lib.base.units import human, percent
from scripts.lib.pages.templates import ENVIRONMENTS


def escape(value: object) -> Markup:
    """Return *value* as one line of Markdown that says just that: nothing in it is markup, HTML or a formula.

    >>> str(escape("a*b <i> | 1_000"))
    'a\\\\*b &lt;i&gt; \\\\| 1\\\\_000'
    """
    if isinstance(value, Markup):
        return value
    line = one_line(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", line)
    # What starts a list, or is the rule below a heading, where it starts a line.
    return Markup(re.sub(r"^(\d+(?=[.)](?: |$))|)([-+=]|(?<=\d)[.)])", r"\1\\\2", line))


def fenced(text: str, language: str = "sh") -> Markup:
    """Return *text* as a block of code, which no line of it can end."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return Markup(f"{fence}{language}\n{text}\n{fence}")


#: Every value of a template goes through escape, as it goes through HTML's escaping in a page.
MARKDOWN = {name: environment.overlay(finalize=escape) for name, environment in ENVIRONMENTS.items()}
for environment in MARKDOWN.values():
    environment.filters = {**environment.filters, "fenced": fenced, "human": human, "percent": percent}


def render(name: str, **values: Any) -> str:
    """Return the template *name* filled with *values*, which are escaped unless they are Markup."""
    return MARKDOWN[language()].get_template(name).render(**values)


def to_html(text: str) -> Markup:
    """Return Markdown (CommonMark with the tables of GitHub) as HTML; HTML in it is shown as text."""
    return Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))
