"""What find_label_suspects says of all images by their features: strangers, classes that are two, two that are one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from scripts.data.find_label_suspects import Labelled, find
from scripts.lib.model.label_probe import Units


def test_an_image_unlike_all_others_is_in_the_summary_and_its_copies_do_not_hide_it(tmp_path: Path) -> None:
    count, copies = 120, 12
    draw = np.random.default_rng(0)
    labels = np.arange(count + copies) % 2
    features = np.eye(2, 24)[labels] * 4 + draw.normal(size=(count + copies, 24)) * 0.4
    features[count:] = np.eye(24)[20] * 9  # one picture, saved a dozen times
    names = [f"{index}.png" for index in range(count + copies)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    units = Units(np.minimum(np.arange(count + copies), count), np.minimum(np.arange(count + copies), count) % 5)
    images = Labelled(names, labels, [""] * len(names), ["a", "b"])
    _, summary = find(images, torch.from_numpy(features), units, tmp_path)
    assert set(summary["odd_ones_out"][:copies]) == set(names[count:])
    assert len(summary["odd_ones_out"]) <= copies + 2


def test_a_class_of_two_kinds_and_two_classes_of_one_kind_are_in_the_summary(tmp_path: Path) -> None:
    kinds, each = 5, 80
    draw = np.random.default_rng(0)
    kind = np.repeat(np.arange(kinds), each)
    features = (draw.normal(size=(kinds, 24)) * 2)[kind] + draw.normal(size=(len(kind), 24)) * 0.5
    labels = np.array([0, 0, 1, 2, 3])[kind]  # kinds 0 and 1 are one class
    labels[kind == 4] = draw.permutation(each) % 2 + 3  # kind 4 is two
    names = [f"{index:03}.png" for index in range(len(kind))]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    units = Units(np.arange(len(kind)), np.arange(len(kind)) % 5)
    images = Labelled(names, labels, [""] * len(names), ["both", "b", "c", "d", "e"])
    _, summary = find(images, torch.from_numpy(features), units, tmp_path)
    assert json.loads(json.dumps(summary)) == summary, "it is written as JSON"
    (divided,) = summary["two_groups"]
    assert divided["class"] == "both" and divided["between"] < 0.05
    assert {tuple(sorted(group)) for group in divided["groups"]} == {tuple(names[:each]), tuple(names[each : 2 * each])}
    assert [(pair["first"], pair["second"]) for pair in summary["pairs"] if pair["are_one"]] == [("d", "e")]
