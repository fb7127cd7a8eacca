"""Columns of a label table that say the split: read where that is certain, named where it is not."""

from __future__ import annotations

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.data.label_files import place_images, read_table


def read(heading: str, *values: str) -> tuple[list[str], list[str]]:
    """Return the split of each row of a table with such a column, and what is told."""
    remarks: list[str] = []
    lines = [f"file,label,{heading}", *(f"{number}.jpg,cat,{value}" for number, value in enumerate(values))]
    return [row.split for row in read_table("t.csv", "\n".join(lines), remarks)], remarks


@pytest.mark.parametrize(
    ("heading", "values", "splits"),
    [
        ("Usage", "Training PublicTest PrivateTest", "train val test"),
        ("usage", "TRAIN Validation TEST", "train val test"),
        ("phase", "training dev testing", "train val test"),
        ("fold", "train test val", "train test val"),
        ("Set", "training_set test_set training_set", "train test train"),
        ("what it is for", "train test train", "train test train"),
        ("数据集", "训练集 测试集 验证集", "train test val"),
        ("is_train", "1 0 1", "train test train"),
        ("isTrain", "True False False", "train test test"),
        ("istrain", "1 0 1", "train test train"),
        ("is_training_image", "1 0 1", "train test train"),
        ("train", "yes no yes", "train test train"),
        ("is_test", "0 1 0", "train test train"),
        ("test", "FALSE TRUE FALSE", "train test train"),
        ("is_val", "0 1 0", "train val train"),
        ("in_train,in_val,in_test", "1,0,0 0,1,0 0,0,1", "train val test"),
        ("is_val,is_test", "0,0 1,0 0,1", "train val test"),
        ("is_train,is_test", "1,0 0,1 0,0", "train test "),
        ("use_for_training", "1 0 1", "train test train"),
        ("train_flag", "Y N Y", "train test train"),
        ("是否训练", "是 否 是", "train test train"),
        ("是否测试集", "1 0 0", "test train train"),
        ("分割", "训练 测试 验证", "train test val"),
    ],
)
def test_a_column_that_is_certainly_a_split_is_read_and_told(heading: str, values: str, splits: str) -> None:
    splits_read, (remark,) = read(heading, *values.split())
    assert splits_read == splits.split(" ")
    assert (
        remark.startswith("t.csv: splits are read from the column ") and f"train {splits_read.count('train')}" in remark
    )


@pytest.mark.parametrize(
    ("heading", "values"),
    [
        ("fold", "0 1 2 3"),
        ("split", "0 1 2"),
        ("partition", "0 1 2"),
        ("Usage", "Public Private Public"),
        ("is_valid", "True False True"),
        ("part", "leaf stem root"),
        ("set", "A B A"),
        ("fold_id", "0 1 2"),
        ("cv fold", "0 1 2"),
        ("CV", "0 1 2"),
        ("k_fold", "0 1 2"),
        ("FoldNo", "0 1 2"),
        ("split_1", "a b c"),
        ("train_or_test", "1 0 1"),
        ("train_test_split", "1 0 1"),
        ("is_train", "1 2 3"),
        ("is_train", "1 1 1"),
        ("train/test", "1 0 1"),
        ("ML_USE", "TRAIN TEST UNASSIGNED"),
        ("group", "train val control"),
        ("set_type", "1 2 1"),
        ("cross-val", "1 2 3"),
        ("cross_validation", "1 2 3"),
        ("数据集类型", "1 2 3"),
        ("交叉验证折", "0 1 2"),
    ],
)
def test_a_column_that_may_be_a_split_is_named_and_ignored(heading: str, values: str) -> None:
    splits_read, (remark,) = read(heading, *values.split())
    assert set(splits_read) == {""}
    assert f"the column {heading!r} ({sorted(values.split())[0]!r}" in remark
    assert "may be a split and is ignored: to use it, call it split, and write train, val or test" in remark


def test_ordinary_columns_are_not_mentioned() -> None:
    assert read("width,weather", "3,train", "4,sun", "5,rain")[1] == []
    assert read("split", "", "")[1] == []
    for heading in ("scaffold", "test_result", "training_load", "manifold_id", "island"):
        assert read(heading, "1", "0", "2")[1] == []
    assert read("note", *[f"train {number}" for number in range(100)])[1] == []
    assert read("split", "train", "test") == (["train", "test"], [])  # as the documentation has it


def test_a_column_called_split_is_preferred_and_the_other_named() -> None:
    splits_read, (remark,) = read("is_train,split,fold", "1,test,0", "0,train,1")
    assert splits_read == ["test", "train"] and "the column 'is_train' and 'fold' ('0', '1') may be a split" in remark


def test_rows_that_contradict_themselves_or_misspell_are_one_line() -> None:
    with pytest.raises(UserError, match=r"t.csv, line 4: 'train and test' is no split"):
        read("is_train,is_test", "1,0", "0,1", "1,1")
    with pytest.raises(UserError, match=r"t.csv, line 4: 'tset' is no split of a data set: write train, val or test"):
        read("Usage", "train", "test", "tset")


@pytest.mark.parametrize("tops", [("training_set", "test_set"), ("训练集", "测试集"), ("seg_train", "seg_test")])
def test_folders_of_images_in_a_table_without_splits_are_splits(tops: tuple[str, str]) -> None:
    rows = read_table("t.csv", "file,label\n1.jpg,cat\n2.jpg,dog\n3.jpg,cat")
    paths = [("d", tops[0], "1.jpg"), ("d", tops[0], "2.jpg"), ("d", tops[1], "3.jpg")]
    targets, (remark,) = place_images(rows, paths, "t.csv")
    assert targets == [("train", "cat", "1.jpg"), ("train", "dog", "2.jpg"), ("test", "cat", "3.jpg")]
    assert remark.startswith("folders are read as splits by their names")
    paths[2] = ("d", "more", "3.jpg")
    paths[1] = ("d", tops[1], "2.jpg")
    targets, (remark,) = place_images(rows, paths, "t.csv")
    assert targets[0] == ("cat", tops[0], "1.jpg") and "they are ignored" in remark
