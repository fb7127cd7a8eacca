"""Hold the code to the rules of the house: short files and functions, markup in templates, the field's own words.

`make lint` runs it. It prints what breaks a rule, a line each, and then exits with 1.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES_OF_FILE = 500
MOST_LINES_OF_FUNCTION = 60
#: Where code stands whose files and functions are short and which writes no markup of its own.
CODE = ("scripts/", "bench/")
#: Tags, style sheets and scripts of a page, which belong into scripts/lib/pages/templates/.
TAGS = "a|b|body|br|button|circle|code|details|div|em|figure|g|h[1-6]|head|hr|html|i|img|input|label|li|line|link|meta"
TAGS += "|ol|option|p|path|pre|rect|script|section|select|small|span|strong|style|summary|svg|table|tbody|td|text"
TAGS += "|th|thead|title|tr|ul"
MARKUP = re.compile(
    rf"</?(?:{TAGS})(?:>|/>|\s+[\w:-]+=)|<!DOCTYPE"
    r"|\{\s*(?:color|margin|padding|width|height|display|font[\w-]*|background|border|max-width|text-align)\s*:"
    r"|\bdocument\.\w+|addEventListener|querySelector|\bfunction\s*\(",
    re.IGNORECASE,
)
#: Names that say nothing of what they hold, and names of this project where the field has its own.
NAMES = {
    **dict.fromkeys(("place", "one", "some", "found", "said", "own", "given"), "say what it is"),
    **dict.fromkeys(("side", "sides", "part"), "split"),
    **dict.fromkeys(("card", "cards", "n_cards", "find_cards", "claimed_cards", "check_cards"), "gpu"),
    **dict.fromkeys(("scores", "scores_of", "score_layer"), "logits or probabilities"),
    "edge": "short side",
    **dict.fromkeys(("pack", "packed"), "pixel cache, bundle or flatten"),
    **dict.fromkeys(("warm_start", "warm"), "fit_head, fitted head"),
    **dict.fromkeys(("notes", "course", "answers"), "metadata, history, correct"),
}
#: Words of comments, messages and pages, and what to write.
WORDS = {
    r"short(?:er)? edge|long(?:er)? edge": "short side",
    r"warm[- ]start(?:s|ed)?\b": "linear probe, fitted head",
    r"\bsurest\b": "most confident",
    r"\btaken for\b": "confused with",
    r"\bastray\b": "misclassified",
    r"\bspoke for\b": "contributed to",
    r"\bhow sure\b": "confidence",
    r"\bleak(?:s|ed|ing|age)?\b": "train copy in test, contaminated",
    r"\blicences?\b": "license",
    r"\b(?<!model )(?<!model-)cards?\b": "gpu",
    r"\(design\)|\blaw \d|the issue's list": "a reason that a reader of the repository can follow",
}
#: Not ours to word: history, the texts of others, and this table.
NOT_WORDED = re.compile(r"^(CHANGELOG\.md|LICENSE|\.ci/check_house\.py|envs/.*\.lock)$")
#: Where `card` is the model card.
OF_MODEL_CARD = re.compile(r"model_card|test_folds")
#: Names of files, columns and findings in a page of Markdown: quoted, they are no prose.
QUOTED = re.compile(r"`[^`\n]*`")
#: A line that keeps an old key or option alive beside the new one.
ALIAS = re.compile(r"[Aa]lias")


class Breach(NamedTuple):
    """A line of a file that breaks a rule, and how."""

    path: str
    line: int
    message: str


def tracked_files() -> list[str]:
    """Return the text files of the repository, new ones too."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    suffixes = {".py", ".md", ".smk", ".yaml", ".html", ".css", ".js", ".sh", ".in", ".toml", ""}
    return sorted(name for name in set(names) if Path(name).suffix in suffixes and (ROOT / name).is_file())


def docstrings_of(tree: ast.Module) -> set[int]:
    """Return the ids of the nodes that are docstrings."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = (node.body for node in ast.walk(tree) if isinstance(node, holders) and node.body)
    return {id(body[0].value) for body in bodies if isinstance(body[0], ast.Expr)}


def breaches_of_size(path: str, text: str, tree: ast.Module) -> Iterator[Breach]:
    """Yield the file if it is too long, and each of its functions that is."""
    if (lines := text.count("\n")) > MOST_LINES_OF_FILE:
        yield Breach(path, 1, f"{lines} lines, more than {MOST_LINES_OF_FILE}")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_LINES_OF_FUNCTION:
                message = f"{node.name} has {lines} lines, more than {MOST_LINES_OF_FUNCTION}"
                yield Breach(path, node.lineno, message)


def breaches_of_markup(path: str, tree: ast.Module) -> Iterator[Breach]:
    """Yield each string that holds a piece of a page."""
    docstrings = docstrings_of(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docstrings:
            continue
        if match := MARKUP.search(node.value):
            yield Breach(path, node.lineno, f"{match[0]!r} belongs into scripts/lib/pages/templates/")


def breaches_of_names(path: str, tree: ast.Module) -> Iterator[Breach]:
    """Yield each variable, argument, function and class whose name NAMES replaces."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                pass
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.alias(asname=str(name)):
                pass
            case _:
                continue
        if name.lower() in NAMES and not (name == "card" and OF_MODEL_CARD.search(path)):
            message = f"the name {name}: {NAMES[name.lower()]}"
            yield Breach(path, getattr(node, "lineno", 1), message)


def breaches_of_words(path: str, text: str) -> Iterator[Breach]:
    """Yield each line with a word that WORDS replaces."""
    words = {pattern: better for pattern, better in WORDS.items() if better != "gpu" or not OF_MODEL_CARD.search(path)}
    for number, line in enumerate(text.splitlines(), 1):
        if path.endswith(".md"):
            line = QUOTED.sub("``", line)
        for pattern, better in words.items():
            if (match := re.search(pattern, line, re.IGNORECASE)) and not ALIAS.search(line):
                yield Breach(path, number, f"{match[0]!r}: write {better}")


def breaches() -> Iterator[Breach]:
    """Yield everything in the repository that breaks a rule."""
    for path in tracked_files():
        text = (ROOT / path).read_text(encoding="utf-8")
        if not NOT_WORDED.search(path):
            yield from breaches_of_words(path, text)
        if not path.endswith(".py"):
            continue
        tree = ast.parse(text)
        yield from breaches_of_names(path, tree)
        if path.startswith(CODE):
            yield from breaches_of_size(path, text, tree)
            yield from breaches_of_markup(path, tree)


def main() -> int:
    """Print what breaks a rule; return the exit status."""
    lines = [f"{breach.path}:{breach.line}: {breach.message}" for breach in breaches()]
    print(*lines, f"check_house: {len(lines)} breaches", sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
