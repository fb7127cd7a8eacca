"""What find_label_suspects says of all images by their features, besides the labels: which one is unlike all others."""

from __future__ import annotations

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
