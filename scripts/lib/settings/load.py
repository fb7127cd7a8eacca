"""Read configuration files and the site's into checked settings; what is wrong with one is said in one line a key."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import AliasChoices, ValidationError
from pydantic.fields import FieldInfo

from scripts.lib.base import long_values, strict_yaml
from scripts.lib.base.console import one_line
from scripts.lib.base.language import language
from scripts.lib.base.problems import UserError
from scripts.lib.data.file_kinds import kind_of
from scripts.lib.settings.schema import Settings, Site
from scripts.lib.settings.sections import PATTERNS, Section

S = TypeVar("S", bound=Section)


def load_site(folder: Path) -> Site:
    """Return what site.yaml in *folder* says.

    Raises
    ------
    UserError : there is no such file, or one line that names its first wrong key and what is allowed.
    """
    file = folder / "site.yaml"
    values = read_file(file, empty={})
    try:
        return Site.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{file}: {describe(error, Site, values=values)}") from None


def load_settings(config: Mapping[str, Any], files: Sequence[str | Path] = ()) -> Settings:
    """Check *config*, the parsed content of *files*.

    Raises
    ------
    UserError : one line that names the file, the first wrong key and what is allowed.
    """
    try:
        return Settings.model_validate(config)
    except ValidationError as error:
        raise UserError(f"{file_names(files)}: {describe(error, values=config)}") from None


def parse_section(model: type[S], text: str, option: str, name: str) -> S:
    """Return the section in *text*, JSON, as a rule's script is given it; null counts as absent.

    Parameters
    ----------
    model : the section.
    option : the option that *text* is of, for messages.
    name : the section's dotted key, for messages.

    Raises
    ------
    UserError : no JSON object, or one line that names the first wrong key and what is allowed.
    """
    try:
        values = json.loads(long_values.take(text))
    except ValueError as error:
        raise UserError(f"{option} is no JSON ({error}): give the section {name}") from error
    if not isinstance(values, dict):
        raise UserError(f"{option}: expected a JSON object, the section {name}")
    try:
        return model.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        raise UserError(describe(error, model, name)) from None


def file_names(files: Sequence[str | Path]) -> str:
    """Return the configuration files as a message names them."""
    return ", ".join(os.path.relpath(file) for file in files) or "the configuration"


def read_file(path: Path, empty: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the content of a YAML (or JSON) configuration file; *empty*, where given, for one without any key.

    Raises
    ------
    UserError : no such file, no YAML or not clear (:mod:`scripts.lib.base.strict_yaml`), or no keys in it.
    """
    try:
        content = strict_yaml.read(path)
    except UserError as error:
        raise _other_file(path) or error from error
    if content is None and empty is not None:
        return empty
    if not isinstance(content, dict):
        kinds = {type(None): "it is empty", list: "it is a list and has no keys"}
        remedy = "it needs at least dataset and experiments (see configs/demo.yaml)" if empty is None else ""
        plain = UserError(f"{path}: {kinds.get(type(content), 'it is a text and has no keys')}", remedy)
        raise _other_file(path) or plain
    return content


def _other_file(path: Path) -> UserError | None:
    """Return what is to be said of a file that lies in the place of settings; None where its kind is not known."""
    kind = None
    with suppress(OSError):  # it has been told
        if path.is_file():
            with open(path, "rb") as file:
                kind = kind_of(file.read(4096))
    return kind and UserError(f"{path}: it is {kind[0]}", kind[1] if "pointer" in kind[0] else "give a YAML file")


#: How many wrong keys a message names beside the one that it explains.
WRONG_NAMED = 5
#: Of a line that a message shows: characters.
LINE_SHOWN = 120
#: A number as YAML and JSON both have it.
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
#: Words that other tools have for our keys.
SYNONYMS = {
    **dict.fromkeys(("lr", "base_lr"), "learning_rate"),
    **dict.fromkeys(("bs", "batch", "samples_per_gpu"), "batch_size"),
    **dict.fromkeys(("max_epochs", "num_epochs", "n_epochs"), "epochs"),
    **dict.fromkeys(("size", "img_size", "input_size", "resolution"), "image_size"),
    **dict.fromkeys(("model", "arch", "architecture", "base", "_base_"), "base_config"),
    **dict.fromkeys(("weights", "pretrained", "load_from", "init"), "checkpoint"),
    **dict.fromkeys(("fp16", "mixed_precision"), "amp"),
    **dict.fromkeys(("k", "k_folds", "n_splits", "cross_validation"), "folds"),
    **dict.fromkeys(("groups", "group", "patient"), "group_by"),
    **dict.fromkeys(("class_names", "names"), "classes"),
    **dict.fromkeys(("seed", "random_state", "random_seed"), "seeds"),
}


