"""The table of a dry run."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from scripts.lib.workflow.dry_run import spread, table


@pytest.mark.parametrize(
    ("shares", "text"),
    [
        ({"": 1}, ""),
        ({"a": 2}, "2 of a"),
        ({"b": 1, "a": 1}, "1 each of a, b"),
        ({"a": 1, "c": 3, "b": 1}, "3 of c; 1 each of a, b"),
        ({f"lr{number}": 1_000 for number in range(9)}, "1,000 each of lr0, lr1, lr2 and 6 more"),
    ],
)
def test_steps_are_counted_by_experiment(shares: Mapping[str, int], text: str) -> None:
    assert spread(shares) == text


def test_the_table_keeps_the_order_of_the_rules_and_ends_with_the_sum() -> None:
    assert table({"train_model": {"a": 1_200, "b": 1}, "all": {"": 1}}) == [
        "train_model  1,201  1,200 of a; 1 of b",
        "all              1",
        "1,202 steps to do",
    ]
