"""The one reader of YAML: every key once, and no value that another reader of YAML would take for another one."""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.reader import Reader

from scripts.lib.base.problems import UserError

#: Bounds of a file that people write. Aliases, which repeat what stands elsewhere, may add VALUES_BY_ALIASES values.
MOST_BYTES, MOST_LEVELS, VALUES_BY_ALIASES = 16 * 2**20, 50, 100_000
#: Of the line that a message shows.
LINE_SHOWN = 120
TAG = "tag:yaml.org,2002:"
MERGE = f"{TAG}merge"
#: Plain scalars that are no text, by tag: null, true and false, and numbers as in JSON, with +, `.5` and `1.` too.
PLAIN = {
    f"{TAG}null": r"~|null|Null|NULL|",
    f"{TAG}bool": r"true|True|TRUE|false|False|FALSE",
    f"{TAG}int": r"[-+]?(?:0|[1-9][0-9]*)",
    f"{TAG}float": r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?",
    MERGE: "<<",
}
#: Plain scalars that YAML 1.1, YAML 1.2 and people read differently: refused, since a guess would stay unnoticed.
AMBIGUOUS = re.compile(
    r"yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF"  # true and false, or text
    r"|[-+]?(?:0[box][0-9a-fA-F_]+|(?=[0-9.]*_)[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?)"  # 0x1F, 1_000
    r"|[-+]?0[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?"  # 017 is 15, 17 or text
    r"|[-+]?[0-9]+(?::[0-5]?[0-9])+(?:\.[0-9]*)?"  # 1:30 is 90 in YAML 1.1
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
FIRST = [*"-+.0123456789~nNtTfFyYoO<", ""]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's, where it is there
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


class _Dumper(yaml.SafeDumper):
    """Puts into quotes what is text here and something else elsewhere, and the other way round."""


for _tag, _pattern in PLAIN.items():
    _Loader.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})$"), FIRST)
    _Dumper.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})$"), FIRST)
_Dumper.add_implicit_resolver(f"{TAG}ambiguous", re.compile(f"(?:{AMBIGUOUS.pattern})$"), FIRST)


def dump(value: Any) -> str:
    """Return *value* as YAML that :func:`parse` and every other reader read as it is."""
    return yaml.dump(value, Dumper=_Dumper, allow_unicode=True, sort_keys=False)


