"""The stand-ins of bench.cluster: what they write down while a disk is full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import stand_in
from scripts.lib.base.problems import PassingError
from scripts.lib.runs.lease import Lease


def test_a_beat_that_a_full_disk_cut_off_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = {"median": 0.01, "spread": 0.0, "seed": 0}
    stand_in.PLAN.write_text(json.dumps(plan))
    stand_in._train("many-0")
    with stand_in.BEATS.open("a") as file:
        file.write('\n["many-1", "8f')
    stand_in._train("many-2")
    beats = stand_in.read_beats(tmp_path)
    assert [(beat.run, beat.word) for beat in beats] == [
        (run, word) for run in ("many-0", "many-2") for word in ("begin", "beat", "end")
    ]


def test_a_second_stand_in_of_a_run_is_refused_as_a_second_trainer_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stand_in.PLAN.write_text(json.dumps({"median": 0.01, "spread": 0.0, "seed": 0}))
    first = Lease(Path("states", "many-0"))
    first.acquire()
    with pytest.raises(PassingError, match="is training here"):
        stand_in._train("many-0")
    first.release()
    stand_in._train("many-0")
    assert [beat.word for beat in stand_in.read_beats(tmp_path)] == ["begin", "beat", "end"]
