"""What the leaderboard says of the licenses of pretrained weights."""

from __future__ import annotations

import pandas as pd
import pytest

from scripts.lib.metrics import leaderboard


@pytest.mark.parametrize(
    ("licenses", "words"),
    [
        ({"a": "apache-2.0", "b": ""}, ""),
        ({"a": "cc-by-nc-4.0", "b": "mit"}, "not for every use: a (cc-by-nc-4.0)."),
        ({"a": "dinov3-license", "b": "made-up"}, "not for every use: a (dinov3-license), b (made-up)."),
    ],
)
def test_weights_that_are_not_for_every_use_are_named(licenses: dict[str, str], words: str) -> None:
    board = pd.DataFrame({"experiment": list(licenses), "weights_license": list(licenses.values())})
    text = leaderboard._licenses(board)
    assert text.endswith(words) and bool(text) == bool(words)


def test_a_leaderboard_of_before_says_nothing_of_licenses() -> None:
    assert leaderboard._licenses(pd.DataFrame({"experiment": ["a"]})) == ""
