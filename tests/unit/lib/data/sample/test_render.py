"""The sample generator gives the same pictures for the same arguments, whoever makes them and however many."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.lib.base.files import sha256_of
from scripts.lib.base.problems import UserError
from scripts.lib.data.sample.looks import CLASSES
from scripts.lib.data.sample.render import member_name, render_image, write_archive

SIZE = 48


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "sample.zip"
    write_archive(path, images_per_class=2, size=SIZE, seed=3, processes=1)
    return path


def images_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("class_name", sorted(CLASSES))
def test_an_image_is_a_pure_function_of_its_arguments(class_name: str) -> None:
    first = render_image(class_name, 1, 0, 64)
    render_image("lemon", 2, 7, 64)  # others made in between change nothing
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, render_image(class_name, 1, 0, 64))


def test_seed_class_and_index_each_give_another_image() -> None:
    pictures = [
        render_image("apple", 1, 0, 64),
        render_image("apple", 1, 1, 64),
        render_image("apple", 2, 0, 64),
        render_image("lime", 1, 0, 64),
    ]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


def test_global_random_state_neither_matters_nor_changes() -> None:
    np.random.seed(0)
    first = render_image("pear", 1, 0, 64)
    after = np.random.random()
    np.random.seed(1)
    np.testing.assert_array_equal(first, render_image("pear", 1, 0, 64))
    np.random.seed(0)
    assert after == np.random.random()


@pytest.mark.long
@pytest.mark.parametrize("size", [32, 33, 600])
def test_any_size_from_32_pixels_is_possible(size: int) -> None:
    for class_name in CLASSES:
        picture = render_image(class_name, 1, 5, size)
        assert picture.shape == (size, size, 3)
        assert picture.std() > 5


def test_an_image_is_the_same_scene_at_any_size() -> None:
    small, big = render_image("banana", 4, 0, 96), render_image("banana", 4, 0, 288)
    shrunk = np.asarray(Image.fromarray(big).resize((96, 96), Image.Resampling.BOX))
    assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.8


def test_archive_holds_every_class_as_a_folder_of_jpegs(archive: Path) -> None:
    images = images_of(archive)
    assert list(images) == [member_name(name, index) for name in sorted(CLASSES) for index in (1, 2)]
    assert len(CLASSES) >= 8
    assert "fruit_sample/草莓/草莓_0001.jpg" in images
    for data in images.values():
        picture = Image.open(io.BytesIO(data))
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (SIZE, SIZE))


def test_archive_holds_what_render_image_gives(archive: Path) -> None:
    data = images_of(archive)[member_name("watermelon", 2)]
    difference = decode(data).astype(int) - render_image("watermelon", 2, 3, SIZE)
    assert np.abs(difference).mean() < 12  # JPEG is lossy


def test_archive_is_stored_with_fixed_times(archive: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            assert member.compress_type == zipfile.ZIP_STORED
            assert member.date_time == (1980, 1, 1, 0, 0, 0)


@pytest.mark.long
def test_number_of_processes_does_not_change_a_byte(archive: Path, tmp_path: Path) -> None:
    write_archive(tmp_path / "two.zip", images_per_class=2, size=SIZE, seed=3, processes=2)
    assert sha256_of(tmp_path / "two.zip") == sha256_of(archive)


def test_an_image_does_not_depend_on_how_many_are_made(archive: Path, tmp_path: Path) -> None:
    write_archive(tmp_path / "more.zip", images_per_class=3, size=SIZE, seed=3, processes=1)
    more = images_of(tmp_path / "more.zip")
    assert len(more) == 3 * len(CLASSES)
    assert all(more[name] == data for name, data in images_of(archive).items())


def test_no_picture_is_made_twice(archive: Path) -> None:
    images = images_of(archive)
    assert len(set(images.values())) == len(images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images_per_class": 0}, "images per class is 0"),
        ({"size": 8}, "size is 8"),
        ({"seed": -1}, "seed is -1"),
        ({"processes": 0}, "processes is 0"),
    ],
)
def test_impossible_numbers_are_refused_and_nothing_is_left(
    arguments: dict[str, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        write_archive(tmp_path / "sample.zip", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_command_line_writes_the_same_archive(archive: Path, tmp_path: Path) -> None:
    output = tmp_path / "a folder" / "sample.zip"
    command = [sys.executable, "-m", "scripts.lib.data.sample.render", "--images-per-class", "2"]
    command += ["--size", str(SIZE), "--seed", "3", "--output", str(output)]
    root = Path(__file__).parents[5]
    subprocess.run(command, check=True, cwd=root, env={**os.environ, "PYTHONHASHSEED": "5"}, timeout=120)
    assert sha256_of(output) == sha256_of(archive)
    assert [path.name for path in output.parent.iterdir()] == ["sample.zip"]
