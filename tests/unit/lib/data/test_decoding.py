"""The same file gives the same pixels: by every reader, and with the decoders of every environment."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path

import numpy as np
import picture_formats
import pytest
from decoding_environments import LOCKS, hashes_by, python_of
from PIL import Image, ImageOps

from scripts.lib.data.decoding import Undecodable, decode_image, describe_unidentified
from scripts.lib.data.image_checks import Oddity, Status, check_image
from scripts.lib.data.pixel_cache_writer import decode
from scripts.lib.data.reading import Reading, colour
from scripts.lib.model.config_patches import load_step
from scripts.lib.pages.thumbnails import thumbnail
from scripts.lib.runs.onnx_model import BGR, INSIDE, Preprocessing

LOSSLESS, OTHERS, TRANSPARENT = picture_formats.lossless(), picture_formats.others(), picture_formats.transparent()
FILES = LOSSLESS | OTHERS | {f"transparent {name}": content for name, (content, _, _) in TRANSPARENT.items()}
COLOURS = {"white": (255, 255, 255), "grey": (128, 128, 128), "#30c0f0": (0x30, 0xC0, 0xF0)}


@pytest.mark.parametrize("name", LOSSLESS)
def test_every_lossless_format_gives_the_pixels_that_were_saved(name: str) -> None:
    image = Image.fromarray(picture_formats.picture())
    if " turned " in name:
        image.getexif()[0x0112] = int(name[-1])
        ImageOps.exif_transpose(image, in_place=True)
    np.testing.assert_array_equal(decode_image(LOSSLESS[name])[..., ::-1], np.asarray(image))


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_format_looks_like_the_picture(name: str) -> None:
    decoded = decode_image(OTHERS[name])
    assert decoded.dtype == np.uint8 and decoded.ndim == 3
    if name != "tiff 12" and "turned" not in name:
        mean = picture_formats.picture().mean()
        assert decoded.shape == (picture_formats.HEIGHT, picture_formats.WIDTH, 3) and abs(decoded.mean() - mean) < 15


@pytest.mark.parametrize("background", COLOURS)
@pytest.mark.parametrize("name", TRANSPARENT)
def test_a_background_shows_through_what_is_transparent(name: str, background: str) -> None:
    content, pixels, shows = TRANSPARENT[name]
    reading = Reading(background=colour(background))
    expected = picture_formats.on_background(pixels, shows, COLOURS[background])
    decoded = decode_image(content, reading=reading)
    lost = 1 if name == "jp2 16" else 0  # OpenCV writes it with losses
    np.testing.assert_allclose(decoded[..., ::-1].astype(int), expected.astype(int), rtol=0, atol=lost)
    grey = decode_image(content, grey=True, reading=reading)
    np.testing.assert_allclose(grey, np.asarray(Image.fromarray(expected).convert("L")), rtol=0, atol=1 + lost)
    short_side = min(expected.shape[:2])
    np.testing.assert_array_equal(decode(content, short_side, reading), decoded)
    assert Oddity.ALPHA in check_image(content).oddities


@pytest.mark.parametrize("exif", [b"II*\0\x08\0\0\0\x01\0", b"II*\0" + b"\xff" * 40, b"", b"nonsense"])
def test_a_deep_transparent_png_whose_turn_is_nonsense_is_no_crash(exif: bytes) -> None:
    content, pixels, shows = TRANSPARENT["png 16"]
    broken = picture_formats.with_chunk(content, picture_formats.chunk(b"eXIf", exif))
    expected = picture_formats.on_background(pixels, shows, (255, 255, 255))
    np.testing.assert_array_equal(decode_image(broken)[..., ::-1], expected)


@pytest.mark.parametrize(
    "exif", [b"nonsense" * 9, b"", b"II*\0" + b"\xff" * 40, b"Exif\0\0MM\0*" + bytes(9), b"\xff\xd8\xff"]
)
@pytest.mark.parametrize("name", ["WEBP", "AVIF", "PNG", "JPEG", "TIFF"])
def test_damaged_exif_data_do_not_make_a_picture_unreadable(name: str, exif: bytes) -> None:
    image, plain, stream = Image.fromarray(picture_formats.picture()), io.BytesIO(), io.BytesIO()
    image.save(plain, name)
    try:
        image.save(stream, name, exif=exif)
    except Exception:  # as here, some formats take no nonsense
        stream = plain
    checked = check_image(stream.getvalue())
    assert (checked.status, checked.detail, checked.orientation) == (Status.READABLE, "", 1)
    np.testing.assert_array_equal(decode_image(stream.getvalue()), decode_image(plain.getvalue()))


def test_what_is_hidden_is_not_judged() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    silhouette = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    silhouette.paste((0, 0, 0, 255), (16, 16, 48, 48))
    hidden = noise.copy()
    hidden.putalpha(0)

    def is_blank(image: Image.Image, background: str = "white") -> bool:
        reading = Reading(background=colour(background))
        return Oddity.BLANK in check_image(picture_formats.encode(image, "PNG"), reading=reading).oddities

    assert not is_blank(noise) and is_blank(hidden)
    assert not is_blank(silhouette) and is_blank(silhouette, "black")


@pytest.mark.parametrize("text", ["no colour", "#12", "", "rgba(1,2,3,0.5)", "#ff000080"])
def test_what_is_no_opaque_colour_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        colour(text)


@pytest.mark.parametrize("name", FILES)
def test_all_readers_see_the_same_pixels(name: str, tmp_path: Path) -> None:
    from mmcls.datasets.builder import PIPELINES

    import scripts.mmcls_plugins  # noqa: F401

    content, expected = FILES[name], decode_image(FILES[name])
    (tmp_path / "picture").write_bytes(content)
    load = PIPELINES.build(load_step())
    loaded = load({"img_prefix": str(tmp_path), "img_info": {"filename": "picture"}})["img"]
    np.testing.assert_array_equal(loaded, expected)
    np.testing.assert_array_equal(decode(content, min(expected.shape[:2])), expected)
    prepared = Preprocessing([], [0.0] * 3, [1.0] * 3, BGR, INSIDE).prepare(content)
    np.testing.assert_array_equal(prepared, expected)
    assert check_image(content).status is Status.READABLE
    if name not in ("tiff 12", "pgm 12"):  # a page shows the bits that are used
        np.testing.assert_array_equal(np.asarray(thumbnail(tmp_path / "picture", 100)), expected[..., ::-1])


@pytest.mark.long
@pytest.mark.parametrize("lock", LOCKS)
def test_the_decoders_of_each_environment_give_the_same_pixels(lock: str, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name, content in FILES.items():
        (tmp_path / "files" / name).write_bytes(content)
    here = {}
    for name, content in FILES.items():
        here[name] = hashlib.sha256(decode_image(content).tobytes()).hexdigest()
    there = hashes_by(python_of(lock, tmp_path / "venv"), tmp_path / "files")
    assert {name: there[f"{name} False"] for name in here} == here
    assert there == hashes_by(sys.executable, tmp_path / "files")


# --- what is no fault of the picture ----------------------------------------------------------------------------------

PNG = LOSSLESS["png"]
LARGE = picture_formats.zlib.compress(b"a" * 3_000_000)
HARMLESS = {
    "a large compressed text": picture_formats.chunk(b"zTXt", b"x\0\0" + LARGE),
    "a large profile": picture_formats.chunk(b"iCCP", b"x\0\0" + LARGE),
    "a large international text": picture_formats.chunk(b"iTXt", b"x\0\1\0\0\0" + LARGE),
    "many texts": b"".join(picture_formats.chunk(b"zTXt", b"x\0\0" + LARGE[:2900]) for _ in range(99)),
    "a text with a wrong check sum": picture_formats.chunk(b"tEXt", b"x\0hello", damage=1),
    "a time with a wrong check sum": picture_formats.chunk(b"tIME", bytes(7), damage=1),
    "a turn with a wrong check sum": picture_formats.chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0", damage=1),
    "a chunk that nobody knows": picture_formats.chunk(b"niCe", b"\xff" * 9, damage=7),
}


@pytest.mark.parametrize("added", HARMLESS.values(), ids=list(HARMLESS))
def test_a_png_is_read_whatever_its_unimportant_chunks_hold(added: bytes, tmp_path: Path) -> None:
    content = picture_formats.with_chunk(PNG, added)
    checked = check_image(content)
    assert (checked.status, checked.detail, checked.width) == (Status.READABLE, "", picture_formats.WIDTH)
    np.testing.assert_array_equal(decode_image(content), decode_image(PNG))
    np.testing.assert_array_equal(decode(content, picture_formats.HEIGHT), decode_image(PNG))


def encoded(name: str) -> bytes:
    return picture_formats.encode(Image.fromarray(picture_formats.picture()), name)


def with_segment(number: int, data: bytes, length: int | None = None) -> bytes:
    """Return a JPEG with a segment APPn after its start; *length* is what the segment says of itself."""
    jpeg = encoded("JPEG")
    size = len(data) + 2 if length is None else length
    return jpeg[:2] + bytes([0xFF, 0xE0 + number]) + size.to_bytes(2, "big") + data + jpeg[2:]


ODD = {
    "jpeg: a segment of length 0": ("JPEG", with_segment(2, b"", 0)),
    "jpeg: a part of a profile": ("JPEG", with_segment(2, b"ICC_PROFILE\0\x01\x03" + bytes(100))),
    "jpeg: large exif": ("JPEG", with_segment(1, b"Exif\0\0II*\0\x08\0\0\0" + bytes(60_000))),
    "jpeg: exif cut short": ("JPEG", with_segment(1, b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12")),
    "jpeg: a list of pictures cut short": ("JPEG", with_segment(2, b"MPF\0II*\0\x08\0\0\0\xff\xff")),
    "jpeg: another behind it": ("JPEG", encoded("JPEG") * 2),
    "png: a wrong check sum of the end": ("PNG", encoded("PNG")[:-4] + bytes(4)),
    "png: bytes behind it": ("PNG", encoded("PNG") + b"x" * 999),
    "webp: bytes behind it": ("WEBP", encoded("WEBP") + b"junk"),
    "gif: no trailer": ("GIF", encoded("GIF")[:-1]),
    "gif: a comment cut short": ("GIF", encoded("GIF")[:-1] + b"\x21\xfe\xff"),
    "tiff: bytes behind it": ("TIFF", encoded("TIFF") + b"junk"),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_around_the_pixels_changes_none(odd: str) -> None:
    name, content = ODD[odd]
    assert (check_image(content).status, check_image(content).detail) == (Status.READABLE, "")
    np.testing.assert_array_equal(decode_image(content), decode_image(encoded(name)))


# --- files that are no such pictures ----------------------------------------------------------------------------------

STRANGE = {
    "13 bands": (picture_formats.tiff(13, 8), "a TIFF of 13 bands"),
    "floating point": (picture_formats.tiff(1, 32, 3), "a TIFF of 32-bit floating-point numbers"),
    "three of floating point": (picture_formats.tiff(3, 32, 3), "a TIFF of 32-bit floating-point numbers"),
    "signs": (picture_formats.tiff(1, 16, 2), "a TIFF of 16-bit signed integers"),
    "long integers": (picture_formats.tiff(1, 32), "a TIFF of 32-bit unsigned integers"),
    "white is 0": (picture_formats.tiff(1, 16, colours=0), "a TIFF of 16 bits, grey of which 0 is white: convert it"),
    "deep cmyk": (picture_formats.tiff(4, 16, colours=5), "a TIFF of 16 bits, CMYK: convert it to RGB"),
    "planes": (picture_formats.tiff(3, 16, planar=2), "a TIFF of 16 bits, 3 planes"),
    "grey and alpha": (picture_formats.tiff(2, 16), "a TIFF of 16 bits, 2 planes"),
    "deep lab": (picture_formats.tiff(3, 16, colours=8), "CIELAB"),
    "pam": (b"P7\nWIDTH 4\n", "PAM, which mimflow does not read"),
    "pfm": (b"PF\n4 4\n-1.0\n", "PFM"),
    "sgi": (b"\x01\xda\x01\x01\0\x03", "SGI"),
    "nifti": (bytes(344) + b"n+1\0", "NIfTI"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer"),
    "git annex": (b"/annex/objects/SHA256E-s9--00.jpg\n", "a git-annex pointer"),
    "a web page": (b"\n<!DOCTYPE html>\n<html>", "a web page"),
    "a web page with a mark": (b"\xef\xbb\xbf<!doctype html>", "a web page"),
    "a link as a text": (b"../../images/a b.JPG", "a symbolic link that became a text"),
    "base64": (b"/9j/4AAQSkZJRgABAQ==", "a picture written as text: decode it"),
    "base64 for a browser": (b"data:image/png;base64,iVBORw0KGgo", "a picture written as text"),
    "of macos": (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "what macOS keeps beside a file"),
    "targa": (b"\0\0\x02" + bytes(99) + b"TRUEVISION-XFILE.\0", "Targa, which mimflow does not read"),
    "an answer": (b'{"message": "Not Found"}', "a JSON text"),
    "settings of windows": (b"[.ShellClassInfo]\r\nIconResource=x", "a text, not a picture"),
    "an answer in chinese": ("拒绝访问".encode(), "a text, not a picture"),
    "an answer in windows-1252": ("Zugriff verweigert: Größe".encode("cp1252"), "a text, not a picture"),
    "an answer in utf-16": ("no".encode("utf-16"), "a text, not a picture"),
    "a part of a page": (b"<p>not here</p>", "an XML file, as servers may answer in place of a file, not a picture"),
    "bzip2": (b"BZh91AY&SY" + bytes(30), "compressed data, not a picture"),
    "zstandard": (b"\x28\xb5\x2f\xfd" + bytes(30), "compressed data, not a picture"),
    "a document": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(30), "an old document of Office"),
    "a program": (b"\x7fELF\2\1\1" + bytes(30), "a program, not a picture"),
    "an archive": (b"PK\x03\x04\x14\0", "a zip archive"),
    "nothing": (b"", "the file is empty"),
    "zeros": (bytes(999), "nothing but zeros"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, which mimflow does not read: convert to JPEG"),
    "heif": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix", "HEIC"),
    "a film": (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "video"),
    "svg": (b'<?xml version="1.0"?>\n<!-- a -->\n<svg xmlns="x">', "SVG"),
    "pdf": (b"%PDF-1.7\n", "PDF"),
    "photoshop": (b"8BPS\0\1", "Photoshop"),
    "truncated png": (PNG[:300], "the data end before the end of the PNG"),
    "truncated avif": (OTHERS["avif"][:300], "AVIF"),
    "truncated jp2": (LOSSLESS["jp2"][:300], "broken data stream"),
    "truncated bmp": (LOSSLESS["bmp"][:900], "truncated"),
}


@pytest.mark.parametrize(("content", "reason"), STRANGE.values(), ids=list(STRANGE))
def test_what_lies_in_place_of_a_picture_is_said(content: bytes, reason: str) -> None:
    checked = check_image(content)
    assert checked.status in (Status.UNREADABLE, Status.TRUNCATED) and reason in checked.detail
    with pytest.raises(Undecodable):
        decode_image(content)


@pytest.mark.parametrize("name", LOSSLESS | OTHERS)
def test_a_picture_of_damaged_header_is_a_damaged_picture_and_nothing_else(name: str) -> None:
    whole = (LOSSLESS | OTHERS)[name]
    for content in (whole[:12], whole[:40], whole[:12] + b"\xa5" * 50 + whole[62:]):
        assert "not a picture" not in describe_unidentified(content)
        try:
            decode_image(content)
        except Undecodable as error:
            assert str(error) and "not a picture" not in str(error)


# --- bits that are used -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".ppm"])
def test_12_bits_in_16_are_scaled_by_the_same_rule_in_every_format(suffix: str) -> None:
    colours, grey = picture_formats.deep()
    pixels = (grey if suffix == ".pgm" else colours) >> 4
    content = picture_formats.encode_deep(pixels, suffix)
    expected = np.broadcast_to((pixels >> 4).reshape(*pixels.shape[:2], -1), colours.shape)
    np.testing.assert_array_equal(decode_image(content, reading=Reading(12)), expected)
    assert decode_image(content).max() < 16, "as 16 bits it is nearly black"
    assert check_image(content).peak == pixels.max()
    assert decode_image(content, reading=Reading(10)).max() == 255, "what is larger becomes white"


def test_a_file_that_says_its_bits_is_scaled_by_them() -> None:
    for name in ("pgm 12", "pgm 4", "tiff 12"):
        np.testing.assert_array_equal(decode_image(FILES[name], reading=Reading(9)), decode_image(FILES[name]))
        assert decode_image(FILES[name]).max() > 200 or name == "tiff 12"
        assert check_image(FILES[name]).peak == 0


def test_a_page_shows_the_bits_that_are_used(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture_formats.encode_deep(picture_formats.deep()[0] >> 6, ".png"))
    assert np.asarray(thumbnail(tmp_path / "a.png", 100)).mean() > 100


def test_a_jpeg_comes_at_a_fraction_of_its_size() -> None:
    large = io.BytesIO()
    Image.fromarray(picture_formats.picture()).resize((640, 480)).save(large, "JPEG")
    assert [decode_image(large.getvalue(), factor=factor).shape[0] for factor in (2, 4, 8)] == [240, 120, 60]
