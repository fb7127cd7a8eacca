"""Pages from the templates beside this file: self-contained, no request, everything from outside escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.ext import Extension
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from scripts.lib.base.language import language, tr
from scripts.lib.base.units import human, plural
from scripts.lib.pages.fonts import embedded_face

FOLDER = Path(__file__).with_name("templates")
#: Name of the font that a page brings along, for the characters of its range only.
OWN_FONT = "mimflow"
#: The libraries that draw the plots of report.html; their README.md says where they come from.
VENDOR = FOLDER / "vendor"
PLOT_LIBRARIES = ("d3.min.js", "plot.umd.min.js")
#: Characters at the beginning of a page within which it names its policy.
POLICY_WITHIN = 4096


class _ChineseSentences(Extension):
    """Takes the line break after Chinese punctuation out of a page's template: a browser shows it as a space."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        return (
            re.sub(r"([。，；：！？、）](?:</\w+>)*)\n(?=\S)", r"\1", source)
            if (name or "").endswith(".html")
            else source
        )


def _environment(*folders: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, extensions=[_ChineseSentences],
    )  # fmt: skip
    environment.filters |= {"human": human, "plural": plural, "thousands": "{:,}".format, "tr": tr}
    return environment


#: Of each language; what its own folder lacks holds no words.
ENVIRONMENTS = {"en": _environment(FOLDER), "zh": _environment(FOLDER / "zh", FOLDER)}


def render(name: str, **values: Any) -> Markup:
    """Return the template *name* filled with *values*, which are escaped unless they are Markup."""
    return Markup(ENVIRONMENTS[language()].get_template(name).render(**values))


def source(name: str) -> Markup:
    """Return a style sheet or a script of the templates' folder as it is."""
    return Markup((FOLDER / name).read_text(encoding="utf-8"))


def heading(words: str, of: str = "") -> str:
    """Return a page's heading: what it shows, and of which run or data set."""
    return f"{tr(words)}: {tr(of)}" if of else tr(words)


def policy(
    scripts: Sequence[str] = (), *, beside: bool = False, asking: bool = False, compiled: bool = False
) -> Markup:
    """Return a policy by which a browser runs *scripts* and no other, and asks for nothing from anywhere.

    It is a second lock: were anything to slip through the escaping, a browser would still not run it.

    Parameters
    ----------
    beside : whether images are files that lie beside the page, rather than in it.
    asking : whether its scripts may ask the server that it comes from.
    compiled : whether the scripts run WebAssembly that the page holds.
    """
    images = "'self' file: data:" if beside else "data:"
    text = f"default-src 'none'; style-src 'unsafe-inline'; img-src {images}; font-src data:"
    text += "; connect-src 'self'" if asking else ""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    if compiled:  # such a program is fetched, from the page's own memory
        text, allowed = f"{text}; connect-src blob:", f"{allowed} 'wasm-unsafe-eval'"
    return Markup(f"{text}; script-src {allowed}" if allowed else text)


def policy_of(page: Path) -> str:
    """Return the policy that a page of :func:`page_of_views` or :func:`page` holds; one that allows nothing for others.

    Raises
    ------
    OSError : it cannot be read.
    """
    with open(page, encoding="utf-8", errors="replace") as file:
        match = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', file.read(POLICY_WITHIN))
    return match[1] if match else "default-src 'none'"


def page(
    name: str, title: str, *, style: str | Sequence[str] = (), script: str = "", beside: bool = False, **values: Any
) -> str:
    """Return a whole page, in the language that is spoken.

    Parameters
    ----------
    name : template of what stands below the title.
    style : file, or files, with rules beside base.css.
    script : file with JavaScript that runs when the page is there; no other does.
    beside : as :func:`policy` takes it.
    values : of the template.
    """
    body = render(name, **values)
    code = source(script) if script else Markup()
    styles = [style] if isinstance(style, str) else style
    return render(
        "base.html",
        title=title,
        language=language(),
        policy=policy([code] if script else (), beside=beside),
        face=Markup(embedded_face(Markup.escape(title) + body, OWN_FONT)),
        styles=[source(file) for file in ("base.css", *styles)],
        body=body,
        script=code,
    )


def page_of_views(
    title: str,
    views: Mapping[str, Markup],
    data: Any,
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
    libraries: Sequence[str] = PLOT_LIBRARIES,
    pictures: Sequence[str] = (),
    compressed: Mapping[str, bytes] | None = None,
    asking: bool = False,
) -> tuple[str, Markup]:
    """Return a page in several languages which its script fills, and its policy.

    Parameters
    ----------
    views : what each language shows; the page opens in the first.
    data : what the script reads.
    styles, scripts : files of the templates' folder; the scripts are run as one, after the libraries.
    libraries : files of the folder `VENDOR`.
    pictures : WebP files in base64, which the script reads when it shows one.
    compressed : gzip files that the script reads, a program in WebAssembly among them; by the id of their element.
    asking : as :func:`policy` takes it.
    """
    code = [Markup((VENDOR / name).read_text(encoding="utf-8").strip()) for name in libraries]
    code.append(Markup("\n").join(source(name) for name in scripts))
    text, allowed = as_json(data), policy(code, asking=asking, compiled=bool(compressed))
    page = render(
        "views.html",
        language=next(iter(views)),
        title=title,
        policy=allowed,
        face=Markup(embedded_face(Markup("").join(views.values()) + text, OWN_FONT)),
        styles=[source(name) for name in styles],
        views=views,
        data=text,
        pictures=as_json(list(pictures)),
        compressed={name: base64.b64encode(content).decode("ascii") for name, content in (compressed or {}).items()},
        scripts=code,
    )
    return page, allowed


def as_json(value: Any) -> Markup:
    """Return JSON that may stand inside a script element, whatever names are in it."""
    dumps = partial(json.dumps, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return htmlsafe_json_dumps(value, dumps=dumps)
