"""Small honest images of every format, and what a hostile hand makes of their headers; run: checks them all, measured.

As a program (CHECKER EXAMPLES): prints the number of images that could be read and could not, how many MiB the peak of
memory grew by, and the longest processor time of one image in seconds.
"""

from __future__ import annotations

import io
import random
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

#: Numbers that headers are not prepared for.
NUMBERS = (0, 1, 2, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 30000, 12000)


def seeds() -> dict[str, bytes]:
    """Return honest images of 40 x 30 pixels: format and variant to file."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    image = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    exif.get_ifd(0x8769)[0x9003] = "2024:01:01 00:00:00"
    frames = [Image.fromarray(np.roll(noise, step, 0)) for step in range(3)]
    variants: dict[str, tuple[Image.Image, str, dict]] = {
        "jpeg": (image, "JPEG", {"exif": exif}),
        "jpeg, plain": (image, "JPEG", {}),
        "jpeg, progressive": (image, "JPEG", {"progressive": True}),
        "jpeg, cmyk": (image.convert("CMYK"), "JPEG", {}),
        "png": (image, "PNG", {"exif": exif}),
        "png, palette": (image.quantize(16), "PNG", {"transparency": 0}),
        "png, 16 bit": (Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG", {}),
        "png, animated": (image, "PNG", {"save_all": True, "append_images": frames}),
        "gif": (image.quantize(16), "GIF", {}),
        "gif, animated": (image, "GIF", {"save_all": True, "append_images": frames}),
        "bmp": (image, "BMP", {}),
        "bmp, palette": (image.quantize(16), "BMP", {}),
        "tiff": (image, "TIFF", {"exif": exif}),
        "tiff, lzw": (image, "TIFF", {"compression": "tiff_lzw"}),
        "tiff, jpeg": (image, "TIFF", {"compression": "jpeg"}),
        "webp": (image, "WEBP", {"exif": exif}),
        "webp, lossless": (image.convert("RGBA"), "WEBP", {"lossless": True}),
        "webp, animated": (image, "WEBP", {"save_all": True, "append_images": frames}),
        "ppm": (image, "PPM", {}),
        "pgm": (image.convert("L"), "PPM", {}),
    }
    made = {}
    for name, (picture, kind, options) in variants.items():
        file = io.BytesIO()
        picture.save(file, kind, **options)
        made[name] = file.getvalue()
    return made


def bombs() -> dict[str, bytes]:
    """Return small files that take gigabytes or minutes to decode, by what is wrong with them."""
    return {
        "900 million pixels": png(30000, 30000),
        "1 x 99,999,999 pixels": png(1, 99_999_999),
        "1 x 65,000 pixels, whole": png(1, 65_000, data=bytes(4 * 65_000)),
        "a chunk of 4 GB": png(40, 30, chunk=struct.pack(">L", 0xFFFFFFF0) + b"tEXtabc"),
        "tiles of 1 GB": _tiff_of_tiles(32768),
        "500 scans": _jpeg_of_scans(9000, 500),
    }


def png(width: int, height: int, data: bytes = bytes(1000), chunk: bytes = b"") -> bytes:
    """Return a PNG in RGB that declares this size and holds *data*; *chunk* stands before them."""

    def piece(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))

    header = piece(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk + piece(b"IDAT", zlib.compress(data)) + piece(b"IEND", b"")


def _jpeg_of_scans(size: int, count: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", progressive=True, subsampling=0)
    data = bytearray(file.getvalue())
    frame, end, last = data.index(b"\xff\xc2"), data.rindex(b"\xff\xd9"), data.rindex(b"\xff\xda")
    data[frame + 5 : frame + 9] = struct.pack(">HH", size, size)
    return bytes(data[:end] + data[last:end] * count + b"\xff\xd9")


def _tiff_of_tiles(size: int) -> bytes:
    """Return a TIFF of 40 x 30 pixels, LZW, in one tile of *size* x *size*."""
    values = {256: 40, 257: 30, 258: 8, 259: 5, 262: 1, 277: 1, 322: size, 323: size - 16, 324: 300, 325: 5000}
    tags = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in values.items())
    return b"II*\0" + struct.pack("<LH", 8, len(values)) + tags + bytes(4) + b"\x07" * 5000


def mutate(data: bytes, choose: random.Random) -> bytes:
    """Return *data* with a few numbers, lengths or bytes of its header changed; sums of PNG chunks fit again."""
    changed = bytearray(data)
    header = max(64, len(changed) // 8)
    for _ in range(choose.randint(1, 4)):
        offset = choose.randrange(min(header, len(changed)) if choose.random() < 0.8 else len(changed))
        order = choose.choice("<>")
        match choose.randrange(7):
            case 0:
                changed[offset] = choose.randrange(256)
            case 1:
                changed[offset : offset + 2] = struct.pack(order + "H", choose.choice(NUMBERS) & 0xFFFF)
            case 2:
                changed[offset : offset + 4] = struct.pack(order + "L", choose.choice(NUMBERS))
            case 3:
                del changed[offset : offset + choose.randint(1, 12)]
            case 4:
                changed[offset:offset] = changed[offset : offset + choose.randint(1, 64)]
            case 5:
                del changed[max(offset, 16) :]
            case 6:
                changed[offset] ^= 1 << choose.randrange(8)
        if not changed:
            return b"\0"
    return with_sums(bytes(changed)) if data[:4] == b"\x89PNG" and choose.random() < 0.8 else bytes(changed)


def with_sums(png: bytes) -> bytes:
    """Return a PNG with the check sums of its chunks as they should be."""
    fixed, offset = bytearray(png), 8
    while offset + 12 <= len(fixed):
        end = offset + 8 + int.from_bytes(fixed[offset : offset + 4], "big")
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = struct.pack(">L", zlib.crc32(fixed[offset + 4 : end]))
        offset = end + 4
    return bytes(fixed)


def checkers() -> dict[str, Callable[[bytes, Path], bool]]:
    """Return what looks at one image of a stranger: each tells whether it could be read, or raises what it should not.

    The path is for a file of its own.
    """
    return {"decode": _decodes, "thumbnail": _has_thumbnail, "audit": _passes_audit}


def _decodes(content: bytes, _: Path) -> bool:
    from scripts.lib.data.pixel_cache_writer import decode

    try:
        return decode(content, 24).shape[2] == 3
    except ValueError:
        return False


def _has_thumbnail(content: bytes, path: Path) -> bool:
    from scripts.lib.base.problems import UserError
    from scripts.lib.pages.thumbnails import thumbnail

    path.write_bytes(content)
    try:
        return max(thumbnail(path, 32).size) <= 32
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return False


def _passes_audit(content: bytes, _: Path) -> bool:
    from scripts.lib.data.image_checks import Status, check_image

    checked = check_image(content)
    assert len(checked.detail.encode()) <= 120 and "\n" not in checked.detail
    return checked.status is Status.READABLE


def _peak() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) / 1024


def measure(checker: str, examples: int, path: Path) -> None:
    """Check *examples* mutations of each seed; print what the module says."""
    warnings.simplefilter("ignore")
    check = checkers()[checker]
    honest = seeds()
    assert all(check(data, path) for name, data in honest.items()), "an honest image is refused"
    before, longest, counts = _peak(), (0.0, ""), [0, 0]
    for name, data in bombs().items():
        began = time.process_time()
        assert not check(data, path), f"{name} is read"
        assert time.process_time() - began < 1, f"{name} takes {time.process_time() - began:.1f} s"
        assert _peak() - before < 300, f"{name} takes {_peak() - before:.0f} MiB"
    for name, data in honest.items():
        choose = random.Random(name)
        for _ in range(examples):
            content = mutate(data, choose)
            began = time.process_time()
            try:
                counts[check(content, path)] += 1
            except BaseException:
                path.with_suffix(".failed").write_bytes(content)
                raise
            longest = max(longest, (time.process_time() - began, name))
    print(counts[1], counts[0], _peak() - before, longest[0])


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
