"""Weights under the names that other training codes write are taken where it is certain, and it is said."""

from __future__ import annotations

import logging

import pytest
import torch

from scripts.lib.base.problems import UserError
from scripts.lib.model.weight_names import with_our_names

SHAPES = {f"backbone.layer{i}.conv.weight": (i + 1, 3) for i in range(10)}
OURS = {key: torch.full(shape, float(index)) for index, (key, shape) in enumerate(SHAPES.items())}


def renamed(old: str, new: str = "backbone.") -> dict[str, torch.Tensor]:
    return {old + key.removeprefix("backbone.") if not new else old + key: value for key, value in OURS.items()}


def same(weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weights[key], value) for key, value in OURS.items())


@pytest.mark.parametrize(
    ("prefix", "kept"),
    [
        ("", "backbone."), ("", ""), ("module.", "backbone."), ("model.", ""), ("_orig_mod.", ""),
        ("model._orig_mod.module.", "backbone."), ("encoder.", ""), ("net.features.", ""), ("ema.module.", ""),
    ],
)  # fmt: skip
def test_a_prefix_that_is_certain_is_taken_and_said(
    prefix: str, kept: str, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    assert same(with_our_names(renamed(prefix, kept), SHAPES, "x.pth"))
    assert ("names of its weights" in caplog.text) == bool(prefix or not kept)


def test_averages_are_taken_where_nothing_else_is_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    averaged = {f"ema_{key.replace('.', '_')}": value for key, value in OURS.items()}
    assert same(with_our_names(averaged, SHAPES, "x.pth")) and "averaged weights" in caplog.text
    both = {**renamed("model.", ""), **{f"model_ema.{key}": value + 1 for key, value in renamed("", "").items()}}
    with pytest.raises(UserError, match="several networks, below 'model\\.' and 'model_ema\\.'"):
        with_our_names(both, SHAPES, "x.pth")


def test_a_student_and_its_teacher_give_the_student() -> None:
    both = {**renamed("student.", ""), **{key: value + 1 for key, value in renamed("teacher.", "").items()}}
    assert same(with_our_names(both, SHAPES, "x.pth"))


def test_what_is_not_certain_stays_as_it_is() -> None:
    half = {f"model.{key}": value for key, value in list(OURS.items())[:5]}
    assert with_our_names(half, SHAPES, "x.pth").keys() == half.keys()
    other = {"a.b": torch.zeros(1)}
    assert with_our_names(other, SHAPES, "x.pth").keys() == other.keys()
