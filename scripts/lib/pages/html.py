"""Small self-contained HTML pages: no request, no script but our own, everything from outside escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image

from scripts.lib.pages import templates
from scripts.lib.pages.fonts import embedded_face
from scripts.lib.pages.thumbnails import Picture

#: Name of the font that a page brings along, for the characters of its range only.
OWN_FONT = "mimflow"
STYLE = """
body { font: 15px/1.5 mimflow, system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; color: #222;
       margin: 2em auto; max-width: 75em; padding: 0 1em }
table { border-collapse: collapse; margin: 0.5em 0 1.5em } caption { text-align: left; color: #555 }
th, td { padding: 0.25em 0.8em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top;
         overflow-wrap: anywhere }
th { background: #f4f4f4; overflow-wrap: normal } .facts td:first-child { min-width: min(14em, 30vw) }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
pre { background: #f7f7f7; border: 1px solid #ddd; padding: 0.8em; overflow-x: auto; font-size: 13px }
""".strip()


def page(title: str, parts: Iterable[str], language: str = "en", style: str = "", script: str = "") -> str:
    """Return a whole page.

    Parameters
    ----------
    title : text.
    parts : HTML already. Pictures are ``data:`` URIs.
    style : rules beside STYLE.
    script : JavaScript that runs when the page is there; no other does.
    """
    heading = escape(title)
    # The policy is a second lock: were anything to slip through the escaping, a browser would still not run it.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"
    if script:
        policy += f"; script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    body = "\n".join(parts)
    face = embedded_face(heading + body, OWN_FONT)
    return (
        f'<!DOCTYPE html>\n<html lang="{escape(language)}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{heading}</title>\n<style>{face}\n{STYLE}\n{style}</style>\n</head>\n<body>\n<h1>{heading}</h1>\n"
        + body
        + (f"\n<script>{script}</script>" if script else "")
        + "\n</body>\n</html>\n"
    )


def section(title: str) -> str:
    return f"<h2>{escape(title)}</h2>"


def preformatted(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), caption: str = "") -> str:
    """Return a table of texts; the columns at the places *numbers* are set to the right. No *header*: none."""
    head = "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + "</tr>\n" if header else ""
    title = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    body = "\n".join(
        "<tr>" + "".join(_cell(cell, place in numbers) for place, cell in enumerate(row)) + "</tr>" for row in rows
    )
    kind = "" if header else ' class="facts"'
    return f"<table{kind}>\n{title}{head}{body}\n</table>"


def _cell(text: str, is_number: bool) -> str:
    return f'<td class="number">{escape(text)}</td>' if is_number else f"<td>{escape(text)}</td>"


PICTURES_STYLE = templates.source("pictures.css")


def picture(image: Image.Image, description: str) -> str:
    """Return the HTML of a small picture; *description* is text."""
    shown = Picture.of(image)
    return (
        f'<img src="{shown.uri}" width="{shown.width}" height="{shown.height}" alt="{escape(description)}"'
        ' decoding="async" loading="lazy">'
    )


def name(text: str) -> str:
    """Return a name from outside as HTML; its direction of writing does not leak into what follows."""
    return f"<bdi>{escape(text)}</bdi>"
