"""Records of what made a file: where they lie, how two differ, and what somebody has broken."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.lib.workflow.records import changed_inputs, is_record, params_change, record_file

GOOD: dict[str, Any] = {
    "params": ["'1'"],
    "inputs": {"a": {"sha256": "0"}, "b": "0"},
    "outputs": {"c": {"sha256": "0"}},
}


@pytest.mark.parametrize(
    ("path", "record"),
    [
        ("results/d/e/seed0/fold1/best.pth", "results/d/e/seed0/fold1/made.json"),
        ("results/d/images", "results/d/made.json"),
        ("results/checkpoints/a.pth", "results/checkpoints/made.json"),
        ("results/d/packed/160", "results/d/made.json"),
        ("/data/results/d/a.zip", "None"),
        ("mine.txt", "None"),
    ],
)
def test_a_record_lies_in_the_folder_that_is_copied_with_the_file(path: str, record: str) -> None:
    assert str(record_file(path)) == record


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


@pytest.mark.parametrize("broken", [None, [], {}, {"outputs": []}, {"inputs": {"a": {}}}, {"outputs": {"c": "0"}}])
def test_a_broken_record_counts_as_none(broken: Any) -> None:
    assert is_record(GOOD)
    assert not is_record(GOOD | broken if broken else broken)
