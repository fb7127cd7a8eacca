"""From probes to a choice: rounds are laid out, trained runs read, the best on val is chosen, and the page tells it."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.lib.base.problems import UserError
from scripts.lib.model.linear_probe import accuracy_and_loss, fit_probes
from scripts.lib.model.model_search import MOST_FINALISTS, Tried
from scripts.lib.pages.search_page import points, search_page, ticks
from scripts.lib.runs.config_file import check_executable, render
from scripts.search import choose_finalists, choose_model, train_finalist
from scripts.search.probe_candidate import PARTS, held_out, parts_of
from scripts.search.probe_candidate import result as result_of
from scripts.train.fit_head import Fitted

HEADER = "epoch,train_loss,val_accuracy,val_loss,images_per_second,train_seconds,val_seconds,is_best\n"


class Search:
    """A folder in which candidates were probed."""

    def __init__(self, folder: Path, results: dict[str, int | str]) -> None:
        """Lay it out; *results*: how many of 100 images each got right, or why it was left out."""
        self.folder, self.names = folder, list(results)
        for name in ("train", "val"):
            (folder / f"{name}.txt").write_text("".join(f"{name}{number}.jpg 0\n" for number in range(10)))
        for name, result in results.items():
            candidate = folder / name
            candidate.mkdir()
            left_out = result if isinstance(result, str) else ""
            correct = 0 if isinstance(result, str) else result
            tried = Tried(name, f"timm/{name}", left_out, correct, 0 if left_out else 100, 1.0, 100.0, 1.0, 1000, 4000)
            (candidate / "probe.json").write_text(json.dumps(tried.as_json()))
            (candidate / "weights.pth").write_bytes(name.encode())
            (candidate / "init.pth").write_bytes(f"init of {name}".encode())
            config = {"load_from": str(candidate / "init.pth"), "seed": 1}
            command = f"mim train mmcls {candidate}/config.py --work-dir {candidate}/by_hand"
            (candidate / "config.py").write_text(render(config, command, "x"))

    @property
    def probes(self) -> list[Path]:
        return [self.folder / name / "probe.json" for name in self.names]

    def choose(self, number: int, slots: int, minutes: float | None = None) -> list[str | None]:
        """Choose the finalists of a round; return who is in which slot."""
        output = self.folder / f"round{number}.json"
        choose_finalists.main(
            Namespace(
                folder=self.folder, round=number, probes=self.probes, train=self.folder / "train.txt",
                val=self.folder / "val.txt", slots=slots, minutes=minutes, output=output,
            )
        )  # fmt: skip
        return json.loads(output.read_text())["slots"]

    def train(self, number: int, accuracies: dict[str, float]) -> None:
        """Write what training in a round reached, for each candidate that is in it."""
        file = self.folder / f"round{number}.json"
        for slot, name in enumerate(json.loads(file.read_text())["slots"]):
            run = choose_finalists.slot(file, slot)
            log = HEADER + f"1,1.0,{accuracies[name]},0.5,100,2,1,1\n" if name else ""
            (run / "train_log.csv").write_text(log)
            (run / "best.pth").write_bytes(f"{name} after round {number}".encode() if name else b"")

    def end(self, rounds: int) -> dict[str, Any]:
        """Choose the model; return what was written."""
        choose_model.main(
            Namespace(
                probes=self.probes,
                checkpoints=[self.folder / name / "weights.pth" for name in self.names],
                rounds=[self.folder / f"round{number}.json" for number in range(1, rounds + 1)],
                val=self.folder / "val.txt", output=self.folder / "choice.json",
                weights=self.folder / "weights.pth",
            )
        )  # fmt: skip
        return json.loads((self.folder / "choice.json").read_text())


def test_what_is_best_after_training_is_chosen_not_what_its_probe_promised(tmp_path: Path) -> None:
    search = Search(tmp_path, {"a": 90, "b": 85, "c": 80, "d": 10, "e": "gated"})
    assert search.choose(1, 3) == ["a", "b", "c"]
    search.train(1, {"a": 0.8, "b": 0.9, "c": 0.7})
    assert search.choose(2, 2) == ["b", "a"]
    search.train(2, {"a": 0.9, "b": 0.8})
    choice = search.end(2)
    assert (choice["chosen"], choice["base_config"]) == ("a", "timm/a")
    assert (tmp_path / "weights.pth").read_bytes() == b"a"
    rows = {row["name"]: row for row in choice["candidates"]}
    assert [result and result["accuracy"] for result in rows["a"]["rounds"]] == [0.8, 0.9]
    assert rows["c"]["rounds"][1] is None and rows["d"]["rounds"] == [None, None]
    low, high = rows["a"]["rounds"][1]["interval"]
    assert 0.5 < low < 0.9 < high  # 9 of 10 images
    page = search_page(choice, "best")
    assert "timm/a" in page and "gated" in page and "<script" not in page


def test_a_slot_holds_what_its_candidate_trains_and_mmcv_may_execute_it(tmp_path: Path) -> None:
    search = Search(tmp_path, {"a": 90, "b": 80})
    search.choose(1, 2)
    run = tmp_path / "round1" / "0"
    assert (run / "init.pth").read_bytes() == b"init of a"
    assert check_executable(run / "config.py") == {"load_from": str(run / "init.pth"), "seed": 1}
    first = (run / "config.py").read_text().splitlines()[0]
    assert first == f"# mim train mmcls {run}/config.py --work-dir {run}/by_hand"
    nobody = [tmp_path / "round1" / str(number) / "config.py" for number in range(2, MOST_FINALISTS)]
    assert nobody and all(config.read_bytes() == b"" for config in nobody)  # outputs of the rule, whoever is in them


def test_the_second_round_goes_on_from_what_the_first_has_trained_whatever_the_slots(tmp_path: Path) -> None:
    search = Search(tmp_path, {"a": 90, "b": 80, "c": 70})
    search.choose(1, 3)
    search.train(1, {"a": 0.1, "b": 0.8, "c": 0.9})
    assert search.choose(2, 2) == ["c", "b"]
    starts = [(tmp_path / "round2" / str(slot) / "init.pth").read_bytes() for slot in range(2)]
    assert starts == [b"c after round 1", b"b after round 1"]
    search.train(2, {"c": 0.95, "b": 0.9})
    assert search.end(2)["epochs"] == [1, 2]


def test_a_changed_list_moves_nobody_who_stays(tmp_path: Path) -> None:
    search = Search(tmp_path, {"a": 80, "b": 70, "c": 60})
    assert search.choose(1, 2) == ["a", "b"]
    before = {path: path.read_bytes() for path in (tmp_path / "round1" / "0").iterdir()}
    (tmp_path / "b" / "probe.json").write_text(json.dumps(Tried("b", "timm/b", "", 1, 100, 1.0, 1.0).as_json()))
    (tmp_path / "c" / "probe.json").write_text(json.dumps(Tried("c", "timm/c", "", 99, 100, 1.0, 1.0).as_json()))
    assert search.choose(1, 2) == ["a", "c"]
    assert {path: path.read_bytes() for path in (tmp_path / "round1" / "0").iterdir()} == before


def test_a_slot_may_stay_empty_and_is_then_trained_in_no_time(tmp_path: Path) -> None:
    search = Search(tmp_path, {"a": 80, "b": "no weights", "c": "no weights"})
    assert search.choose(1, 2) == ["a", None]
    run = tmp_path / "round1" / "1"
    outputs = {name: run / file for name, file in (("best", "best.pth"), ("last", "l.pth"), ("train_log", "t.csv"))}
    train_finalist.main(Namespace(config=run / "config.py", **outputs))
    assert all(path.read_bytes() == b"" for path in outputs.values())
    search.train(1, {"a": 0.5})
    assert search.end(1)["chosen"] == "a"


def test_what_would_cost_too_much_is_not_trained_and_the_choice_says_so(tmp_path: Path) -> None:
    search = Search(tmp_path, {"a": 80, "b": 70})
    # The probes took 2 s; an epoch of 10 images at 100 images/s takes 0.3 s.
    assert search.choose(1, 2, minutes=2.4 / 60) == ["a", None]
    search.train(1, {"a": 0.5})
    choice = search.end(1)
    assert choice["chosen"] == "a" and [row["is_too_dear"] for row in choice["candidates"]] == [False, True]
    assert "would not have fitted into the budget: timm/b" in search_page(choice, "best")


def test_without_a_candidate_the_reasons_are_said(tmp_path: Path) -> None:
    search = Search(tmp_path, {"a": "gated", "b": "no such operator"})
    with pytest.raises(UserError, match=r"a: gated; b: no such operator"):
        search.choose(1, 2)


def test_points_are_inside_the_drawing_whatever_the_numbers_are(tmp_path: Path) -> None:
    search = Search(tmp_path, {"a": 100, "b": 0, "c": 50})
    search.choose(1, 2)
    search.train(1, {"a": 1.0, "c": 0.0, "b": 0.0})
    candidates = search.end(1)["candidates"]
    for point in points(candidates, "a"):
        assert 0 <= point.x <= 640 and 0 <= point.high <= point.y <= point.low <= 300
    across, up = ticks(candidates)
    assert all(40 <= x <= 640 for x, _ in across) and all(40 <= y <= 260 for y, _ in up)
    assert 3 <= len(up) <= 8 and [text for _, text in up][:2] == ["0 %", "20 %"]


def test_the_numbers_of_the_axes_stand_where_such_candidates_would_be(tmp_path: Path) -> None:
    rows = [
        {"name": name, "images_per_second": speed, "accuracy": right, "interval": [right - 0.05, right + 0.05],
         "is_on_front": True}
        for name, speed, right in (("a", 20.0, 0.7), ("b", 200.0, 0.8), ("c", 1000.0, 0.9))
    ]  # fmt: skip
    across, up = map(dict, (((text, at) for at, text in axis) for axis in ticks(rows)))
    for point, speed, right in zip(points(rows, "a"), ("20", "200", "1,000"), ("70 %", "80 %", "90 %"), strict=True):
        assert (across[speed], up[right]) == (point.x, point.y)


def test_each_image_is_held_out_once_and_each_class_is_in_each_part() -> None:
    labels = torch.tensor([0] * 25 + [1] * 10 + [2] * 3)
    parts = parts_of(labels)
    for label, count in ((0, 25), (1, 10)):
        assert torch.bincount(parts[labels == label], minlength=PARTS).tolist() == [count // PARTS] * PARTS
    torch.manual_seed(0)
    features = torch.randn(len(labels), 8, dtype=torch.float64)
    features[:, 0] += 20 * labels
    accuracy, loss = accuracy_and_loss(held_out(features, labels, 3, 0.01), labels, None)
    assert accuracy >= 35 / 38 and loss < 0.5  # they are apart
    noise = torch.randn(len(labels), 8, dtype=torch.float64)
    accuracy, _ = accuracy_and_loss(held_out(noise, labels, 3, 0.01), labels, None)
    assert accuracy <= 28 / 38  # at best the most frequent class


def test_a_search_with_balanced_classes_judges_them_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0] * 90 + [1] * 10)

    def features(seed: int) -> torch.Tensor:
        drawn = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        drawn[:, 0] += labels  # hardly apart: the smaller class is found where it counts as much as the other one
        return drawn

    (tmp_path / "weights.pth").write_bytes(b"")
    accuracies = []
    for is_balanced in (False, True):
        probe = fit_probes(features(1), labels, features(2), labels, 2, is_balanced)[-1]
        fitted = Fitted({}, probe, (features(1), features(2)), (labels, labels), 9.0)
        tried = result_of("a", "a", fitted, tmp_path / "weights.pth", 0.0, is_balanced)
        assert tried.images == 200
        accuracies.append(tried.accuracy)
    assert accuracies[0] >= 0.88, "nearly all is the larger class"
    assert 0.6 < accuracies[1] < 0.85, "the mean over the classes"


def test_a_config_of_another_folder_is_not_the_slot_s(tmp_path: Path) -> None:
    (tmp_path / "init.pth").write_bytes(b"")
    (tmp_path / "config.py").write_text("import os\n")
    with pytest.raises(UserError, match=r"not a config\.py of mimflow's"):
        choose_finalists.lay_out(tmp_path / "round1" / "0", tmp_path, None)
