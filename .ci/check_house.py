"""Hold the code to the rules of the house: short files and functions, markup in templates, the field's own words.

`make lint` runs it. What breaks a rule today stands in .ci/house_exceptions.txt with how much of it there is; more of
it, or anything new, is printed and makes the check fail. `python .ci/check_house.py --list` prints everything that is
left, line by line; `--write` writes the exceptions again, after some of them are gone.
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
EXCEPTIONS = ROOT / ".ci" / "house_exceptions.txt"
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
NOT_WORDED = re.compile(r"^(CHANGELOG\.md|LICENSE|\.ci/(check_house\.py|house_exceptions\.txt)|envs/.*\.lock)$")
#: Where `card` is the model card.
OF_MODEL_CARD = re.compile(r"model_card|test_folds")
#: Names of files, columns and findings in a page of Markdown: quoted, they are no prose.
QUOTED = re.compile(r"`[^`\n]*`")
#: A line that keeps an old key or option alive beside the new one.
ALIAS = re.compile(r"[Aa]lias")


class Breach(NamedTuple):
    """One place that breaks a rule.

    Attributes
    ----------
    kind : the rule, as it stands in the list of exceptions.
    line : line of the file.
    amount : how much counts against the exceptions: lines of a file or function, else 1.
    """

    kind: str
    path: str
    line: int
    message: str
    amount: int = 1


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
        yield Breach("long file", path, 1, f"{lines} lines, more than {MOST_LINES_OF_FILE}", lines)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_LINES_OF_FUNCTION:
                message = f"{node.name} has {lines} lines, more than {MOST_LINES_OF_FUNCTION}"
                yield Breach(f"long function {node.name}", path, node.lineno, message, lines)


def breaches_of_markup(path: str, tree: ast.Module) -> Iterator[Breach]:
    """Yield each string that holds a piece of a page."""
    docstrings = docstrings_of(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docstrings:
            continue
        if match := MARKUP.search(node.value):
            yield Breach("markup", path, node.lineno, f"{match[0]!r} belongs into scripts/lib/pages/templates/")


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
            yield Breach(f"name {name.lower()}", path, getattr(node, "lineno", 1), message)


def breaches_of_words(path: str, text: str) -> Iterator[Breach]:
    """Yield each line with a word that WORDS replaces."""
    words = {pattern: better for pattern, better in WORDS.items() if better != "gpu" or not OF_MODEL_CARD.search(path)}
    for number, line in enumerate(text.splitlines(), 1):
        if path.endswith(".md"):
            line = QUOTED.sub("``", line)
        for pattern, better in words.items():
            if (match := re.search(pattern, line, re.IGNORECASE)) and not ALIAS.search(line):
                yield Breach(
                    f"word {match[0].lower().replace(' ', '-')}", path, number, f"{match[0]!r}: write {better}"
                )


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


def read_exceptions() -> dict[tuple[str, str], int]:
    """Return how much of each breach is accepted, by its kind and file."""
    if not EXCEPTIONS.exists():
        return {}
    rows = (line.split("\t") for line in EXCEPTIONS.read_text(encoding="utf-8").splitlines())
    return {(kind, path): int(amount) for path, kind, amount in rows}


def main(options: list[str]) -> int:
    """Print what breaks a rule and is no exception; return the exit status."""
    amounts: dict[tuple[str, str], int] = {}
    every = list(breaches())
    for breach in every:
        amounts[breach.kind, breach.path] = amounts.get((breach.kind, breach.path), 0) + breach.amount
    if "--write" in options:
        rows = sorted(f"{path}\t{kind}\t{amount}\n" for (kind, path), amount in amounts.items())
        EXCEPTIONS.write_text("".join(rows), encoding="utf-8")
        return 0
    accepted = read_exceptions()
    worse = [
        breach
        for breach in every
        if "--list" in options or amounts[breach.kind, breach.path] > accepted.get((breach.kind, breach.path), 0)
    ]
    for breach in worse:
        print(f"{breach.path}:{breach.line}: {breach.message}")
    print(f"check_house: {len(every)} breaches, {len(worse)} of them shown")
    return 1 if worse and "--list" not in options else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
