"""How images are shared out among train, val and test, or among folds."""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from scripts.data.split_dataset import build_parser, main, parse_classes
from scripts.lib.base.problems import UserError
from scripts.lib.data.findings import TRAIN_COPY, Finding, write_findings
from scripts.lib.data.image_paths import group_of, group_pattern
from scripts.lib.data.splits import SPLITS, Image, Split
from scripts.lib.data.splitting import check_same_classes, choose_classes, split_folds, split_images


def images_of(sizes: Mapping[str, int], split: str = "") -> list[Image]:
    prefix = f"{split}/" if split else ""
    return [Image(f"{prefix}{label}/{n:04d}.jpg", label, split) for label, size in sizes.items() for n in range(size)]


def counts(split: Split) -> dict[str, int]:
    return dict(Counter(path.split("/")[-2] for path in split.images))


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


def run_folds(images: Path, *options: str) -> list[dict[str, list[str]]]:
    """Run the command with --folds and return each fold's three files as lists of paths."""
    out = images.parent / "out"
    common = ["--images", str(images), "--output", str(out / "splits"), "--class-list", str(out / "classes.txt")]
    main(build_parser().parse_args([*common, *options]))
    folders = [out / "splits" / f"fold{number}" for number in range(len(list((out / "splits").iterdir())))]
    return [
        {split: [x.rpartition(" ")[0] for x in (folder / f"{split}.txt").read_text().splitlines()] for split in SPLITS}
        for folder in folders
    ]


def write_audit(file: Path, rows: Iterable[tuple[str, str, str, str]]) -> str:
    """Write an audit.csv of (file, finding, action, group) rows, as audit_images does; return the option for it."""
    write_findings(file, [Finding(*row, "some detail, with a comma") for row in sorted(rows)])
    return f"--audit={file}"


def numbered(label: str, count: int, split: str = "") -> list[str]:
    return [f"{split}{label}/{n}.jpg" for n in range(count)]


# --- shares ---------------------------------------------------------------------------------------------------------


def test_fractions_are_met_in_each_class_and_in_all() -> None:
    sizes = {"a": 100, "b": 50, "c": 33, "d": 17}
    splits = split_images(images_of(sizes), list(sizes), 0.1, 0.2, seed=0)
    assert {name: len(split.images) for name, split in splits.items()} == {"train": 140, "val": 20, "test": 40}
    for label, size in sizes.items():
        assert abs(counts(splits["test"])[label] - 0.2 * size) < 1
        assert abs(counts(splits["val"])[label] - 0.1 * size) < 1


def test_every_image_is_on_exactly_one_side() -> None:
    images = images_of({"a": 40, "b": 7})
    splits = split_images(images, ["a", "b"], 0.1, 0.2, seed=3)
    assert sorted(path for split in splits.values() for path in split.images) == sorted(image.path for image in images)


def test_the_seed_chooses_and_the_order_does_not() -> None:
    images = images_of({"a": 60, "b": 60})
    shuffled = random.Random(0).sample(images, len(images))

    def test_split(given_split: list[Image], seed: int) -> set[str]:
        return set(split_images(given_split, ["a", "b"], 0.1, 0.2, seed)["test"].images)

    assert test_split(images, 0) == test_split(shuffled, 0)
    assert test_split(images, 0) != test_split(images, 1)


def test_a_few_more_images_do_not_reshuffle_the_rest() -> None:
    before = split_images(images_of({"a": 100, "b": 100}), ["a", "b"], 0.1, 0.2, 0)["test"].images
    after = split_images(images_of({"a": 102, "b": 100}), ["a", "b"], 0.1, 0.2, 0)["test"].images
    assert len(set(before) & set(after)) >= len(before) - 3


def test_small_classes_have_an_image_on_every_side() -> None:
    sizes = {"big": 500, "three": 3, "four": 4}
    splits = split_images(images_of(sizes), list(sizes), 0.01, 0.02, 0)
    assert all(set(counts(split)) == set(sizes) for split in splits.values())
    assert counts(split_images(images_of(sizes), list(sizes), 0.45, 0.45, 0)["train"])["three"] == 1


