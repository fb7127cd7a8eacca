"""When a model can be relied on: thresholds read back, reasons, and distances worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.runs import certainty as module
from scripts.lib.runs.certainty import (
    FAR,
    NOT_CONFIDENT,
    Certainty,
    Step,
    directions,
    distances,
    of_run,
    read_certainty,
    read_known,
    reasons,
)
from scripts.lib.runs.run_folder import RunFolder

CERTAINTY = Certainty(200, [Step(0.9, 0.3, 1.0), Step(0.94, 0.5, 0.8), Step(0.97, 0.8, 0.5)], 50, 0.25)


def test_the_lowest_threshold_that_keeps_the_accuracy_is_taken() -> None:
    for accuracy, confidence in ((0.5, 0.3), (0.9, 0.3), (0.91, 0.5), (0.95, 0.8), (0.97, 0.8)):
        step = CERTAINTY.at(accuracy)
        assert step is not None and step.confidence == confidence, accuracy
    assert CERTAINTY.at(0.98) is None
    assert CERTAINTY.best == Step(0.97, 0.8, 0.5) and Certainty(3, []).best is None


def test_a_prediction_is_unsure_for_each_reason_alone_and_for_both() -> None:
    assert reasons(CERTAINTY, 0.95, 0.8, 0.25) == []
    assert reasons(CERTAINTY, 0.95, 0.79, 0.25) == [NOT_CONFIDENT]
    assert reasons(CERTAINTY, 0.95, 0.8, 0.26) == [FAR]
    assert reasons(CERTAINTY, 0.95, 0.1, 1.0) == [NOT_CONFIDENT, FAR]
    assert reasons(CERTAINTY, 0.99, 1.0, 0.0) == [NOT_CONFIDENT], "what no threshold keeps, no prediction is sure of"
    assert reasons(CERTAINTY, 0.95, 0.8, None) == [] == reasons(Certainty(5, CERTAINTY.steps), 0.95, 0.9, 1.9)


def test_distances_are_those_worked_by_hand_and_lengths_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    known = directions(np.array([[1, 0], [0, 5]]))
    features = np.array([[3, 0], [0, 0.1], [-1, 0], [1, 1], [0, 0]])
    expected = [0, 0, 1, 1 - np.sqrt(0.5), 1]
    np.testing.assert_allclose(distances(features, known), expected, atol=1e-6)
    np.testing.assert_allclose(distances(1000 * features, known.astype(np.float16)), expected, atol=1e-3)
    monkeypatch.setattr(module, "BLOCK_NUMBERS", 4)
    np.testing.assert_allclose(distances(features, known), expected, atol=1e-6)
    assert distances(np.empty((0, 2)), known).shape == (0,)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert of_run(run) is None
    run.certainty.write_text(json.dumps(CERTAINTY.as_json()), encoding="utf-8")
    np.save(run.known, np.eye(3, dtype=np.float16))
    read = of_run(run)
    assert read is not None and read[0] == CERTAINTY and np.array_equal(read[1], np.eye(3))
    assert Certainty.of_json(Certainty(0, []).as_json()) == Certainty(0, [])


@pytest.mark.parametrize("text", ["{}", '{"steps": [[1, 2]], "far": 1, "val_images": 1, "known_images": 1}', "[1]", ""])
def test_a_file_that_is_something_else_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "certainty.json").write_text(text)
    with pytest.raises(UserError, match=r"certainty\.json"):
        read_certainty(tmp_path / "certainty.json")
    (tmp_path / "known.npy").write_text(text)
    with pytest.raises(UserError, match=r"known\.npy"):
        read_known(tmp_path / "known.npy")
    np.save(tmp_path / "known.npy", np.full((2, 2), np.nan))
    with pytest.raises(UserError, match="not the features"):
        read_known(tmp_path / "known.npy")
