"""What all sections of a configuration file share: an unknown key is an error, and the types of names and hashes."""

from __future__ import annotations

import re
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


def _readable_url(url: str) -> str:
    try:
        if urlsplit(url).hostname and urlsplit(url).port != 0:
            return url
    except ValueError as error:
        raise ValueError(f"not an address: {error}") from error
    raise ValueError("not an address: it names no host, or port 0")


Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+"), AfterValidator(_readable_url)]
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
