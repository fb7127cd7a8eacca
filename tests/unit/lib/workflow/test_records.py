"""Records of what made a file: which files have one, how two differ, and what somebody has broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.lib.base import products
from scripts.lib.workflow.records import FORMAT, changed_inputs, find_origin, is_product, params_change

GOOD: dict[str, Any] = {
    "format": FORMAT,
    "params": ["'1'"],
    "inputs": {"a": {"sha256": "0"}, "b": "0"},
    "outputs": ["c"],
}


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("results/d/e/seed0/fold1/best.pth", True),
        ("results/checkpoints/a.pth", True),
        ("/data/results/d/a.zip", False),
        ("mine.txt", False),
    ],
)
def test_products_are_what_lies_below_results(path: str, is_one: bool) -> None:
    assert is_product(path) == is_one


@pytest.mark.parametrize(("old", "new", "differs"), [("ab", "ab", False), ("ab", "ba", True), ("ab", "a", True)])
def test_values_that_changed_places_are_other_settings(old: str, new: str, differs: bool) -> None:
    assert bool(params_change(old, new)) == differs


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"results/d/x/a": "1"}, {"results/d/x/a": "2"}, ["results/d/x/a is another one than before"]),
        ({"results/d/x/a": "1"}, {}, ["results/d/x/a does not belong to it any more"]),
        ({"/me/a.zip": {"sha256": "1"}}, {"/you/a.zip": {"sha256": "1"}}, []),
        ({"/me/a.zip": {"sha256": "1"}}, {"/me/a.zip": {"sha256": "2"}}, ["/me/a.zip is another one than before"]),
        ({"/me/a.zip": {"sha256": "1"}}, {}, []),
    ],
)
def test_files_are_told_by_their_content(old: dict[str, Any], new: dict[str, Any], lines: list[str]) -> None:
    assert changed_inputs(old, new) == lines


@pytest.mark.parametrize(
    "broken", [{"format": 2}, {"outputs": {}}, {"inputs": []}, {"inputs": {"a": {}}}, {"params": None}]
)
def test_a_broken_record_counts_as_none(tmp_path: Path, broken: dict[str, Any]) -> None:
    file = tmp_path / "c"
    file.touch()
    assert find_origin(str(file)) is None
    products.record("job", [file])
    products.describe([file], GOOD)
    assert find_origin(str(file)) == GOOD
    products.describe([file], GOOD | broken)
    assert find_origin(str(file)) is None