def describe(error: ValidationError, model: type[Section] = Settings, name: str = "", values: Any = None) -> str:
    """Say in one line what is wrong with the first wrong key, and which more there are.

    Parameters
    ----------
    model : the section that was checked.
    name : its own dotted key; "" for a whole file.
    values : what was checked, to show how a list should be written.
    """
    details = error.errors(include_url=False)
    # An unknown key often explains a missing one: say the typo first.
    details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
    by_key: dict[str, list[Any]] = {}
    for detail in details:
        location, unknown = detail["loc"], ""
        if detail["type"] == "extra_forbidden":  # no key, or the alias of one that is given too
            location, unknown = location[:-1], f".{_cut(str(location[-1]))}"
        # As the user wrote it: pydantic's location has the branches of unions in it as well.
        dotted = ".".join(_cut(str(step)) for step, _, _ in _walk(location, model))
        by_key.setdefault((dotted + unknown).lstrip("."), []).append(detail)
    (key, alternatives), *others = by_key.items()
    named = ", ".join(other or "the file" for other, _ in others[:WRONG_NAMED])
    rest = ", ..." if len(others) > WRONG_NAMED else ""
    more = f" (and {len(others)} more wrong: {named}{rest})" if others else ""
    full_key = f"{name}.{key}".strip(".") or "the file"
    return one_line(f"{full_key}: {_problem(alternatives, model, values)}{more}")


def _walk(location: tuple[str | int, ...], model: type[Section]) -> Iterator[tuple[str | int, str, Any]]:
    """Yield the steps of *location* that are keys or positions, each with its field's description and type."""
    annotation: Any = model
    for step in location:
        field = next((field for section in _sections(annotation) if (field := _field(section, step))), None)
        if field:
            annotation = field.annotation
            yield step, field.description or "", annotation
        # Among alternatives, pydantic's location has their tags, too; only a list's positions are whole numbers.
        elif step != "[key]" and (get_origin(annotation) in (dict, list) or isinstance(step, int)):
            items = _items(annotation)
            if items is not None:
                annotation = items
                yield step, "", annotation


def _field(section: type[Section], key: str | int) -> FieldInfo | None:
    """Return the field of a section's *key*, which may be a former name of it."""
    for name, field in section.model_fields.items():
        alias = field.validation_alias
        if key in (name, *(alias.choices if isinstance(alias, AliasChoices) else ())):
            return field
    return None


def _items(annotation: Any) -> Any:
    """Return what a list or mapping holds, also where it is one of several alternatives; None: it is neither."""
    if get_origin(annotation) in (dict, list):
        return get_args(annotation)[-1]
    return next((items for choice in get_args(annotation) if (items := _items(choice)) is not None), None)


