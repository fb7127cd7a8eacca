"""How images are shared out among train, val and test."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from scripts.console import UserError
from scripts.data import split_dataset
from scripts.data.split_dataset import (
    Image,
    build_parser,
    carve,
    check_same_classes,
    choose_classes,
    find_images,
    main,
    parse_classes,
    share_out,
    split,
)


def images_of(sizes: Mapping[str, int], part: str = "") -> list[Image]:
    prefix = f"{part}/" if part else ""
    return [Image(f"{prefix}{label}/{n:04d}.jpg", label, part) for label, size in sizes.items() for n in range(size)]


def counts(images: Sequence[Image]) -> dict[str, int]:
    return dict(Counter(image.label for image in images))


def make_folder(folder: Path, names: Sequence[str]) -> Path:
    """Write images, each with its own content; ``name=content`` gives it one."""
    for text in names:
        name, _, content = text.partition("=")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content or name)
    return folder


def run(images: Path, *options: str) -> dict[str, list[str]]:
    """Run the command and return its four files as lists of lines."""
    out = images.parent / "out"
    common = ["--images", str(images), "--output", str(out / "splits"), "--class-list", str(out / "classes.txt")]
    main(build_parser().parse_args([*common, *options]))
    files = {"classes": out / "classes.txt"} | {s: out / "splits" / f"{s}.txt" for s in ("train", "val", "test")}
    assert sorted(path.name for path in out.iterdir()) == ["classes.txt", "splits"]
    return {name: path.read_text(encoding="utf-8").split("\n")[:-1] for name, path in files.items()}


def numbered(label: str, count: int, part: str = "") -> list[str]:
    return [f"{part}{label}/{n}.jpg" for n in range(count)]


# --- shares ---------------------------------------------------------------------------------------------------------


def test_fractions_are_met_in_each_class_and_in_all() -> None:
    sizes = {"a": 100, "b": 50, "c": 33, "d": 17}
    sides = split(images_of(sizes), list(sizes), 0.1, 0.2, seed=0)
    assert {side: len(images) for side, images in sides.items()} == {"train": 140, "val": 20, "test": 40}
    for label, size in sizes.items():
        assert abs(counts(sides["test"])[label] - 0.2 * size) < 1
        assert abs(counts(sides["val"])[label] - 0.1 * size) < 1


def test_every_image_is_on_exactly_one_side() -> None:
    images = images_of({"a": 40, "b": 7})
    sides = split(images, ["a", "b"], 0.1, 0.2, seed=3)
    assert sorted(image.path for side in sides.values() for image in side) == sorted(image.path for image in images)


def test_the_seed_chooses_and_the_order_does_not() -> None:
    images = images_of({"a": 60, "b": 60})
    shuffled = random.Random(0).sample(images, len(images))

    def test_side(given: list[Image], seed: int) -> set[str]:
        return {image.path for image in split(given, ["a", "b"], 0.1, 0.2, seed)["test"]}

    assert test_side(images, 0) == test_side(shuffled, 0)
    assert test_side(images, 0) != test_side(images, 1)


def test_a_few_more_images_do_not_reshuffle_the_rest() -> None:
    before = split(images_of({"a": 100, "b": 100}), ["a", "b"], 0.1, 0.2, 0)["test"]
    after = split(images_of({"a": 102, "b": 100}), ["a", "b"], 0.1, 0.2, 0)["test"]
    assert len({image.path for image in before} & {image.path for image in after}) >= len(before) - 3


def test_small_classes_have_an_image_on_every_side() -> None:
    sizes = {"big": 500, "three": 3, "four": 4}
    sides = split(images_of(sizes), list(sizes), 0.01, 0.02, 0)
    assert all(set(counts(images)) == set(sizes) for images in sides.values())
    assert counts(split(images_of(sizes), list(sizes), 0.45, 0.45, 0)["train"])["three"] == 1


def test_shares_add_up_by_largest_remainders() -> None:
    assert share_out({"a": 10, "b": 13, "c": 14}, 0.25) == {"a": 3, "b": 3, "c": 3}
    assert share_out({"a": 1, "b": 100}, 0.1) == {"a": 1, "b": 10}


def test_units_are_taken_whole_and_train_keeps_one() -> None:
    unit = [Image(f"a/{n}.jpg", "a") for n in range(9)]
    assert set(carve([unit[:5], unit[5:6], unit[6:]], {"test": 2, "val": 1}).values()) == {"test", "val"}
    chosen = carve([unit[:4], unit[4:7], unit[7:]], {"test": 1, "val": 1})  # all too large: the smallest go
    assert Counter(chosen.values()) == {"test": 2, "val": 3}
    assert "test" in carve([[image] for image in unit[:2]], {"test": 5}).values()
    assert len(carve([[image] for image in unit[:2]], {"test": 5})) == 1


@pytest.mark.parametrize(
    ("val", "test", "match"),
    [
        (0, 0.2, r"split\.val"),
        (1.0, 0.2, r"split\.val"),
        (0.1, -0.1, r"split\.test"),
        (float("nan"), 0.2, "val"),
        (0.5, 0.5, "leave nothing to train"),
    ],
)
def test_impossible_fractions_are_refused(tmp_path: Path, val: float, test: float, match: str) -> None:
    with pytest.raises(UserError, match=match):
        run(tmp_path / "nowhere", f"--val={val}", f"--test={test}")


# --- given parts ----------------------------------------------------------------------------------------------------


def test_given_parts_are_kept(tmp_path: Path) -> None:
    names = [name for part in ("train/", "val/", "test/") for label in "ab" for name in numbered(label, 4, part)]
    result = run(make_folder(tmp_path / "images", names))
    for side in ("train", "val", "test"):
        assert result[side] == [f"{side}/{label}/{n}.jpg {i}" for i, label in enumerate("ab") for n in range(4)]


def test_a_given_val_alone_becomes_test_and_a_new_val_is_taken_from_train(tmp_path: Path) -> None:
    names = [
        *numbered("a", 40, "train/"),
        *numbered("b", 40, "train/"),
        *numbered("a", 10, "val/"),
        *numbered("b", 10, "val/"),
    ]
    result = run(make_folder(tmp_path / "images", names), "--val=0.1")
    assert len(result["test"]) == 20 and all(line.startswith("val/") for line in result["test"])
    assert len(result["val"]) == 10 and all(line.startswith("train/") for line in result["val"])  # a tenth of all 100
    assert len(result["train"]) == 70 and not set(result["train"]) & set(result["val"])


def test_a_missing_val_is_taken_from_train(tmp_path: Path) -> None:
    names = [name for label in "ab" for part, n in (("train/", 20), ("test/", 5)) for name in numbered(label, n, part)]
    result = run(make_folder(tmp_path / "images", names))
    assert [len(result[side]) for side in ("train", "val", "test")] == [35, 5, 10]
    assert all(line.startswith("test/") for line in result["test"])


def test_train_alone_is_shared_out(tmp_path: Path) -> None:
    names = [name for label in "ab" for name in numbered(label, 10, "train/")]
    result = run(make_folder(tmp_path / "images", names))
    assert [len(result[side]) for side in ("train", "val", "test")] == [14, 2, 4]


def test_parts_without_train_are_refused(tmp_path: Path) -> None:
    names = [name for label in "ab" for part in ("val/", "test/") for name in numbered(label, 5, part)]
    with pytest.raises(UserError, match="train has none"):
        run(make_folder(tmp_path / "images", names))


def test_a_class_called_train_beside_others_is_a_class(tmp_path: Path) -> None:
    names = [name for label in ("bus", "train") for name in numbered(label, 5)]
    assert run(make_folder(tmp_path / "images", names))["classes"] == ["bus", "train"]


def test_class_lists_that_differ_between_parts_are_refused_naming_the_differences(tmp_path: Path) -> None:
    names = [
        *numbered("a", 5, "train/"),
        *numbered("b", 5, "train/"),
        *numbered("a", 5, "test/"),
        *numbered("c", 5, "test/"),
    ]
    with pytest.raises(UserError, match="test lacks 'b'; train lacks 'c'") as caught:
        run(make_folder(tmp_path / "images", names))
    assert "dataset.classes" in str(caught.value)
    assert not (tmp_path / "out").exists()
    check_same_classes([Image("train/a/1.jpg", "a", "train"), Image("test/a/1.jpg", "a", "test")], ["a"])


# --- copies ---------------------------------------------------------------------------------------------------------


def sides_of_contents(result: Mapping[str, list[str]], folder: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for side in ("train", "val", "test"):
        for line in result[side]:
            found.setdefault((folder / line.rpartition(" ")[0]).read_text(), set()).add(side)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_exact_copies_never_straddle_sides(tmp_path: Path, seed: int) -> None:
    names = [f"{label}/{n}.jpg={label}{n // 3:03d}" for label in "ab" for n in range(60)]  # each image three times
    folder = make_folder(tmp_path / "images", names)
    result = run(folder, f"--seed={seed}")
    assert all(len(sides) == 1 for sides in sides_of_contents(result, folder).values())
    assert sum(len(result[side]) for side in ("train", "val", "test")) == 120


def test_copies_of_given_parts_are_left_out_of_the_lower_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [name for label in "ab" for part in ("train/", "val/", "test/") for name in numbered(label, 3, part)]
    leaks = ["train/a/copy.jpg=test/a/0.jpg", "val/a/copy.jpg=test/a/1.jpg", "train/b/copy.jpg=val/b/0.jpg"]
    result = run(make_folder(tmp_path / "images", names + leaks))
    assert [len(result[side]) for side in ("train", "val", "test")] == [6, 6, 6]
    assert not any("copy" in line for side in result.values() for line in side)
    assert "left out 2 images of the given train" in caplog.text
    assert "left out 1 images of the given val" in caplog.text


def test_copies_under_different_classes_stay_in_train(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [*numbered("a", 20), *numbered("b", 20), "a/x.jpg=same", "b/y.jpg=same"]
    result = run(make_folder(tmp_path / "images", names))
    assert "a/x.jpg 0" in result["train"] and "b/y.jpg 1" in result["train"]
    assert "2 images have exact copies under another class" in caplog.text


def test_only_files_of_equal_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "images", ["a/1.jpg=x", "a/2.jpg=yy", "b/3.jpg=zz"])
    read: list[str] = []
    monkeypatch.setattr(split_dataset, "sha256_of", lambda path: read.append(path.name) or path.name)
    split_dataset.group_copies(folder, find_images(folder))
    assert sorted(read) == ["2.jpg", "3.jpg"]


# --- classes --------------------------------------------------------------------------------------------------------


def test_classes_are_sorted_by_code_point() -> None:
    images = images_of({"b": 1, "a": 1, "B": 1, "西瓜": 1, "é": 1})
    assert choose_classes(images, None) == ["B", "a", "b", "é", "西瓜"]


def test_given_classes_fix_order_and_choice(tmp_path: Path) -> None:
    names = [name for label in "abc" for name in numbered(label, 5)]
    result = run(make_folder(tmp_path / "images", names), '--classes=["c", "a"]')
    assert result["classes"] == ["c", "a"]
    assert {line[0] + line[-1] for side in ("train", "val", "test") for line in result[side]} == {"c0", "a1"}


def test_given_classes_may_be_composed_otherwise(tmp_path: Path) -> None:
    images = images_of({"e\u0301": 1, "a": 1})
    assert choose_classes(images, ["a", "\u00e9"]) == ["a", "e\u0301"]


def test_unknown_and_repeated_classes_are_refused() -> None:
    images = images_of({"lemon": 1, "melon": 1, "grape": 1})
    with pytest.raises(UserError, match=r"dataset\.classes: no folder for class 'melom'; there are 'melon'"):
        choose_classes(images, ["lemon", "melom"])
    with pytest.raises(UserError, match="twice"):
        choose_classes(images, ["lemon", "lemon"])


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 2 are needed, only 'a' was found"):
        run(make_folder(tmp_path / "images", numbered("a", 9)))
    assert not (tmp_path / "out").exists()


def test_classes_with_too_few_images_are_refused_by_name(tmp_path: Path) -> None:
    names = [*numbered("a", 9), "山竹/1.jpg", "c/1.jpg", "c/2.jpg"]
    with pytest.raises(UserError, match="'c' has 2, '山竹' has 1; at least 3 are needed for train, val and test"):
        run(make_folder(tmp_path / "images", names))
    assert not (tmp_path / "out").exists()


def test_copies_do_not_count_as_images(tmp_path: Path) -> None:
    names = [*numbered("a", 9), *(f"b/{n}.jpg=same" for n in range(9))]
    with pytest.raises(UserError, match="'b' has 1; at least 3"):
        run(make_folder(tmp_path / "images", names))


def test_given_parts_need_less(tmp_path: Path) -> None:
    names = ["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/b/1.jpg"]
    with pytest.raises(UserError, match="'b' has 1; at least 2 are needed for train and val"):
        run(make_folder(tmp_path / "images", names))
    assert [len(lines) for lines in run(make_folder(tmp_path / "images", ["train/b/2.jpg"])).values()] == [2, 2, 2, 2]


def test_a_given_part_that_is_all_copies_is_named(tmp_path: Path) -> None:
    names = [name for label in "ab" for part in ("train/", "val/", "test/") for name in numbered(label, 3, part)]
    folder = make_folder(tmp_path / "images", names)
    make_folder(folder, [f"val/a/{n}.jpg=test/a/0.jpg" for n in range(3)])
    with pytest.raises(UserError, match="the given val has no image of 'a' that is not a copy"):
        run(folder)


def test_no_images_is_said(tmp_path: Path) -> None:
    make_folder(tmp_path / "images", ["readme.txt", "1.jpg", "a/notes.txt"])
    with pytest.raises(UserError, match="no images"):
        run(tmp_path / "images")


def test_class_lists_must_be_json_lists_of_names() -> None:
    assert parse_classes(None) is None and parse_classes("null") is None and parse_classes("[]") is None
    for text in ("[1]", '"a"', "[", "{}"):
        with pytest.raises(UserError, match="--classes"):
            parse_classes(text)


# --- files ----------------------------------------------------------------------------------------------------------


def test_hostile_names_are_one_line_each(tmp_path: Path) -> None:
    hostile = ['it\'s "q"', "$(touch x) `y`", "<script>alert(1)<", "a  b ", "西瓜 1"]
    names = [f"{label}/{label} {n}.jpg" for label in hostile for n in range(4)]
    result = run(make_folder(tmp_path / "images", names))
    assert result["classes"] == sorted(hostile)
    lines = [line for side in ("train", "val", "test") for line in result[side]]
    assert sorted(line.rpartition(" ")[0] for line in lines) == sorted(names)
    for line in lines:
        path, _, label = line.rpartition(" ")
        assert path.split("/")[0] == result["classes"][int(label)]


def test_hidden_files_and_folders_are_no_images(tmp_path: Path) -> None:
    names = [*numbered("a", 4), *numbered("b", 4), "a/.ipynb_checkpoints/0-checkpoint.jpg", ".trash/1.jpg", "b/.1.jpg"]
    result = run(make_folder(tmp_path / "images", names))
    assert result["classes"] == ["a", "b"]
    assert sum(len(result[side]) for side in ("train", "val", "test")) == 8


def test_images_in_deeper_folders_belong_to_their_class(tmp_path: Path) -> None:
    names = [f"{label}/{n % 2}/{n}.jpg" for label in "ab" for n in range(5)]
    result = run(make_folder(tmp_path / "images", names))
    assert result["classes"] == ["a", "b"]
    assert sum(len(result[side]) for side in ("train", "val", "test")) == 10


def test_a_failed_split_leaves_the_last_one_alone(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", [*numbered("a", 9), *numbered("b", 9)])
    before = run(folder)
    make_folder(folder, ["c/1.jpg"])
    with pytest.raises(UserError):
        run(folder)
    out = tmp_path / "out"
    assert (out / "splits" / "test.txt").read_text().split("\n")[:-1] == before["test"]
    assert (out / "classes.txt").read_text() == "a\nb\n"
