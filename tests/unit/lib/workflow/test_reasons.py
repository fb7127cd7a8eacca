"""Why steps run again, in the user's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scripts.lib.workflow.reasons import changed_values


def recorded(*values: Any) -> set[str]:
    """Return parameters as Snakemake records them."""
    return {repr(value if isinstance(value, str) else json.dumps(value)) for value in values}


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (recorded({"epochs": 2}), recorded({"epochs": 3}), ["epochs 2 -> 3"]),
        (recorded({"a": 1}), recorded({"a": 1, "epochs": 3}), ["epochs default -> 3"]),
        (
            recorded({"recipe": "fast", "lr": 0.1}),
            recorded({"recipe": "tutorial"}),
            ["recipe fast -> tutorial", "lr 0.1 -> default"],
        ),
        (recorded({"name": "水果"}), recorded({"name": "a b"}), ["name 水果 -> a b"]),
        (recorded({"overrides": {"a.b": 1}}), recorded({}), ['overrides {"a.b": 1} -> default']),
        (recorded("--fold 1"), recorded("--fold 2"), []),
        ({"Split(val=0.1)", "3"}, {"{", "'{'"}, []),
    ],
)
def test_changed_settings_are_named_with_both_values(old: set[str], new: set[str], lines: list[str]) -> None:
    assert changed_values(old, new) == lines
