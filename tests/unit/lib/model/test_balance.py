"""Classes that count the same although they have unequally many images: sampler, loss, fitted head, best epoch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mmcls.datasets import PIPELINES
from mmcls.models import build_loss
from mmcv import Config
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, log_loss
from torch.nn import functional
from torch.utils.data import DataLoader

from scripts.lib.base.problems import UserError
from scripts.lib.base.seeds import derive_seed
from scripts.lib.model import model_zoo
from scripts.lib.model.config_patches import class_weights
from scripts.lib.model.linear_probe import fit_probes
from scripts.lib.runs.config_file import read_config, write_config
from scripts.lib.runs.train_log import kept_epoch
from scripts.lib.settings.schema import Experiment
from scripts.mmcls_plugins.dataset import EpochSampler, SampleKey, SeededCustomDataset
from scripts.mmcls_plugins.randomness import permutation, seed_generators
from scripts.mmcls_plugins.training_log import has_lost_patience, is_better, measure
from scripts.train.patch_config import Inputs, build_config

torch.set_num_threads(1)  # two threads that wait for each other on a busy machine are ten times slower

MOBILENET = "mobilenet-v2_8xb32_in1k"
SMOOTHED = "t2t-vit-t-14_8xb64_in1k"
SIGMOID = "resnet50_8xb256-rsb-a2-300e_in1k"


class Labelled:
    """So many images of each class, in the order of the classes, as a data set knows them."""

    def __init__(self, counts: list[int]) -> None:
        self.labels = np.repeat(np.arange(len(counts)), counts)

    def __len__(self) -> int:
        return len(self.labels)

    def get_gt_labels(self) -> np.ndarray:
        return self.labels


def keys_of(counts: list[int], seed: int = 0, epoch: int = 0, start: int = 0, **options: Any) -> list[SampleKey]:
    sampler = EpochSampler(Labelled(counts), seed=seed, balanced=True, **options)
    sampler.set_position(epoch, start)
    return list(sampler)


COUNTS = st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any)


@hypothesis_settings(deadline=None, max_examples=60)
@given(COUNTS, st.integers(0, 3))
def test_each_class_and_each_of_its_images_come_equally_often_up_to_one(counts: list[int], seed: int) -> None:
    labels, drawn = Labelled(counts).labels, Counter[int]()
    present = [label for label, count in enumerate(counts) if count]
    for epoch in range(4):
        samples = [key.sample for key in keys_of(counts, seed, epoch)]
        assert len(samples) == sum(counts), "an epoch is as long as ever"
        of_class = Counter(int(labels[sample]) for sample in samples)
        assert max(of_class[label] for label in present) - min(of_class[label] for label in present) <= 1
        drawn.update(samples)
        # From the start of training on: of the classes, and of the images of each of them.
        totals = [sum(drawn[i] for i in np.flatnonzero(labels == label)) for label in present]
        assert max(totals) - min(totals) <= 1
        for label in present:
            times = [drawn[i] for i in np.flatnonzero(labels == label)]
            assert max(times) - min(times) <= 1


@hypothesis_settings(deadline=None, max_examples=60)
@given(COUNTS, st.integers(0, 5), st.integers(1, 3), st.data())
def test_an_epoch_is_a_function_of_seed_and_epoch_whoever_takes_which_part(
    counts: list[int], epoch: int, replicas: int, data: Any
) -> None:
    whole = keys_of(counts, 7, epoch)
    assert len(set(whole)) == len(whole), "an image that comes again has another key"
    assert all(key.repeat < Counter(other.sample for other in whole)[key.sample] for key in whole)
    parts = [keys_of(counts, 7, epoch, num_replicas=replicas, rank=rank) for rank in range(replicas)]
    shared = [key for round_ in zip(*parts, strict=True) for key in round_]
    assert shared[: len(whole)] == whole and len(shared) - len(whole) < replicas
    assert len(set(shared)) == len(shared), "also where some come again so that all replicas have equally many"
    rank = data.draw(st.integers(0, replicas - 1))
    start = data.draw(st.integers(0, len(parts[rank])))
    rest = keys_of(counts, 7, epoch, start, num_replicas=replicas, rank=rank)
    assert rest == parts[rank][start:]
    used = EpochSampler(Labelled(counts), seed=7, balanced=True)
    for earlier in range(epoch + 1):
        used.set_position(earlier)
        keys = list(used)
    assert keys == whole, "what came before does not matter"


def test_seeds_and_epochs_draw_other_images_in_another_order() -> None:
    first = keys_of([30, 5], seed=0)
    assert [key.sample for key in first] != [key.sample for key in keys_of([30, 5], seed=1)]
    frequent = [sorted(key.sample for key in keys_of([30, 5], epoch=epoch) if key.sample < 30) for epoch in (0, 1)]
    assert frequent[0] != frequent[1]
    assert [key.sample for key in first] != sorted(key.sample for key in first)
    assert [key.sample for key in keys_of([30, 5], shuffle=False)] == sorted(key.sample for key in first)


def test_without_balance_the_order_is_what_it_always_was() -> None:
    sampler = EpochSampler(Labelled([8, 3]), num_replicas=2, rank=1, seed=1)
    sampler.set_position(2, 1)
    order = permutation(11, derive_seed(1, "order", 2))
    assert list(sampler) == [SampleKey(2, index, 0) for index in [*order, order[0]][1::2][1:]]
    assert permutation(11, derive_seed(1, "order", 2)) == [6, 10, 7, 4, 3, 2, 0, 1, 9, 5, 8], "of published results"


@PIPELINES.register_module()
class DrawOnce:
    """A pipeline step that shows what an augmentation of this image would draw."""

    def __call__(self, results: dict) -> dict:
        return {"draw": torch.rand(()), "name": int(results["img_info"]["filename"].split(".")[0])}


def imbalanced(folder: Path) -> SeededCustomDataset:
    for i in range(8):
        Image.new("RGB", (8, 8), (i, i, i)).save(folder / f"{i}.png")
    (folder / "train.txt").write_text("".join(f"{i}.png {int(i == 0)}\n" for i in range(8)))
    files = {"data_prefix": str(folder), "ann_file": str(folder / "train.txt")}
    return SeededCustomDataset(seed=7, classes=["a", "b"], pipeline=[{"type": "DrawOnce"}], **files)


def test_an_image_that_comes_again_is_augmented_otherwise_with_any_number_of_workers(tmp_path: Path) -> None:
    dataset = imbalanced(tmp_path)

    def draws(workers: int) -> list[tuple[int, float]]:
        sampler = EpochSampler(dataset, seed=7, balanced=True)
        sampler.set_position(3)
        loader: DataLoader = DataLoader(dataset, batch_size=3, sampler=sampler, num_workers=workers)
        return [pair for batch in loader for pair in zip(batch["name"].tolist(), batch["draw"].tolist(), strict=True)]

    alone = draws(0)
    assert [name for name, _ in alone].count(0) == 4, "the one image of its class"
    assert len({draw for _, draw in alone}) == len(alone)
    assert draws(2) == alone


def test_what_comes_once_is_augmented_as_it_always_was(tmp_path: Path) -> None:
    dataset = imbalanced(tmp_path)
    for sample in range(8):
        seed_generators(derive_seed(7, "augment", 5, sample))
        expected = torch.rand(())
        assert dataset[SampleKey(5, sample)]["draw"] == expected


@example([0, 5, 15])
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8).filter(any))
def test_weights_make_the_classes_count_the_same_and_an_image_count_one_on_average(counts: list[int]) -> None:
    weights = np.array(class_weights(counts))
    shares = weights * counts
    assert shares.sum() == pytest.approx(sum(counts))
    assert shares[np.array(counts) > 0] == pytest.approx(sum(counts) / np.count_nonzero(counts))
    assert (weights[np.array(counts) == 0] == 0).all()


def losses_of(loss: dict[str, Any], logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return build_loss(dict(loss))(logits, labels)


@pytest.mark.long
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_weighted_loss_is_the_plain_one_of_images_drawn_equally_often(smoothing: float, mixed: bool) -> None:
    counts = [6, 3, 1]
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    logits = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    plain: dict[str, Any] = {"type": "LabelSmoothLoss", "label_smooth_val": smoothing, "num_classes": 3}
    weighted = {**plain, "type": "WeightedLabelSmoothLoss", "class_weight": class_weights(counts)}
    targets = functional.one_hot(labels, 3).float() if mixed else labels
    repeated = torch.tensor([0, 1, 2, 3, 4, 5, 6, 6, 7, 7, 8, 8, *[9] * 6])
    expected = losses_of(plain, logits[repeated], targets[repeated])
    torch.testing.assert_close(losses_of(weighted, logits, targets), expected)
    if smoothing == 0 and not mixed:  # mmcls's own does the same without smoothing
        entropy = {"type": "CrossEntropyLoss", "class_weight": class_weights(counts)}
        torch.testing.assert_close(losses_of(entropy, logits, labels), expected)


def test_a_mixed_image_has_the_weights_of_its_classes_in_proportion() -> None:
    logits, target = torch.tensor([[0.3, -0.2]]), torch.tensor([[0.25, 0.75]])
    plain: dict[str, Any] = {"type": "LabelSmoothLoss", "label_smooth_val": 0.1, "num_classes": 2}
    weighted = {**plain, "type": "WeightedLabelSmoothLoss", "class_weight": [4.0, 2.0]}
    torch.testing.assert_close(losses_of(weighted, logits, target), 2.5 * losses_of(plain, logits, target))


def config_of(name: str = MOBILENET, counts: tuple[int, ...] = (60, 30, 10), **settings: Any) -> dict[str, Any]:
    base = Config.fromfile(str(model_zoo.config_path(name)))._cfg_dict.to_dict()
    files = {"images": "i", "splits": "s", "checkpoint": "run/init.pth", "pixel_cache": "packed"}
    experiment = Experiment.model_validate({"base_config": name, **settings})
    classes = [f"class {number}" for number in range(len(counts))]
    inputs = {"classes": classes, "n_train": sum(counts), "train_counts": counts, "seed": 0, "device": "cpu", **files}
    return build_config(base, Inputs(experiment, **inputs))


@pytest.mark.parametrize("recipe", ["fast", "tutorial"])
def test_only_a_balanced_config_says_so(recipe: str) -> None:
    plain = config_of(recipe=recipe)
    assert "balanced" not in str(plain) and "class_weight" not in str(plain)
    assert config_of(recipe=recipe, balance="none") == plain
    sampler = config_of(recipe=recipe, balance="sampler")
    assert sampler["sampler"] == {"type": "EpochSampler", "balanced": True}
    assert sampler["runner"].pop("balanced_validation") is True
    assert sampler | {"sampler": plain["sampler"]} == plain, "and nothing else is changed"


@pytest.mark.parametrize(
    ("name", "recipe", "expected"),
    [
        (MOBILENET, "fast", "WeightedLabelSmoothLoss"),
        (MOBILENET, "tutorial", "CrossEntropyLoss"),
        (SMOOTHED, "fast", "WeightedLabelSmoothLoss"),
        (SMOOTHED, "tutorial", "WeightedLabelSmoothLoss"),
        (SIGMOID, "fast", "WeightedLabelSmoothLoss"),  # the recipe's own loss
        ("vgg11_8xb32_in1k", "tutorial", "CrossEntropyLoss"),
    ],
)
def test_the_weights_stand_in_the_config_and_mmcls_builds_its_loss(
    name: str, recipe: str, expected: str, tmp_path: Path
) -> None:
    config = config_of(name, recipe=recipe, balance="loss")
    write_config(tmp_path / "config.py", config, "mim train", name)
    read = read_config(tmp_path / "config.py")
    assert read["runner"]["balanced_validation"] is True and read["sampler"] == {"type": "EpochSampler"}
    loss = read["model"]["head"]["loss"]
    assert loss["type"] == expected
    assert loss["class_weight"] == pytest.approx([100 / 180, 100 / 90, 100 / 30])
    plain = config_of(name, recipe=recipe)["model"]["head"]["loss"]
    logits, labels = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 2, 2, 2])
    torch.testing.assert_close(losses_of(loss, logits, labels), 100 / 30 * losses_of(plain, logits, labels))


def test_a_loss_without_a_place_for_weights_is_one_line_that_names_the_sampler() -> None:
    with pytest.raises(UserError, match=r"CrossEntropyLoss with use_sigmoid.*set balance: sampler"):
        config_of(SIGMOID, recipe="tutorial", balance="loss")
    assert config_of(SIGMOID, recipe="tutorial", balance="sampler")["sampler"]["balanced"] is True


def test_an_override_does_not_take_the_weights_away_unnoticed() -> None:
    loss = {"type": "CrossEntropyLoss"}
    with pytest.raises(UserError, match=r"overrides.model.head.loss: .*class_weight"):
        config_of(balance="loss", overrides={"model.head.loss": loss})
    weighted = {**loss, "class_weight": [1.0, 2.0, 3.0]}
    assert config_of(balance="loss", overrides={"model.head.loss": weighted})["model"]["head"]["loss"] == weighted


def clouds(counts: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features and labels of three clouds of points that overlap."""
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    features = torch.randn(len(labels), 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    features[torch.arange(len(labels)), labels] += 1.0
    return features, labels


def test_a_balanced_head_is_the_one_of_images_that_come_equally_often() -> None:
    (train, labels), (val, val_labels) = clouds([60, 30, 12], 0), clouds([40, 20, 5], 1)
    balanced = fit_probes(train, labels, val, val_labels, 3, balanced=True)[-1]
    times, val_times = (torch.tensor(counts) for counts in ([1, 2, 5], [1, 2, 8]))
    more, more_val = labels.repeat_interleave(times[labels]), val_labels.repeat_interleave(val_times[val_labels])
    repeated = fit_probes(
        train.repeat_interleave(times[labels], 0), more, val.repeat_interleave(val_times[val_labels], 0), more_val, 3
    )[-1]
    assert balanced.penalty == repeated.penalty
    torch.testing.assert_close(balanced.weight, repeated.weight, rtol=1e-2, atol=1e-3)
    assert balanced.loss == pytest.approx(repeated.loss, rel=1e-3)
    assert balanced.accuracy == pytest.approx(repeated.accuracy, abs=1e-12)
    logits = val @ balanced.weight.T + balanced.bias
    assert balanced.accuracy == pytest.approx(balanced_accuracy_score(val_labels, logits.argmax(1)))
    plain = fit_probes(train, labels, val, val_labels, 3)[-1]
    rare = val_labels == 2
    recalled = [(val @ probe.weight.T + probe.bias)[rare].argmax(1).eq(2).sum() for probe in (balanced, plain)]
    assert recalled[0] > recalled[1], "the rare class is recalled more often"


def test_balanced_validation_gives_the_means_over_the_classes() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], [40, 8, 2])  # none of class 2
    probabilities = rng.dirichlet(np.ones(4), 50)
    balanced, plain = (measure(probabilities, labels, which) for which in (True, False))
    assert list(plain) == ["val_accuracy", "val_loss"] and plain.items() <= balanced.items()
    assert balanced["val_accuracy_balanced"] == pytest.approx(
        balanced_accuracy_score(labels, probabilities.argmax(axis=1))
    )
    weights = 1 / np.array([40, 8, 1, 2])[labels]
    expected = log_loss(labels, probabilities, labels=range(4), sample_weight=weights)
    assert balanced["val_loss_balanced"] == pytest.approx(expected)


def test_a_balanced_epoch_is_judged_by_the_means_over_the_classes() -> None:
    def record(epoch: int, *values: float, is_best: bool = False) -> dict[str, Any]:
        names = ("val_accuracy", "val_loss", "val_accuracy_balanced", "val_loss_balanced")
        return {"epoch": epoch, "is_best": is_best, **dict(zip(names, values, strict=True))}

    records = [record(0, 0.9, 0.1, 0.5, 1.0, is_best=True)]
    better, worse = record(1, 0.8, 0.2, 0.6, 2.0), record(1, 0.95, 0.05, 0.4, 2.0)
    tie = record(1, 0.8, 0.2, 0.5, 0.9)
    assert is_better(better, records) and is_better(tie, records)
    assert not is_better(worse, records)
    # The plain loss fell, the one that counts did not.
    assert has_lost_patience([*records, worse], best_epoch=0, epochs_done=1, patience=1)
    log = pd.DataFrame([record(0, 0.9, 0.1, 0.5, 1.0, is_best=True), better | {"is_best": True}, worse])
    kept = kept_epoch(log)
    assert kept is not None and kept["val_accuracy"] == 0.8