def read(path: Path) -> Any:
    """Return the content of a YAML (or JSON) file.

    Raises
    ------
    UserError : no such file, no text in UTF-8, or what :func:`parse` refuses; one line.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: it is {'a folder' if path.is_dir() else 'no file'}", "name a YAML file")
        if status.st_size > MOST_BYTES:
            raise UserError(f"{path}: {status.st_size / 2**20:.0f} MiB, too large for a YAML file of settings")
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        meant = Path("configs", f"{path.name.removesuffix('.yaml')}.yaml")
        hint = f"did you mean {meant}?" if meant.is_file() else "examples are in configs/"
        raise UserError(f"{path}: there is no such configuration file; {hint}") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or data[:2].count(0) == 1:
        raise UserError(f"{path}: it is UTF-16, not UTF-8", "save it as UTF-8")
    if b"\0" in data:
        raise UserError(f"{path}: it is no text file", "name a YAML file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line}: not UTF-8 text", "save the file as UTF-8") from None
    return parse(text, str(path))


def parse(text: str, name: str = "") -> Any:
    """Return the content of a YAML text: dicts with text as keys, lists, text, numbers, true, false and None.

    Numbers are written as in YAML 1.2 or JSON: 1e-4 is one. What is read differently elsewhere (yes, 017, 1_000, 1:30,
    .inf) is refused unless it is in quotes. Aliases and `<<` are replaced by what they stand for.

    Parameters
    ----------
    name : of the file, for messages; "" for a text of another origin.

    Raises
    ------
    UserError : no YAML, a key that stands twice, an ambiguous value, or more than the bounds; one line.
    """
    try:
        return _Document(text).content()
    except UserError as error:
        raise UserError(f"{name}: {error.what}" if name else error.what, error.remedy) from None


class _Document:
    """One YAML text, checked before anything is built of it."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines() or [""]
        self.text = text
        #: Values and levels of each node, by id: with all that its aliases stand for.
        self.sizes: dict[int, tuple[int, int]] = {}
        self.written = 0

    def content(self) -> Any:
        """Return what the text says."""
        if match := Reader.NON_PRINTABLE.search(self.text):
            what = f"a control character (U+{ord(match[0]):04X})"
            raise UserError(f"line {self.text.count(chr(10), 0, match.start()) + 1}: {what}", "remove it")
        try:
            # Before a tree is built of it, which is done by recursion.
            depth = 0
            for event in yaml.parse(self.text, Loader=_Loader):
                depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if depth > MOST_LEVELS:
                    raise self._too_deep(event)
            node = yaml.compose(self.text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            raise self._no_yaml(error) from None
        if node is None:
            return None
        size, _ = self._check(node, "", 1)
        if size > self.written + VALUES_BY_ALIASES:
            raise UserError(f"its aliases stand for {size:.2g} values", "write out what is meant")
        return self._build(node)

    def _no_yaml(self, error: yaml.MarkedYAMLError) -> UserError:
        mark = error.problem_mark or error.context_mark
        if not mark:
            return UserError(f"no valid YAML ({error.problem})", "check quotes and indentation")
        line = self.lines[mark.line] if mark.line < len(self.lines) else ""
        where = f"line {mark.line + 1}"
        if line[mark.column : mark.column + 1] == "\t":
            return UserError(f"{where}: a tab, which YAML does not allow there", "indent with spaces")
        where += f", column {mark.column + 1}"
        return UserError(f"{where}: no valid YAML ({error.problem})", "check quotes and indentation")

    @staticmethod
    def _too_deep(at: Any) -> UserError:
        return UserError(f"line {at.start_mark.line + 1}: nested more than {MOST_LEVELS} levels deep", "check brackets")

    # -- what is refused -----------------------------------------------------------------------------------------------

    def _check(self, node: yaml.Node, path: str, level: int, parent: yaml.Node | None = None) -> tuple[int, int]:
        """Return how many values and levels a node has, having checked it."""
        if known := self.sizes.get(id(node)):
            if not known[0]:
                raise UserError(f"line {_line(node)}: what stands there holds itself, by an alias", "write it out")
            if level + known[1] - 1 > MOST_LEVELS:
                raise self._too_deep(node)
            return known
        if level > MOST_LEVELS:
            raise self._too_deep(node)
        self.sizes[id(node)] = (0, 0)  # not known yet: met again below itself, it would have no end
        self.written += 1
        below = []
        if isinstance(node, yaml.ScalarNode):
            self._check_scalar(node, path, parent)
        elif node.tag not in (f"{TAG}map", f"{TAG}seq"):
            raise _unknown_tag(node)
        elif isinstance(node, yaml.MappingNode):
            self._check_keys(node, path)
            below = [(value, f"{path}.{key.value}".lstrip(".")) for key, value in node.value]
        else:
            below = [(value, f"{path}.{index}".lstrip(".")) for index, value in enumerate(node.value)]
        sizes = [self._check(value, name, level + 1, node) for value, name in below]
        self.sizes[id(node)] = (1 + sum(size for size, _ in sizes), 1 + max((levels for _, levels in sizes), default=0))
        return self.sizes[id(node)]

    def _check_keys(self, node: yaml.MappingNode, path: str) -> None:
        seen: dict[Any, tuple[int, int, str]] = {}
        for index, (key, value) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"line {_line(key)}: a key that is a list or section", "put text there, in quotes")
            if key.tag == MERGE:
                self._check_merged(value)
            for same in {(True, key.value), _as_read_elsewhere(key)}:
                # A key that is an alias (*name) is the very node that it stands for: its value says where it stands.
                line = max(_line(key), min(_line(value), node.end_mark.line + 1))
                first, first_line, spelling = seen.setdefault(same, (index, line, key.value))
                if first != index:
                    lines = f"line {line}" if first_line == line else f"lines {first_line} and {line}"
                    spelt = "" if spelling == key.value else f" (as {_short(spelling)} and {_short(key.value)})"
                    name = _short(f"{path}.{key.value}".lstrip("."))
                    remedy = "merge several by one `<<: [*a, *b]`" if key.tag == MERGE else "keep one of them"
                    raise UserError(f"{lines}: the key {name} stands twice{spelt}", remedy)

    @staticmethod
    def _check_merged(node: yaml.Node) -> None:
        merged = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not all(isinstance(section, yaml.MappingNode) for section in merged):
            raise UserError(f"line {_line(node)}: << takes over the keys of a section", "name one: <<: *name")

    def _check_scalar(self, node: yaml.ScalarNode, path: str, parent: yaml.Node | None) -> None:
        where = f"line {_line(node)}: {_short(path)}".removesuffix(": ")
        if node.tag not in (f"{TAG}str", *PLAIN):
            raise _unknown_tag(node)
        if _is_ambiguous(node):
            line = self._quoted(node, parent)
            remedy = f"write {_unambiguous(node.value)}; if text is meant, quotes are needed: {line}"
            raise UserError(f"{where}: different programs read {_short(node.value)} as different values", remedy)
        try:
            finite = not isinstance(value := _scalar(node), float) or math.isfinite(value)
        except (ValueError, KeyError):
            finite = False
        if not finite:
            what = f"{_short(node.value)} is no value of {node.tag.replace(TAG, '!!')} that can be computed with"
            raise UserError(f"{where}: {what}", "correct it; for text, use quotes")

    def _quoted(self, node: yaml.ScalarNode, parent: yaml.Node | None) -> str:
        """Return the line of a scalar with it in quotes, and with it those beside it in a list that are no text."""
        nodes = [node]
        if isinstance(parent, yaml.SequenceNode):
            plain = [item for item in parent.value if isinstance(item, yaml.ScalarNode) and not item.style]
            nodes = [item for item in plain if item.tag != f"{TAG}str" or _is_ambiguous(item)]
        line = self.lines[node.start_mark.line]
        for item in reversed(nodes):
            if item.start_mark.line == node.start_mark.line:
                start, end = item.start_mark.column, item.end_mark.column
                line = f'{line[:start]}"{line[start:end]}"{line[end:]}'
        return line.strip() if len(line) <= LINE_SHOWN else f'"{node.value}"'

    # -- what is read --------------------------------------------------------------------------------------------------

    def _build(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(value) for value in node.value]
        content: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag != MERGE:
                content[key.value] = self._build(value)
                continue
            for section in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                merged = {**self._build(section), **merged}  # of several, the first has the last word
        return {**merged, **content}