def test_the_split_of_single_images_is_that_of_the_first_release() -> None:
    """Published splits and figures must stay what they are: the hashes are of mimflow before groups."""
    sizes = {"apple": 250, "草莓": 97, "é": 33, "few": 3, "four": 4}
    names = {(0, 0.1, 0.2): "c81500c64a75899a94a62dfae06c33ae2e5d747e03be89680d3e1fe749c72283"}
    names[7, 0.15, 0.35] = "0c1320e88d6820fe3245f0597b091057ca9806635760c10179aecfe63b06bf16"
    names[1, 0.4, 0.5] = "0afba9760db2a1a941e224f5fc2980f70b0a20e7674de03d3b5c1c181010c886"  # all but one of a class
    names[1, 0.2, 0.75] = "7b4f71db1ed077e8d096e4c78da701f779a55d243f78731deb73fe6f3d19e6c0"
    for (seed, val, test), digest in names.items():
        splits = split_images(images_of(sizes), list(sizes), val, test, seed)
        lines = [f"{name} {path}" for name in SPLITS for path in sorted(splits[name].images)]
        assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest


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
    names = [name for split in ("train/", "val/", "test/") for label in "ab" for name in numbered(label, 4, split)]
    result = run(make_folder(tmp_path / "images", names))
    for split in ("train", "val", "test"):
        assert result[split] == [f"{split}/{label}/{n}.jpg {i}" for i, label in enumerate("ab") for n in range(4)]


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
    names = [
        name for label in "ab" for split, n in (("train/", 20), ("test/", 5)) for name in numbered(label, n, split)
    ]
    result = run(make_folder(tmp_path / "images", names))
    assert [len(result[split]) for split in ("train", "val", "test")] == [35, 5, 10]
    assert all(line.startswith("test/") for line in result["test"])


def test_train_alone_is_shared_out(tmp_path: Path) -> None:
    names = [name for label in "ab" for name in numbered(label, 10, "train/")]
    result = run(make_folder(tmp_path / "images", names))
    assert [len(result[split]) for split in ("train", "val", "test")] == [14, 2, 4]


def test_parts_without_train_are_refused(tmp_path: Path) -> None:
    names = [name for label in "ab" for split in ("val/", "test/") for name in numbered(label, 5, split)]
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


def splits_of_contents(result: Mapping[str, list[str]], folder: Path) -> dict[str, set[str]]:
    by_split: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        for line in result[split]:
            by_split.setdefault((folder / line.rpartition(" ")[0]).read_text(), set()).add(split)
    return by_split


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("finding", ["duplicate", "near_duplicate"])
def test_copies_never_straddle_splits(tmp_path: Path, seed: int, finding: str) -> None:
    names = [f"{label}/{n}.jpg={label}{n // 3:03d}" for label in "ab" for n in range(60)]  # each image three times
    folder = make_folder(tmp_path / "images", names)
    rows = [(name.split("=")[0], finding, "kept", name.split("=")[1]) for name in names]
    result = run(folder, f"--seed={seed}", write_audit(tmp_path / "audit.csv", rows))
    assert all(len(splits) == 1 for splits in splits_of_contents(result, folder).values())
    assert {split: len(result[split]) for split in SPLITS} == {"train": 84, "val": 12, "test": 24}


def test_what_the_audit_keeps_out_is_in_no_split_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    names = [name for label in "abc" for name in numbered(label, 12)]
    rows = [
        ("a/0.jpg", "unreadable", "set_aside", ""),
        ("a/1.jpg", "conflicting_labels", "set_aside", "g1"),
        ("a/2.jpg", "tiny", "kept", ""),
        ("b/1.jpg", "conflicting_labels", "set_aside", "g1"),
        ("b/2.jpg", TRAIN_COPY, "left_out", "g2"),
        ("b/2.jpg", "palette", "kept", ""),
        ("c/0.jpg", "unreadable", "set_aside", ""),
    ]
    folder = make_folder(tmp_path / "images", names)
    result = run(folder, '--classes=["a", "b"]', write_audit(tmp_path / "audit.csv", rows))
    by_split = sorted(line.rpartition(" ")[0] for split in SPLITS for line in result[split])
    assert by_split == sorted({*numbered("a", 12), *numbered("b", 12)} - {"a/0.jpg", "a/1.jpg", "b/1.jpg", "b/2.jpg"})
    assert f"keeps 4 images out of the split: 2 conflicting_labels, 1 {TRAIN_COPY}, 1 unreadable" in caplog.text


