"""Folders called as splits in any language are splits; what may be splits, variants or classes is refused."""

from __future__ import annotations

import pytest
from folder_trees import expand, images

from scripts.lib.base.problems import UserError
from scripts.lib.data.layouts import NO_CLASS, NO_SPLIT, Folders, find_classes, find_layout, find_splits_of_class
from scripts.lib.data.split_words import read_split_name


def placed(text: str, folders: Folders | None = None) -> str:
    """Return where the images of *text* go, without their names, in the same way."""
    targets = find_layout(images(text), folders).targets
    return " ".join(dict.fromkeys(to if isinstance(to, str) else "/".join(to[:-1]) for to in targets))


WHOLE = " ".join(expand("{train,test}/{cat,dog}"))


@pytest.mark.parametrize(
    "tops",
    [
        "training_set test_set", "Train Test", "TRAINING testing", "seg_train seg_test", "train2017 test2017",
        "Training+Data Testing+Data", "train_images test_images", "1_train 2_test", "cifar10-train cifar10-test",
        "trainset testset", "TrainData TestData", "train holdout", "train test1", "训练集 测试集", "訓練資料 測試資料",
        "训练 测试",
        "学習データ テスト用画像", "학습 평가", "entrenamiento prueba", "Entraînement Test", "treino teste",
        "Trainingsdaten Testdaten", "addestramento prova", "Обучающая+выборка Тестовая+выборка", "eğitim test",
        "trening test", "प्रशिक्षण परीक्षण",
        "træning test", "Treenaus Testaus", "tanító teszt", "učenje testiranje", "trénovanie testovanie",
        "mokymas testavimas", "тренувальний тестовий", "ชุดฝึก ชุดทดสอบ", "latihan ujian", "אימון מבחן",
        "প্রশিক্ষণ পরীক্ষা", "பயிற்சி சோதனை", "教師データ テストデータ", "aprendizaje prueba", "Lerndaten Prüfdaten",
        "treningssett testsett", "train tst", "trainval test", "Training PrivateTest",
    ],
)  # fmt: skip
@pytest.mark.parametrize("inside", ["{}/{{cat,dog}}", "data/{}/images/{{cat,dog}}"])
def test_folders_called_as_splits_are_splits_in_any_language(tops: str, inside: str) -> None:
    assert placed(" ".join(inside.format(top) for top in tops.split())) == WHOLE
    assert placed(" ".join(f"{{cat,dog}}/{top}" for top in tops.split())) in (
        WHOLE, "train/cat train/dog test/cat test/dog", "train/cat test/cat train/dog test/dog",
    )  # fmt: skip


@pytest.mark.parametrize(
    "val", ["dev", "Validation Data", "validación", "验证集", "検証", "Validierung", "eval", "PublicTest"]
)
def test_validation_has_many_names(val: str) -> None:
    name = read_split_name(val)
    assert name and (name.split, name.rest) == ("val", ())


@pytest.mark.parametrize(
    "name",
    ["trainstation", "strain", "detest", "contest", "train_test_split", "invalid", "latest", "protest", "developer"],
)
def test_words_that_hold_such_a_word_are_ordinary(name: str) -> None:
    assert read_split_name(name) is None


def test_each_split_may_lie_in_a_folder_of_its_own_name() -> None:
    assert placed("seg_{train/seg_train,test/seg_test}/{cat,dog} seg_pred/seg_pred") == f"{WHOLE} {NO_SPLIT}"
    assert placed("{training_set/training_set,test_set/test_set}/{cat,dog}") == WHOLE
    assert placed("train/{cat,dog} test/test") == f"train/cat train/dog {NO_CLASS}"


