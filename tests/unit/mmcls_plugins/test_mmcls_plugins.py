"""The training plug-ins: what they draw is a function of (seed, purpose, index), and what they save is whole."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcls.datasets import PIPELINES
from PIL import Image
from torch.utils.data import DataLoader

from scripts.lib.base.files import is_whole
from scripts.lib.base.seeds import derive_seed
from scripts.mmcls_plugins.checkpoints import StateStore, save, tensors_sha256
from scripts.mmcls_plugins.dataset import EpochSampler, SampleKey, SeededCustomDataset
from scripts.mmcls_plugins.randomness import seed_generators


@PIPELINES.register_module()
class DrawFromEveryGenerator:
    """A pipeline step that shows what random, numpy and torch would give an augmentation."""

    def __call__(self, results: dict) -> dict:
        return {"draws": torch.tensor([random.random(), float(np.random.rand()), float(torch.rand(()))])}


def draws(folder: Path, workers: int, epoch: int = 0, start: int = 0) -> torch.Tensor:
    dataset = SeededCustomDataset(
        seed=7,
        data_prefix=str(folder),
        ann_file=str(folder / "train.txt"),
        classes=["a", "b"],
        pipeline=[{"type": "DrawFromEveryGenerator"}],
    )
    sampler = EpochSampler(dataset, seed=7)
    sampler.set_position(epoch, start)
    loader = DataLoader(dataset, batch_size=3, sampler=sampler, num_workers=workers)
    return torch.cat([batch["draws"] for batch in loader])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(10):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
    (tmp_path / "train.txt").write_text("".join(f"{i}.png {i % 2}\n" for i in range(10)))
    return tmp_path


def test_augmentations_do_not_depend_on_the_number_of_workers(folder: Path) -> None:
    alone = draws(folder, workers=0)
    assert all(torch.equal(alone, draws(folder, workers)) for workers in (1, 2))


def test_an_epoch_can_be_entered_at_any_sample(folder: Path) -> None:
    assert torch.equal(draws(folder, 0)[6:], draws(folder, 2, start=6))


def test_epochs_differ_in_order_and_augmentation(folder: Path) -> None:
    first, second = draws(folder, 0, epoch=0), draws(folder, 0, epoch=1)
    assert not np.isin(first.numpy(), second.numpy()).any()


def labels_of(folder: Path, seed: int, **options: bool) -> list[int]:
    files = {"data_prefix": str(folder), "ann_file": str(folder / "many.txt")}
    dataset = SeededCustomDataset(seed=seed, classes=["a", "b"], pipeline=[], **files, **options)
    assert [info["img_info"]["filename"] for info in dataset.data_infos] == [f"{i}.png" for i in range(200)]
    return dataset.get_gt_labels().tolist()


def test_shuffled_labels_are_the_same_ones_in_an_order_of_the_seed(folder: Path) -> None:
    (folder / "many.txt").write_text("".join(f"{i}.png {int(i % 3 == 0)}\n" for i in range(200)))
    true = [int(i % 3 == 0) for i in range(200)]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    shuffled = labels_of(folder, 7, shuffle_labels=True)
    assert torch.equal(before, torch.get_rng_state())
    assert labels_of(folder, 7) == labels_of(folder, 7, shuffle_labels=False) == true
    assert sorted(shuffled) == sorted(true)
    agreement = np.mean(np.array(shuffled) == np.array(true))
    assert 0.4 < agreement < 0.7, "by chance 1/3 squared + 2/3 squared, 0.56"
    torch.manual_seed(2)
    assert labels_of(folder, 7, shuffle_labels=True) == shuffled, "in every process, in every epoch"
    assert labels_of(folder, 8, shuffle_labels=True) != shuffled


def test_every_epoch_holds_every_sample_once() -> None:
    for epoch in range(3):
        sampler = EpochSampler(range(11), seed=1)
        sampler.set_position(epoch)
        assert sorted(key.sample for key in sampler) == list(range(11))
        assert {key.epoch for key in sampler} == {epoch}


def test_replicas_share_one_global_order() -> None:
    whole = [key.sample for key in EpochSampler(range(12), seed=1)]
    parts = [[key.sample for key in EpochSampler(range(12), num_replicas=2, rank=rank, seed=1)] for rank in (0, 1)]
    assert [sample for pair in zip(*parts, strict=True) for sample in pair] == whole


def test_replicas_get_equally_many_samples() -> None:
    lengths = {len(list(EpochSampler(range(5), num_replicas=4, rank=rank))) for rank in range(4)}
    assert lengths == {2}


def test_a_seed_depends_on_every_part_of_its_key() -> None:
    keys = [(0, "order", 1), (1, "order", 0), (0, "augment", 1), (0, "order", 1, 0), (0, "order", 10), (0, "order")]
    values = {derive_seed(*key) for key in keys}
    assert len(values) == len(keys)
    assert derive_seed(0, "order", 1) == 7770329341107549510, "changing this changes every published result"


def test_the_three_generators_are_seeded_together() -> None:
    seed_generators(5)
    first = random.random(), np.random.rand(), torch.rand(1).item()
    seed_generators(5)
    assert first == (random.random(), np.random.rand(), torch.rand(1).item())


def test_a_plain_index_reads_an_image_without_seeding(folder: Path) -> None:
    dataset = SeededCustomDataset(
        data_prefix=str(folder),
        ann_file=str(folder / "train.txt"),
        classes=["a"],
        pipeline=[{"type": "LoadImageFromFile"}],
    )
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert dataset[4]["img"][0, 0].tolist() == [4, 4, 4]
    assert torch.equal(before, torch.get_rng_state())
    assert dataset[SampleKey(0, 4)]["img"][0, 0].tolist() == [4, 4, 4]


def test_the_newest_good_state_is_loaded_and_only_so_many_are_kept(tmp_path: Path) -> None:
    store = StateStore(tmp_path, keep=2)
    for iteration in (1, 2, 3):
        store.save(iteration, {"iteration": iteration, "tensor": torch.arange(3)})
    assert [path.name for path in store.paths()] == ["state_000000002.pth", "state_000000003.pth"]
    assert store.load_newest()["iteration"] == 3
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", ["truncate", "flip", "no hash"])
def test_a_damaged_state_is_passed_over_for_the_one_before_it(tmp_path: Path, damage: str) -> None:
    store = StateStore(tmp_path)
    for iteration in (1, 2):
        store.save(iteration, {"iteration": iteration})
    newest = store.paths()[-1]
    content = newest.read_bytes()
    if damage == "truncate":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        newest.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    else:
        newest.with_name(newest.name + ".sha256").unlink()
    assert store.load_newest()["iteration"] == 1


def test_without_a_state_there_is_nothing_to_load(tmp_path: Path) -> None:
    assert StateStore(tmp_path / "none").load_newest() is None


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    save(path, {"a": 1})
    before = path.read_bytes()
    with pytest.raises(Exception, match=r"pickle|local"):
        save(path, {"a": lambda: None})
    assert path.read_bytes() == before and is_whole(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pth", "best.pth.sha256"]


def test_the_hash_is_of_the_tensors_not_of_their_order_or_file() -> None:
    a, b = torch.rand(2, 3), torch.arange(4)
    assert tensors_sha256({"a": a, "b": b}) == tensors_sha256({"b": b, "a": a.t().contiguous().t()})
    assert tensors_sha256({"a": a}) != tensors_sha256({"a": a.reshape(3, 2)})
    assert tensors_sha256({"a": a}) != tensors_sha256({"c": a})
