"""Weights that are not for every use are named before they cost anything."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from scripts.lib.workflow.weights_check import weights_notes


def notes_of(base_config: str, request: dict[str, Any] | None) -> list[str]:
    experiment = SimpleNamespace(base_config=base_config, checkpoint_request=lambda: request)
    return list(map(str, weights_notes(SimpleNamespace(experiments={"a": experiment}))))  # type: ignore[arg-type]


@pytest.mark.parametrize("request_", [None, {"zoo": None}, {"path": "x.pth"}, {"url": "http://a/b", "license": "mit"}])
def test_there_is_no_note_for_what_may_be_used(request_: dict[str, Any] | None) -> None:
    assert notes_of("resnet18_8xb32_in1k", request_) == []


def test_a_license_that_the_user_states_is_judged() -> None:
    [note] = notes_of("resnet18_8xb32_in1k", {"path": "folder/x.pth", "license": "cc-by-nc-4.0"})
    assert note.startswith("note: experiments.a: the weights of x.pth have cc-by-nc-4.0: non-commercial use only")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18", ""),
        ("convnextv2_atto.fcmae_ft_in1k", "convnextv2_atto.fcmae_ft_in1k have cc-by-nc-4.0: non-commercial"),
        ("vit_small_patch16_dinov3", "dinov3-license: terms of its own"),
        ("vit_base_patch16_224.bamboo", "have license not stated"),
    ],
)
def test_the_weights_of_timm_are_judged_by_its_index(name: str, words: str) -> None:
    lines = notes_of(f"timm/{name}", {"zoo": None})
    assert len(lines) == bool(words) and words in "".join(lines)