def _sections(annotation: Any) -> list[type[Section]]:
    """Return the sections among the alternatives of a type."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    if get_origin(annotation) in (dict, list):
        return []
    return [section for choice in get_args(annotation) for section in _sections(choice)]


def _allowed_beside(location: tuple[str | int, ...], model: type[Section]) -> list[str]:
    """Return the keys of the section that holds the unknown key at the end of *location*."""
    annotation = next((kind for _, _, kind in reversed(list(_walk(location[:-1], model)))), model)
    return list(_sections(annotation)[0].model_fields)


def _hint(key: str, allowed: Sequence[str], model: type[Section]) -> str:
    """Say which key may be meant by an unknown one, here or in another section; "" where none is like it."""
    meant = SYNONYMS.get(key, key)
    if meant in allowed:
        return f", did you mean {meant}?"
    if close := difflib.get_close_matches(key, allowed, n=1):
        return f", did you mean {close[0]}?"
    dotted_keys = [dotted for dotted in _keys(model) if ".candidates." not in dotted]  # their keys are the experiment's
    elsewhere = [dotted for dotted in dotted_keys if dotted.rpartition(".")[2] in (key, meant)]
    elsewhere = [dotted if "." in dotted else f"{dotted} at the left margin of the file" for dotted in elsewhere]
    return f", did you mean {' or '.join(elsewhere)}?" if elsewhere else ""


def _keys(model: type[Section], above: str = "") -> Iterator[str]:
    """Yield every key of a file, dotted; NAME stands for one that the user chooses."""
    for name, field in model.model_fields.items():
        yield f"{above}{name}"
        named = "NAME." if get_origin(field.annotation) is dict else ""
        below = [*_sections(field.annotation), *_sections(_items(field.annotation))]
        for section in dict.fromkeys(below):  # a section that may be given alone or in a list is there twice
            yield from _keys(section, f"{above}{name}.{named}")


def _problem(alternatives: list[Any], model: type[Section], values: Any) -> str:
    """Say what is wrong with one key and what is allowed; a union gives one error for each of its alternatives."""
    detail = alternatives[0]
    kind, location = detail["type"], detail["loc"]
    if kind == "extra_forbidden":
        allowed = _allowed_beside(location, model)
        return f"unknown key{_hint(_cut(str(location[-1])), allowed, model)} (allowed here: {', '.join(allowed)})"
    if kind == "missing":
        return "this key is required"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "model_type":
        keys = ", ".join(_allowed_beside((*location, ""), model))
        return f"it has keys of its own, in lines below it ({keys}), not {_short(detail['input'])}"
    if kind == "dict_type":
        return f"it has names in lines below it, each with what belongs to it, not {_short(detail['input'])}"
    for alternative in alternatives:
        if alternative["type"] == "too_short":
            least = alternative["ctx"]["min_length"]
            alternative["msg"] = f"should have at least {'one entry' if least == 1 else f'{least} entries'}"
        if alternative["type"] == "string_pattern_mismatch":  # a regular expression is no help
            alternative["msg"] = f"it {PATTERNS.get(alternative['ctx']['pattern'], 'has another form')}"
    demands = [alternative["msg"].removeprefix("Input ").removeprefix("should be ") for alternative in alternatives]
    demands[0] = demands[0] if "should " in demands[0] or demands[0].startswith("it ") else f"should be {demands[0]}"
    descriptions = [text for _, text, _ in _walk(location, model) if text]
    meaning = f". {descriptions[-1]}" if descriptions and language() == "en" else ""  # they are English
    as_written = _as_written(alternatives, [step for step, _, _ in _walk(location, model)], values)
    return f"{' or '.join(demands)}, not {_short(detail['input'])}{as_written}{meaning}"


def _as_written(alternatives: list[Any], steps: list[str | int], values: Any) -> str:
    """Return how YAML has what was meant, where quotes are missing or too many; "" where that is not the fault."""
    kinds, value = {alternative["type"] for alternative in alternatives}, alternatives[0]["input"]
    if "string_type" in kinds and not isinstance(value, list):
        parent = values
        with suppress(LookupError, TypeError):  # not given, or under a former name
            for step in steps[:-1]:
                parent = parent[step]
        key = next((step for step in reversed(steps) if isinstance(step, str)), "key")
        line = f"{key}: {json.dumps(_as_text(value), ensure_ascii=False)}"
        if isinstance(parent, list):
            line = f"{key}: {json.dumps([_as_text(item) for item in parent], ensure_ascii=False)}"
            line = line if len(line) <= LINE_SHOWN else f"- {json.dumps(_as_text(value), ensure_ascii=False)}"
        items = parent if isinstance(parent, list) else [value]
        # YAML has made numbers of 1e3 and 2.50; how they were written is lost.
        as_written = " (each as its folder is called)" if any(isinstance(item, float) for item in items) else ""
        return f": quotes are needed: {line}{as_written}"
    if isinstance(value, str) and "bool_type" in kinds:
        return ": write true or false, without quotes"
    if isinstance(value, str) and kinds & {"int_type", "float_type"}:
        if NUMBER.fullmatch(value):
            return f": write the number without quotes: {value}"
        if "float_type" in kinds and NUMBER.fullmatch(value.replace(",", ".")):
            return f": write a decimal point: {value.replace(',', '.')}"
    return ""


def _as_text(value: Any) -> str:
    """Return a value as it may have been written in YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(map(str, value)) + "}"
    return json.dumps(value) if isinstance(value, bool) or value is None else str(value)


def _short(value: Any) -> str:
    return _cut(repr(value[: LINE_SHOWN + 1] if isinstance(value, str | list) else value))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
