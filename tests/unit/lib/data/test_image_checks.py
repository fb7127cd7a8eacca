"""One file's bytes: what the trainer cannot read never passes, what it can read is never set aside."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from planted_images import encoded, many_pixels, photograph, turned

from scripts.lib.data.image_checks import Oddity, Status, check_image, jpeg_is_whole

PICTURE = photograph(1)
WHOLE = {
    "jpeg": encoded(PICTURE),
    "progressive": encoded(PICTURE, progressive=True),
    "png": encoded(PICTURE, "PNG"),
    "webp": encoded(PICTURE, "WEBP"),
    "bmp": encoded(PICTURE, "BMP"),
    "gif": encoded(PICTURE, "GIF"),
    "tiff": encoded(PICTURE, "TIFF"),
    "lzw": encoded(PICTURE, "TIFF", compression="tiff_lzw"),
    "ppm": encoded(PICTURE, "PPM"),
}


def with_thumbnail() -> bytes:
    """Return a JPEG with a whole JPEG in its EXIF data, as cameras write it."""
    exif = b"Exif\0\0" + encoded(photograph(2, (40, 32)))
    return WHOLE["jpeg"][:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + WHOLE["jpeg"][2:]


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_image_has_nothing_to_say(name: str) -> None:
    checked = check_image(WHOLE[name])
    assert (checked.status, checked.oddities, checked.detail) == (Status.READABLE, Oddity(0), "")
    assert (checked.width, checked.height) == PICTURE.size


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_file_cut_short_is_truncated(name: str, share: float) -> None:
    checked = check_image(WHOLE[name][: int(share * len(WHOLE[name]))])
    assert checked.status is Status.TRUNCATED, checked
    assert checked.detail


@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "webp", "gif"])
def test_a_download_padded_with_zeros_is_truncated(name: str) -> None:
    half = len(WHOLE[name]) // 2
    assert check_image(WHOLE[name][:half] + bytes(len(WHOLE[name]) - half)).status is Status.TRUNCATED


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture() -> None:
    whole = with_thumbnail()
    assert check_image(whole).status is Status.READABLE
    assert not jpeg_is_whole(whole[:-2])
    assert check_image(whole[: -len(WHOLE["jpeg"]) // 2]).status is Status.TRUNCATED


@pytest.mark.parametrize("behind", [b"\0" * 64, b"\xff\xda and a film behind the picture, as telephones write it"])
def test_what_lies_behind_the_end_does_no_harm(behind: bytes) -> None:
    assert check_image(WHOLE["jpeg"] + behind).status is Status.READABLE


def png_chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def test_a_png_with_a_wrong_checksum_is_unreadable() -> None:
    offset = WHOLE["png"].index(b"IDAT")
    length = int.from_bytes(WHOLE["png"][offset - 4 : offset], "big")
    damaged = bytearray(WHOLE["png"])
    damaged[offset + 4 + length] ^= 1
    checked = check_image(bytes(damaged))
    assert checked.status is Status.UNREADABLE
    assert checked.detail


def test_a_png_with_too_few_pixels_is_set_aside() -> None:
    offset = WHOLE["png"].index(b"IDAT")
    length = int.from_bytes(WHOLE["png"][offset - 4 : offset], "big")
    pixels = zlib.decompress(WHOLE["png"][offset + 4 : offset + 4 + length])
    few = png_chunk(b"IDAT", zlib.compress(pixels[: len(pixels) // 2]))
    content = WHOLE["png"][: offset - 4] + few + WHOLE["png"][-12:]
    assert check_image(content).status in (Status.TRUNCATED, Status.UNREADABLE)


@pytest.mark.parametrize(
    "content", [b"", b"<html>404 not found</html>", bytes(5000), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\x00\x10JFIF"]
)
def test_what_is_no_image_is_set_aside_with_a_reason(content: bytes) -> None:
    checked = check_image(content)
    assert checked.status in (Status.UNREADABLE, Status.TRUNCATED)
    assert checked.detail
    assert "0x" not in checked.detail  # Pillow names the address of its buffer: the same bytes must say the same


def test_what_only_pillow_reads_is_unreadable() -> None:
    floats = Image.fromarray(np.asarray(PICTURE.convert("L"), np.float32))
    content = encoded(floats, "TIFF")
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is None
    assert check_image(content).status is Status.UNREADABLE


def test_a_decompression_bomb_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = many_pixels(12_000, 9_000)

    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    checked = check_image(content)
    assert checked.status is Status.TOO_MANY_PIXELS
    assert "12000 x 9000" in checked.detail


def frames(kind: str) -> bytes:
    return encoded(PICTURE, kind, save_all=True, append_images=[photograph(2), photograph(3)])


GREY16 = Image.fromarray(np.asarray(PICTURE.convert("L"), np.uint16) * 257)
ODD = {
    "animated gif": (frames("GIF"), Oddity.ANIMATED),
    "animated webp": (frames("WEBP"), Oddity.ANIMATED),
    "animated png": (frames("PNG"), Oddity.ANIMATED),
    "pages": (frames("TIFF"), Oddity.ANIMATED),
    "cmyk jpeg": (encoded(PICTURE.convert("CMYK")), Oddity.CMYK),
    "cmyk tiff": (encoded(PICTURE.convert("CMYK"), "TIFF"), Oddity.CMYK),
    "grey of 16 bits": (encoded(GREY16, "PNG"), Oddity.SIXTEEN_BIT),
    "tiff of 16 bits": (encoded(GREY16, "TIFF"), Oddity.SIXTEEN_BIT),
    "pgm of 16 bits": (encoded(GREY16, "PPM"), Oddity.SIXTEEN_BIT),
    "colours of 16 bits": (
        cv2.imencode(".png", np.asarray(PICTURE, np.uint16) * 257)[1].tobytes(),
        Oddity.SIXTEEN_BIT,
    ),
    "alpha": (encoded(PICTURE.convert("RGBA"), "PNG"), Oddity.ALPHA),
    "alpha and grey": (encoded(PICTURE.convert("LA"), "PNG"), Oddity.ALPHA),
    "palette": (encoded(PICTURE.quantize(64), "PNG"), Oddity.PALETTE),
    "white": (encoded(Image.new("RGB", (90, 90), "white")), Oddity.BLANK),
    "nearly black": (
        encoded(Image.fromarray(np.random.default_rng(0).integers(0, 4, (90, 90, 3), dtype=np.uint8)), "PNG"),
        Oddity.BLANK,
    ),
    "one bit": (encoded(PICTURE.convert("1"), "PNG"), Oddity(0)),
    "grey": (encoded(PICTURE.convert("L")), Oddity(0)),
    "a small mark on white": (
        encoded(ImageOps.expand(Image.new("RGB", (12, 12)), 60, "white"), "PNG"),
        Oddity(0),
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_oddities_are_named_and_nothing_else(name: str) -> None:
    content, expected = ODD[name]
    checked = check_image(content)
    assert (checked.status, checked.oddities) == (Status.READABLE, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_thumbnail_is_turned_as_training_turns_the_picture(orientation: int) -> None:
    content = turned(PICTURE, orientation)
    checked = check_image(content)
    assert checked.orientation == orientation
    seen = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    upright = check_image(cv2.imencode(".png", seen)[1].tobytes())
    difference = np.frombuffer(checked.grey, np.uint8).astype(int) - np.frombuffer(upright.grey, np.uint8)
    assert np.abs(difference).max() <= 3
    assert (checked.width, checked.height) == PICTURE.size


@pytest.mark.parametrize("size", [(640, 480), (1301, 997), (161, 2000), (319, 317)])
def test_a_jpeg_decoded_at_a_fraction_has_the_thumbnail_of_the_whole(size: tuple[int, int]) -> None:
    picture = photograph(4, size)
    jpeg, png = check_image(encoded(picture, quality=95)), check_image(encoded(picture, "PNG"))
    difference = np.frombuffer(jpeg.grey, np.uint8).astype(int) - np.frombuffer(png.grey, np.uint8)
    assert np.abs(difference).max() <= 4