def test_what_was_read_as_splits_is_told() -> None:
    (remark,) = find_layout(images("{seg_train,seg_test}/{cat,dog}")).remarks
    assert remark == "folders are read as splits by their names: 'seg_test' as test, 'seg_train' as train"
    (remark,) = find_layout(images("{cat,dog}/{fit_train,fit_test}")).remarks
    assert remark.startswith("inside the class folders, folders are read as splits")
    assert find_layout(images("{cat,dog}")).remarks == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{color,grayscale}/{cat,dog}", r"'color', 'grayscale' hold the same folders, 'cat', 'dog': .* {train: color}"),
        ("{color,grayscale,segmented}/{a,b,c,d}", "if no two show the same image, the folders of each split"),
        ("fold{1,2,3,4,5}/{cat,dog}", "if no two show the same image, {test: fold5}"),
        ("{cat,dog}/{left,right}", "outer if 'cat' is a class, inner if 'left' is one .dataset.split.group_by keeps"),
        ("patient{1,2,3}/{0,1}", "hold the same folders"),
        ("{amazon,dslr}/images/{bike,mug}", "hold the same folders"),
        ("{a,b}/{train,test}/{cat,dog}", "'a', 'b' hold the same folders"),
        ("{train,test}/{color,gray}/{cat,dog}", "'color', 'gray' hold the same folders"),
        ("{train,test,more}/{cat,dog}", "beside 'test', 'train' there is 'more' with the same folders in it"),
        ("cat dog augmented/{cat,dog}", "'augmented' holds folders called as those beside it"),
        ("cat dog test", "'test'. are beside others .'cat', 'dog'.: .* {test: test} if they are splits"),
        ("cat dog train test", "{test: test, train: train}"),
        ("cat dog 测试集", "{test: 测试集}"),
        ("{cat,dog}_{train,test}", "name a class and a split at once"),
        ("train{A,B} test{A,B}", "name a class and a split at once"),
        ("data/{train,test}/{cat,dog} docs", "'test', 'train' in 'data' are called as splits, but not"),
        ("{cat,dog}/{train,test,notes}", "'test', 'train' in 'cat' are called as splits"),
        ("{big+set/inner}/{train,valid}/{a,b} test/test", "{train: train, val: valid}"),
        ("{train,test}/{cat,dog,val}", "'val'. are beside others"),
    ],
)  # fmt: skip
def test_what_may_be_splits_or_classes_is_refused_with_the_way_to_say_it(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        find_layout(images(text))
    message = str(caught.value)
    assert message.startswith("dataset.source: ") and "dataset.source.folders" in message and "\n" not in message


@pytest.mark.parametrize("text", ["{color,grayscale}/{cat,dog}", "{RGB,depth,masks}/{a,b,c}", "{原图,灰度}/{猫,狗}"])
def test_no_example_puts_variants_of_an_image_into_two_splits(text: str) -> None:
    with pytest.raises(UserError) as caught:
        find_layout(images(text))
    assert "{train: " in str(caught.value) and "test:" not in str(caught.value)


def test_ordinary_classes_are_not_refused() -> None:
    for text in (
        "cat dog",
        "{cat,dog}/more",
        "cat/{a,b} dog/{b,c}",
        "cat cat/{old,new} dog dog/{old,new}",
        "cat/{2020,2021} dog",
    ):
        targets = find_layout(images(text)).targets
        assert {to[0] for to in targets} == {"cat", "dog"}


def test_a_class_may_be_called_as_a_split_and_is_told() -> None:
    for text, name in (("bus car train", "train"), ("valid invalid", "valid"), ("training match", "training")):
        layout = find_layout(images(text))
        assert not layout.has_splits and {to[0] for to in layout.targets} == set(text.split())
        assert layout.remarks[0].startswith(f"the folder {name!r} is read as a class")
    assert placed("bullet_train road_test") == "bullet_train road_test"


def test_few_alike_classes_of_many_are_classes_and_are_told() -> None:
    text = "a/{x,y} b/{x,y} c d e f g"
    layout = find_layout([*images(text), *[("c", f"c{number}.jpg") for number in range(9)]])
    assert {to[0] for to in layout.targets} == set("abcdefg")
    assert layout.remarks == ["the folders 'a', 'b' are read as classes, though they hold the same folders"]


@pytest.mark.parametrize(
    ("text", "folders", "expected"),
    [
        ("{color,gray}/{cat,dog}", {"train": "color"}, f"train/cat train/dog {NO_SPLIT}"),
        ("{color,gray}/{cat,dog}", {"train": ["color", "gray"]}, "train/cat train/dog"),
        ("{color,gray}/{cat,dog}", "outer", "color/cat color/dog gray/cat gray/dog"),
        ("{color,gray}/{cat,dog}", "inner", "cat/color dog/color cat/gray dog/gray"),
        ("set/fold{1,2,3}/{cat,dog}", {"train": ["fold1", "fold2"], "test": "fold3"}, WHOLE),
        ("x/{cat,dog,test}", {"test": "test"}, f"train/cat train/dog {NO_CLASS}"),
        ("x/{cat,dog} x/test/{cat,dog}", {"test": "x/test"}, "train/cat train/dog test/cat test/dog"),
        ("{cat,dog}/{first,last}", {"train": "first", "test": "last"}, "train/cat test/cat train/dog test/dog"),
        ("{cat,dog}/{train,test,notes}", {"train": "train", "test": "test"},
         f"train/cat test/cat {NO_SPLIT} train/dog test/dog"),
        ("data/{train,test}/{cat,dog} docs", {"train": "train", "test": "test"}, f"{WHOLE} {NO_SPLIT}"),
        ("car train test", "outer", "car train test"),
        ("{train,test}/{color,gray}/{cat,dog}", "inner",
         "train/cat/color train/dog/color train/cat/gray train/dog/gray"
         " test/cat/color test/dog/color test/cat/gray test/dog/gray"),
    ],
)  # fmt: skip
def test_the_setting_says_what_folders_are(text: str, folders: Folders, expected: str) -> None:
    assert placed(text, folders) == expected


def test_a_folder_of_the_setting_that_is_not_there_is_one_line() -> None:
    with pytest.raises(
        UserError, match="names 'grey', but no image is in a folder of that name: there are 'cat', 'color'"
    ):
        find_layout(images("{color,gray}/{cat,dog}"), {"train": "grey"})


def test_a_setting_that_makes_splits_classes_is_refused() -> None:
    with pytest.raises(UserError, match=r"folders called as splits .'test', 'train'. are alike"):
        find_layout(images("{train,test}/{color,gray}/{cat,dog}"), {"train": "color"})


def test_archives_of_one_class_or_split() -> None:
    assert find_splits_of_class(images("training_set test_set"), "cat").targets == [
        ("train", "cat", "0.jpg"),
        ("test", "cat", "1.jpg"),
    ]
    with pytest.raises(UserError, match="of the folders of class 'cat', 'test', 'train' are called as splits"):
        find_splits_of_class(images("train test more"), "cat")
    assert find_splits_of_class(images("train more"), "cat", None, {"train": "more"}).targets[1] == (
        "train",
        "cat",
        "1.jpg",
    )
    layout = find_classes(images("{训练集,测试集}/{cat,dog}"))
    assert [to[0] for to in layout.targets] == ["cat", "dog"] * 2 and "joined" in layout.remarks[0]
