"""What all sections of a configuration file share: an unknown key is an error, and the types of names and hashes."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from scripts.lib.runs.run_folder import RESERVED_NAMES
from scripts.lib.settings import starting_runs

#: How the files end that results/, results/<dataset>/ and logs/ hold: a folder called like one would take its place.
FILE_SUFFIXES = (
    *(".csv", ".json", ".jsonl", ".html", ".yaml", ".txt", ".md", ".log", ".svg", ".cache", ".sha256", ".pth", ".onnx"),
    *(".py", ".zip", ".tar", ".gz", ".bz2", ".xz", ".zst", ".tgz", ".bin", ".npy", ".part", "."),
)
#: Names that Windows keeps for devices, with any suffix: what is copied there cannot be opened.
WINDOWS_NAMES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)

NAME, MODULE_NAME = f"^{starting_runs.NAME}$", r"^[A-Za-z0-9_][A-Za-z0-9_./+-]*$"
FILE_NAME, URL = r"[^\s./\\~]", r"^https?://[^\s/]+"
PACKAGE, SHA256 = r"^[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+$", "^[0-9a-fA-F]{64}$"


def _not_reserved(name: str) -> str:
    if name.lower() in RESERVED_NAMES or name.lower().endswith(FILE_SUFFIXES):
        raise ValueError(f"{name!r} is a name that mimflow's own files use, or looks like a file: choose another")
    if WINDOWS_NAMES.fullmatch(name):
        raise ValueError(f"{name!r} is a name that Windows keeps for a device: choose another")
    return name


Name = Annotated[str, StringConstraints(pattern=NAME, max_length=80), AfterValidator(_not_reserved)]


def _lower_sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError(f"expected 64 hexadecimal digits, not {text!r}")
    return text.lower()


Sha256 = Annotated[str, AfterValidator(_lower_sha256), WithJsonSchema({"type": "string", "pattern": SHA256})]

#: What Python calls encodings of text, and no file name is written in.
_NO_ENCODINGS = ("idna", "punycode", "unicode-escape", "raw-unicode-escape", "utf-7", "undefined")


def _encoding_name(text: str) -> str:
    try:
        name = codecs.lookup(text).name
        if "a/b.jpg".encode(name) == b"a/b.jpg" and name not in _NO_ENCODINGS:
            return name
    except (LookupError, ValueError, TypeError):
        pass
    known = "gb18030, big5, cp932 (Japanese), cp949 (Korean), cp1252, cp437 (Western), cp1251, cp866 (Cyrillic)"
    raise ValueError(f"{text[:40]!r} is no encoding of names; some that are: {known}")


Encoding = Annotated[str, AfterValidator(_encoding_name)]


def _can_be_opened(path: str) -> str:
    try:
        Path(path).expanduser().stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # whether it must be there, the section knows
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null character, a home of nobody
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path[:60]!r} is no path that can be opened ({reason}): correct it") from None
    return path


LocalPath = Annotated[str, StringConstraints(min_length=1), AfterValidator(_can_be_opened)]
FileName = Annotated[str, StringConstraints(pattern=FILE_NAME), AfterValidator(_can_be_opened)]


def _readable_url(url: str) -> str:
    try:
        if urlsplit(url).hostname and urlsplit(url).port != 0:
            return url
    except ValueError as error:
        raise ValueError(f"not an address: {error}") from error
    raise ValueError("not an address: it names no host, or port 0")


Url = Annotated[str, StringConstraints(pattern=URL), AfterValidator(_readable_url)]
ModuleName = Annotated[str, StringConstraints(pattern=MODULE_NAME)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
#: What the patterns of texts allow, in words.
PATTERNS = {
    NAME: "may hold letters a-z and A-Z, digits, _, - and ., and must begin with a letter, a digit or _",
    FILE_NAME: "must name a file: it holds nothing but points and slashes",
    URL: "must be an address that begins with http:// or https://",
    MODULE_NAME: "may hold letters a-z and A-Z, digits, _, -, +, . and /, and must begin with a letter, a digit or _",
    PACKAGE: "must be a name and a version, such as mypackage==1.0",
    SHA256: "must be 64 hexadecimal digits",
    starting_runs.RUN: "must be results/<dataset>/<experiment>/seed<k>, and with folds /fold<n> after it",
}
#: A number, and no text that Python would take for one; .inf and .nan are none.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Fraction = Annotated[Number, Field(gt=0, lt=1)]
PositiveInt = Annotated[StrictInt, Field(ge=1)]


def _each_value_once(overrides: dict[str, Any]) -> dict[str, Any]:
    for key in overrides:
        for parent, value in overrides.items():
            names = key.removeprefix(f"{parent}.").split(".")
            while key.startswith(f"{parent}.") and isinstance(value, dict) and names[0] in value:
                value = value[names.pop(0)]
                if not names:
                    raise ValueError(f"{key} stands twice, also within {parent}: keep one of them")
    return overrides


def _no_constant_as_text(overrides: dict[str, Any]) -> dict[str, Any]:
    waiting = list(overrides.items())
    while waiting:
        path, value = waiting.pop()
        if constant := AS_TEXT.get(str(value).lower() if isinstance(value, str) and value != "none" else ""):
            raise ValueError(f"{path}: {value!r} is a text, which counts as true: write {constant} without quotes")
        below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        waiting += [(f"{path}.{name}", item) for name, item in below]
    return overrides


#: Texts that people mean as something else, by what they mean; a loss has the option `none` as a text.
AS_TEXT = {"true": "true", "false": "false", "none": "null"}
Overrides = Annotated[dict[str, Any], AfterValidator(_each_value_once), AfterValidator(_no_constant_as_text)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**31)]
Auto = Literal["auto"]


class Section(BaseModel):
    """A section of the file. An unknown key is an error: a typo must not become a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    #: What keys of this section were called before.
    OLD_KEYS: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _rename_old_keys(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for old, new in cls.OLD_KEYS.items():
            if old in values and new in values:
                raise ValueError(f"{new} stands twice: {old} is its earlier name: keep one of them")
        return {cls.OLD_KEYS.get(key, key): values[key] for key in values}