def test_a_class_of_which_nothing_is_left_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", [*numbered("a", 9), *numbered("b", 9), *numbered("c", 3)])
    audit = write_audit(tmp_path / "audit.csv", [(name, "truncated", "set_aside", "") for name in numbered("c", 3)])
    with pytest.raises(UserError, match="'c' has 0; at least 3"):
        run(folder, audit)


def test_a_given_part_of_which_nothing_is_left_is_not_replaced_in_silence(tmp_path: Path) -> None:
    names = [name for label in "ab" for split in ("train/", "val/", "test/") for name in numbered(label, 9, split)]
    folder = make_folder(tmp_path / "images", names)
    rows = [(name, TRAIN_COPY, "left_out", "") for name in names if name.startswith("test/")]
    with pytest.raises(UserError, match="every image of the given test"):
        run(folder, write_audit(tmp_path / "audit.csv", rows))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("file,finding,action\na/1.jpg,tiny,kept\n", "not an audit.csv"),
        ("", "not an audit.csv"),
        ("file,finding,action,group,detail\na/77.jpg,tiny,kept,,\n", r"line 2: 'a/77\.jpg' is not there"),
        (b"file,finding,action,group,detail\n\xff,tiny,kept,,\n", "not an audit.csv"),
        ('file,finding,action,group,detail\na/1.jpg,"tiny"x,kept,,\n', "not an audit.csv"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_audit_of_these_images_is_one_line(
    tmp_path: Path, content: str | bytes | None, match: str
) -> None:
    folder = make_folder(tmp_path / "images", [*numbered("a", 9), *numbered("b", 9)])
    if content is not None:
        (tmp_path / "audit.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=match) as caught:
        run(folder, f"--audit={tmp_path / 'audit.csv'}")
    assert "make" in str(caught.value) and "\n" not in str(caught.value)


# --- known groups ---------------------------------------------------------------------------------------------------


def patients(count: int, images: int, classes: str = "ab") -> list[str]:
    """Return names of images: each patient has some of each class."""
    return [f"{label}/p{n:02d}_{i}.jpg" for label in classes for n in range(count) for i in range(images)]


def test_a_group_of_several_classes_stays_on_one_side_and_each_class_meets_its_fraction(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", patients(20, 3))
    result = run(folder, "--group-by=p([0-9]+)_")
    splits = {split: {re.findall(r"p\d+", line)[0] for line in result[split]} for split in SPLITS}
    assert {split: len(by_split) for split, by_split in splits.items()} == {"train": 14, "val": 2, "test": 4}
    assert not splits["train"] & splits["val"] and not (splits["train"] | splits["val"]) & splits["test"]
    assert [Counter(line[0] for line in result[split]) for split in SPLITS] == [{"a": n, "b": n} for n in (42, 6, 12)]


def test_copies_and_known_groups_are_joined(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", patients(30, 1))
    chain = [(f"a/p{n:02d}_0.jpg", "near_duplicate", "kept", f"c{n // 2}") for n in range(1, 9)]  # 0+1, 2+3, 4+5, ...
    rows = [*chain, ("b/p02_0.jpg", "duplicate", "kept", "x"), ("b/p05_0.jpg", "duplicate", "kept", "x")]
    for seed in range(5):
        result = run(folder, "--group-by=p([0-9]+)_", f"--seed={seed}", write_audit(tmp_path / "audit.csv", rows))
        side_of = {line.rpartition(" ")[0]: split for split in SPLITS for line in result[split]}
        joined = [f"{label}/p{n:02d}_0.jpg" for label in "ab" for n in (2, 3, 4, 5)]  # 2-3 and 4-5 by a, 2-5 by b
        assert len({side_of[path] for path in joined}) == 1


def test_groups_of_one_image_are_split_as_without_groups(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", [*numbered("a", 40), *numbered("b", 40)])
    assert run(folder, "--group-by=^.*$") == run(folder)


@pytest.mark.parametrize(
    ("path", "pattern", "group"),
    [
        ("train/a/p07_1.jpg", "p([0-9]+)_", "07"),
        ("a/p07_1.jpg", "p[0-9]+", "p07"),
        ("a/1.jpg", "p([0-9]+)_", ""),
        ("a/1.jpg", "1|(x)", ""),
        ("a/1.jpg", "^([^/]+)/", "a"),
        ("a/Vide\u0301o3.jpg", "Vid\u00e9o[0-9]", "Vid\u00e9o3"),
    ],
)
def test_the_group_is_the_capture_group_or_the_match(path: str, pattern: str, group: str) -> None:
    assert group_of(path, pattern) == group_of(path, group_pattern(pattern)) == group


@pytest.mark.parametrize(
    ("pattern", "match"),
    [
        ("(", r"'\(' is no regular expression"),
        ("(a)(b)", r"2 capture groups: one at most; write the others as \(\?:"),
        ("patient", "'patient' matches no image; they are called 'a/0.jpg', 'a/1.jpg'.* and 13 more"),
        ("", "matches no image"),
        ("^b", "'b' has 1 .9 images.*at least 3"),
    ],
)
def test_a_wrong_pattern_is_one_line(tmp_path: Path, pattern: str, match: str) -> None:
    folder = make_folder(tmp_path / "images", [*numbered("a", 9), *numbered("b", 9)])
    with pytest.raises(UserError, match=match) as caught:
        run(folder, f"--group-by={pattern}")
    assert "dataset.split.group_by" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_images_that_do_not_match_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_folder(tmp_path / "images", [*patients(10, 2), *numbered("b", 7)])
    result = run(folder, "--group-by=p([0-9]+)_")
    assert "7 of 47 images do not match, for example 'b/0.jpg'" in caplog.text
    assert sum(len(result[split]) for split in SPLITS) == 47


def test_groups_that_cannot_be_divided_are_the_reason_that_is_given(tmp_path: Path) -> None:
    # Each two of the four groups share a class that only three have, so they would need four sides.
    names = [
        f"{label}/{n}_{i}.jpg" for n, group in enumerate(["abc", "ab", "ac", "bc"]) for label in group for i in "12"
    ]
    folder = make_folder(tmp_path / "images", names)
    with pytest.raises(UserError, match=r"found no way to have images of .* in train, val and test.* few groups"):
        run(folder, "--group-by=/([0-9])_")
    assert all(run(folder).values())


def test_groups_across_given_parts_are_counted_and_nothing_is_moved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"train/{label}/p{n}_{i}.jpg" for label in "ab" for n in range(6) for i in range(3)]
    names += [f"test/{label}/p{n}_9.jpg" for label in "ab" for n in (4, 5, 6)]
    folder = make_folder(tmp_path / "images", names)
    result = run(folder, "--group-by=(p[0-9])_")
    assert "2 groups have images in several of the given splits, 4 images of val or test" in caplog.text
    assert len(result["test"]) == 6 and len(result["train"]) + len(result["val"]) == 36
    caplog.clear()
    run(folder, "--group-by=^(.*)$")
    assert "several of the given splits" not in caplog.text


def test_a_test_of_few_groups_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its accuracy is about these patients, and its intervals take each photograph of them for independent."""
    caplog.set_level("INFO")
    folder = make_folder(tmp_path / "images", patients(6, 10))
    run(folder, "--group-by=p([0-9]+)_")
    assert "groups: train 4, val 1, test 1" in caplog.text
    assert "test has only 1 of the groups" in caplog.text
    caplog.clear()
    run(make_folder(tmp_path / "more", patients(40, 2)), "--group-by=p([0-9]+)_")
    assert "groups: train" in caplog.text and "has only" not in caplog.text


def test_a_side_that_large_groups_make_too_large_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_folder(tmp_path / "images", patients(4, 10))
    run(folder, "--group-by=p([0-9]+)_")
    assert "groups of images are large: val has 10 of 'a' instead of 4, 10 of 'b' instead of 4" in caplog.text
    caplog.clear()
    run(folder)
    assert "large" not in caplog.text


# --- folds ----------------------------------------------------------------------------------------------------------


def test_each_image_is_in_test_in_exactly_one_fold(tmp_path: Path) -> None:
    names = [*numbered("a", 50), *numbered("b", 25)]
    folds = run_folds(make_folder(tmp_path / "images", names), "--folds=5", "--val=0.2")
    assert len(folds) == 5
    assert sorted(path for fold in folds for path in fold["test"]) == sorted(names)
    for fold in folds:
        assert sorted(path for split in SPLITS for path in fold[split]) == sorted(names)
        by_split = [Counter(path[0] for path in fold[split]) for split in SPLITS]
        assert by_split == [{"a": 30, "b": 15}, {"a": 10, "b": 5}, {"a": 10, "b": 5}]
    # Draws of their own: with one draw for all, the folds would share most of their 15 images of val.
    assert len({path for fold in folds for path in fold["val"]}) > 35


def test_the_lines_of_folds_bear_the_labels_of_classes_txt(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", [*numbered("b", 9), *numbered("a", 9)])
    run_folds(folder, "--folds=3")
    assert (tmp_path / "out" / "classes.txt").read_text() == "a\nb\n"
    for file in (tmp_path / "out" / "splits").glob("fold*/*.txt"):
        assert all(line.endswith(f" {'ab'.index(line[0])}") for line in file.read_text().splitlines())


def test_folds_replace_a_split_and_the_reverse(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", [*numbered("a", 9), *numbered("b", 9)])
    run(folder)
    run_folds(folder, "--folds=3")
    assert sorted(path.name for path in (tmp_path / "out" / "splits").iterdir()) == ["fold0", "fold1", "fold2"]
    run(folder)
    assert sorted(path.name for path in (tmp_path / "out" / "splits").iterdir()) == ["test.txt", "train.txt", "val.txt"]


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_keep_groups_together(tmp_path: Path, folds: int) -> None:
    folder = make_folder(tmp_path / "images", patients(14, 2, "abc"))
    for fold in run_folds(folder, f"--folds={folds}", "--group-by=p([0-9]+)_"):
        by_split = {split: {path.split("/p")[1][:2] for path in fold[split]} for split in SPLITS}
        assert not by_split["train"] & by_split["val"] and not (by_split["train"] | by_split["val"]) & by_split["test"]
        assert all({path[0] for path in fold[split]} == set("abc") for split in SPLITS)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--folds=1"], "1 is no number of folds from 2 to 20"),
        (["--folds=21"], "21 is no number of folds"),
        (["--folds=2", "--val=0.5"], r"leave nothing to train: val must be above 0 and below 0\.5"),
        (["--folds=6"], "'b' has 5; at least 6 are needed for 6 folds"),
        (["--folds=3", "--group-by=^b"], r"'b' has 1 \(5 images\); at least 3 are needed for 3 folds"),
    ],
)
def test_impossible_folds_are_one_line(tmp_path: Path, options: list[str], match: str) -> None:
    folder = make_folder(tmp_path / "images", [*numbered("a", 9), *numbered("b", 5)])
    with pytest.raises(UserError, match=match):
        run_folds(folder, *options)
    assert not (tmp_path / "out").exists()


def test_two_folds_need_four_images_of_a_class() -> None:
    with pytest.raises(UserError, match="'b' has 3; at least 4 are needed for 2 folds"):
        split_folds(images_of({"a": 9, "b": 3}), ["a", "b"], 0.1, 2, 0)
    for splits in split_folds(images_of({"a": 9, "b": 4}), ["a", "b"], 0.1, 2, 0).values():
        assert all(set(counts(images)) == {"a", "b"} for images in splits.values())


@pytest.mark.parametrize("given_split", ["val", "test"])
def test_folds_of_given_splits_are_refused(tmp_path: Path, given_split: str) -> None:
    names = [name for label in "ab" for split in ("train/", f"{given_split}/") for name in numbered(label, 9, split)]
    with pytest.raises(UserError, match=f"dataset.split.folds: the images have a given {given_split}.*leave folds out"):
        run_folds(make_folder(tmp_path / "images", names), "--folds=3")


def test_folds_of_train_alone_are_shared_out(tmp_path: Path) -> None:
    names = [name for label in "ab" for name in numbered(label, 9, "train/")]
    folds = run_folds(make_folder(tmp_path / "images", names), "--folds=3")
    assert sorted(path for fold in folds for path in fold["test"]) == sorted(names)


# --- classes --------------------------------------------------------------------------------------------------------


def test_classes_are_sorted_by_code_point() -> None:
    images = images_of({"b": 1, "a": 1, "B": 1, "西瓜": 1, "é": 1})
    assert choose_classes(images, None) == ["B", "a", "b", "é", "西瓜"]


def test_given_classes_fix_order_and_choice(tmp_path: Path) -> None:
    names = [name for label in "abc" for name in numbered(label, 5)]
    result = run(make_folder(tmp_path / "images", names), '--classes=["c", "a"]')
    assert result["classes"] == ["c", "a"]
    assert {line[0] + line[-1] for split in ("train", "val", "test") for line in result[split]} == {"c0", "a1"}


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
    folder = make_folder(tmp_path / "images", [*numbered("a", 9), *numbered("b", 9)])
    audit = write_audit(tmp_path / "audit.csv", [(name, "duplicate", "kept", "x") for name in numbered("b", 9)])
    with pytest.raises(UserError, match=r"'b' has 1 \(9 images\); at least 3"):
        run(folder, audit)


def test_given_parts_need_less(tmp_path: Path) -> None:
    names = ["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "test/a/1.jpg", "test/b/1.jpg"]
    with pytest.raises(UserError, match="'b' has 1; at least 2 are needed for train and val"):
        run(make_folder(tmp_path / "images", names))
    assert [len(lines) for lines in run(make_folder(tmp_path / "images", ["train/b/2.jpg"])).values()] == [2, 2, 2, 2]


def test_a_given_part_whose_images_of_a_class_are_all_kept_out_is_named(tmp_path: Path) -> None:
    names = [name for label in "ab" for split in ("train/", "val/", "test/") for name in numbered(label, 3, split)]
    folder = make_folder(tmp_path / "images", names)
    audit = write_audit(tmp_path / "audit.csv", [(f"val/a/{n}.jpg", TRAIN_COPY, "left_out", "x") for n in range(3)])
    with pytest.raises(UserError, match="the given val has no image of 'a' that the audit lets pass"):
        run(folder, audit)


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
    lines = [line for split in ("train", "val", "test") for line in result[split]]
    assert sorted(line.rpartition(" ")[0] for line in lines) == sorted(names)
    for line in lines:
        path, _, label = line.rpartition(" ")
        assert path.split("/")[0] == result["classes"][int(label)]


def test_hidden_files_and_folders_are_no_images(tmp_path: Path) -> None:
    names = [*numbered("a", 4), *numbered("b", 4), "a/.ipynb_checkpoints/0-checkpoint.jpg", ".trash/1.jpg", "b/.1.jpg"]
    result = run(make_folder(tmp_path / "images", names))
    assert result["classes"] == ["a", "b"]
    assert sum(len(result[split]) for split in ("train", "val", "test")) == 8


def test_images_in_deeper_folders_belong_to_their_class(tmp_path: Path) -> None:
    names = [f"{label}/{n % 2}/{n}.jpg" for label in "ab" for n in range(5)]
    result = run(make_folder(tmp_path / "images", names))
    assert result["classes"] == ["a", "b"]
    assert sum(len(result[split]) for split in ("train", "val", "test")) == 10


def test_a_failed_split_leaves_the_last_one_alone(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "images", [*numbered("a", 9), *numbered("b", 9)])
    before = run(folder)
    make_folder(folder, ["c/1.jpg"])
    with pytest.raises(UserError):
        run(folder)
    out = tmp_path / "out"
    assert (out / "splits" / "test.txt").read_text().split("\n")[:-1] == before["test"]
    assert (out / "classes.txt").read_text() == "a\nb\n"
