"""Weights of candidates that could not be had are asked for again, where that can help."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scripts.lib.model.checkpoint_file import AGAIN, MISSING, write_checkpoint
from scripts.lib.settings.schema import Settings
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.missing_weights import find_missing, is_to_ask


@pytest.mark.parametrize(
    ("arguments", "job", "asks"),
    [
        (["--configfile", "a.yaml"], None, True),
        (["--until", "fetch_archive", "fetch_checkpoint"], None, True),
        (["--until", "audit_images"], None, False),
        (["--omit-from=train_model"], None, False),
        (["--configfile", "a.yaml"], "7", False),
    ],
)
def test_they_are_asked_for_where_weights_are_wanted_and_not_within_a_job(
    arguments: list[str], job: str | None, asks: bool
) -> None:
    assert is_to_ask(arguments, {"SLURM_JOB_ID": job} if job else {}) == asks


def test_only_what_may_be_had_another_time_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["resnet18_8xb32_in1k", "resnet34_8xb32_in1k", "resnet50_8xb32_in1k", "mobilenet-v2_8xb32_in1k"]
    auto = {"base_config": "auto", "candidates": names}
    settings = {"dataset": {"name": "small", "source": {"sample": {}}}, "experiments": {"best": auto}}
    layout = Layout(Settings.model_validate(settings))
    down, unfit, there, _not_yet = (
        layout.checkpoint.format(checkpoint=candidate.checkpoint_name()) for candidate in layout.all_candidates()
    )
    Path(down).parent.mkdir(parents=True)
    write_checkpoint({}, Path(down), {MISSING: "the hub is down", AGAIN: True})
    write_checkpoint({}, Path(unfit), {MISSING: "it does not fit", AGAIN: False})
    write_checkpoint({"a": torch.zeros(3)}, Path(there))
    assert list(find_missing(layout).values()) == [down]