def _scalar(node: yaml.ScalarNode) -> Any:
    """Return the value of a scalar; ValueError or KeyError: its tag does not fit its text."""
    if node.tag == f"{TAG}null":
        return None
    if node.tag == f"{TAG}bool":
        return {"true": True, "false": False}[node.value.lower()]
    convert: Callable[[str], Any] = {f"{TAG}int": int, f"{TAG}float": float}.get(node.tag, str)
    return convert(node.value)


def _as_read_elsewhere(key: yaml.ScalarNode) -> tuple[bool, Any]:
    """Return what a reader that does not take every key as text makes of it: `1`, `01` and `1.0` are one number."""
    if key.style:
        return True, key.value
    try:
        value = _scalar(key) if key.tag in PLAIN else yaml.safe_load(key.value) if len(key.value) < 40 else key.value
    except (yaml.YAMLError, ValueError):
        return True, key.value
    is_text = not isinstance(value, int | float | None)
    return (True, key.value) if is_text else (False, str(value) if isinstance(value, bool | None) else value)


def _is_ambiguous(node: yaml.ScalarNode) -> bool:
    return not node.style and node.tag == f"{TAG}str" and AMBIGUOUS.fullmatch(node.value) is not None


def _unambiguous(text: str) -> str:
    """Return how to write what an ambiguous scalar may mean other than text."""
    if text.lower() in ("yes", "on", "no", "off"):
        return "true" if text.lower() in ("yes", "on") else "false"
    for convert in (lambda: int(text, 0), lambda: float(text) if "_" in text else int("")):
        try:
            return str(convert())
        except ValueError:
            continue
    return "a finite number" if text.lstrip("+-").startswith(".") else "one decimal number, without leading zeros"


def _unknown_tag(node: yaml.Node) -> UserError:
    return UserError(f"line {_line(node)}: the tag {_short(node.tag.replace(TAG, '!!'))} is not read here", "remove it")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
