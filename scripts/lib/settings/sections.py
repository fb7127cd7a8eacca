"""What all sections of a configuration file share: an unknown key is an error, and the types of names and hashes."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Any, ClassVar, Literal

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


def _not_reserved(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"{name!r} is a name that mimflow's own files use: choose another")
    return name


Name = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=80), AfterValidator(_not_reserved)
]


def _lower_sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError(f"expected 64 hexadecimal digits, not {text!r}")
    return text.lower()


Sha256 = Annotated[
    str, AfterValidator(_lower_sha256), WithJsonSchema({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"})
]

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
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+")]
FileName = Annotated[str, StringConstraints(pattern=r"[^\s./\\~]")]
ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./+-]*$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
PositiveInt = Annotated[StrictInt, Field(ge=1)]
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
        return {
            cls.OLD_KEYS.get(key, key) if cls.OLD_KEYS.get(key) not in values else key: values[key] for key in values
        }
