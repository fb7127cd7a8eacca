"""Images of strangers: whatever their headers say, looking at one takes little memory, little time and no exception.

By hand, longer: FUZZ_EXAMPLES=3000 python -m pytest tests/unit/lib/data/test_fuzz_images.py
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutated_images import bombs, checkers, mutate, png, seeds
from PIL import Image
from planted_images import encoded, photograph

from scripts.lib.base.problems import UserError
from scripts.lib.data import image_checks
from scripts.lib.data.decoding import MOST_SCANS, find_bomb, png_declares_too_much
from scripts.lib.data.image_checks import Status, check_image
from scripts.lib.data.pixel_cache_writer import decode
from scripts.lib.pages.thumbnails import thumbnail

# Pillow warns of nonsense in tags and of large images.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).resolve().parents[4]
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
SEEDS = seeds()


@pytest.mark.parametrize("checker", checkers())
def test_mutated_images_and_bombs_take_little_memory_and_time(tmp_path: Path, checker: str) -> None:
    """Less than 300 MiB and a second of a processor for each (measured: 19 MiB and 0.02 s for 5,700 of them)."""
    command = [sys.executable, "tests/helpers/mutated_images.py", checker, str(EXAMPLES), str(tmp_path / "image")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    read, refused, megabytes, seconds = map(float, done.stdout.split())
    assert read + refused == EXAMPLES * len(SEEDS) and min(read, refused) > 0.1 * EXAMPLES * len(SEEDS)
    assert megabytes < 300 and seconds < 1


@settings(
    max_examples=8 * EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 25,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(sorted(SEEDS)), st.randoms(use_true_random=False), st.booleans(), st.binary(max_size=40), st.data()
)
def test_no_bytes_raise_another_exception(
    tmp_path: Path, name: str, choose: random.Random, keep: bool, noise: bytes, data: st.DataObject
) -> None:
    content = mutate(SEEDS[name], choose) if keep else SEEDS[name][: data.draw(st.integers(0, 60))] + noise
    for check in checkers().values():
        assert check(content, tmp_path / "image") in (True, False)


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_refused_in_one_line_by_whoever_decodes(tmp_path: Path, name: str) -> None:
    content = bombs()[name]
    checked = check_image(content)
    assert checked.status in (Status.TOO_MANY_PIXELS, Status.TRUNCATED, Status.UNREADABLE) and checked.detail
    with pytest.raises(ValueError, match=r"bomb|broken"):
        decode(content, 224)
    path = tmp_path / "bomb"
    path.write_bytes(content)
    with pytest.raises(UserError, match="repair it or leave it out"):
        thumbnail(path, 64)


@pytest.mark.parametrize("size", [(40, 30), (320, 240)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_plain_jpeg_says_to_us_what_it_says_to_pillow(size: tuple[int, int], mode: str) -> None:
    choose = random.Random(f"{size} {mode}")
    whole = encoded(photograph(1, size).convert(mode))
    contents = [whole, *(mutate(whole, choose) for _ in range(20 * EXAMPLES)), *SEEDS.values()]
    ours = [image_checks._read_plain_jpeg(content) for content in contents]
    assert ours[0] is not None and sum(header is not None for header in ours) > 2 * EXAMPLES
    for content, header in zip(contents, ours, strict=True):
        assert header is None or header == image_checks._read_header(content)


def test_large_and_long_pictures_are_no_bombs() -> None:
    def bomb_of(width: int, height: int) -> str:
        content = png(width, height)
        with Image.open(io.BytesIO(content)) as image:
            return find_bomb(image, content)

    assert bomb_of(10_000, 10_000) == ""
    assert bomb_of(40, 40_000) == ""
    assert "one side is more than 1,000 times the other" in bomb_of(40, 40_001)
    assert "more than 100,000,000" in bomb_of(10_001, 10_000)


def test_an_ordinary_progressive_jpeg_is_no_bomb() -> None:
    content = SEEDS["jpeg, progressive"]
    assert 1 < content.count(b"\xff\xda") < MOST_SCANS
    assert check_image(content).status is Status.READABLE


def test_bytes_behind_the_end_of_a_png_are_no_chunks() -> None:
    assert not png_declares_too_much(SEEDS["png"] + b"\xff" * 40)
    assert png_declares_too_much(SEEDS["png"][:-20])
