"""One picture in every format and kind that is documented as read, as the bytes of files."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 83, 61


def picture() -> np.ndarray:
    """Return the picture: uint8 (height, width, 3), red first."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return cv2.add(smooth, generator.integers(0, 16, smooth.shape, dtype=np.uint8))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return *image* as a file in a format of Pillow's."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encode_deep(pixels: np.ndarray, suffix: str) -> bytes:
    """Return uint16 *pixels*, blue first, as a file of 16 bits a channel."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


def chunk(kind: bytes, data: bytes, damage: int = 0) -> bytes:
    """Return a chunk of a PNG, its check sum wrong where *damage* is not 0."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ damage)


def with_chunk(png: bytes, added: bytes) -> bytes:
    """Return a PNG with a chunk behind its header."""
    return png[:33] + added + png[33:]


def tiff(bands: int, bits: int, kind: int = 1, data: bytes = b"", colours: int | None = None, planar: int = 1) -> bytes:
    """Return an uncompressed TIFF of 4 x 4 pixels; *kind*, *colours* and *planar* as in its tags 339, 262 and 284."""
    data = data or bytes(2 * bands * bits)
    shorts = {258: [bits] * bands, 339: [kind] * bands}
    behind, directory, start = b"", b"", 8 + 2 + 11 * 12 + 4
    for tag, values in sorted(({256: [4], 257: [4], 259: [1], 284: [planar],
                                262: [(1 if bands < 3 else 2) if colours is None else colours], 277: [bands], 278: [4],
                                273: [], 279: []} | shorts).items()):  # fmt: skip
        if tag in (273, 279):  # where the pixels are, and how many bytes they take
            value = start + 2 * len(shorts) * bands * (bands > 2) if tag == 273 else len(data)
            directory += struct.pack("<HHII", tag, 4, 1, value)
            continue
        data_of_tag = struct.pack(f"<{len(values)}H", *values)
        if len(data_of_tag) > 4:
            data_of_tag, behind = struct.pack("<I", start + len(behind)), behind + data_of_tag
        directory += struct.pack("<HHI", tag, 3, len(values)) + data_of_tag.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<IH", 8, 11) + directory + bytes(4) + behind + data


def deep() -> tuple[np.ndarray, np.ndarray]:
    """Return the picture with 16 bits a channel, blue first, and its grey version."""
    colours = picture()[..., ::-1].astype(np.uint16) * 257
    return colours, np.ascontiguousarray(colours[..., 1])


def lossless() -> dict[str, bytes]:
    """Return the files that hold the picture's own pixels; those whose names end in a digit are turned by EXIF data."""
    image = Image.fromarray(picture())
    colours, _ = deep()
    files = {
        "png": encode(image, "PNG"), "png interlaced": cv2.imencode(".png", picture()[..., ::-1])[1].tobytes(),
        "png 16": encode_deep(colours, ".png"),
        "png animated": encode(image, "PNG", save_all=True, append_images=[image.rotate(9)]),
        "bmp": encode(image, "BMP"), "ppm": encode(image, "PPM"), "ppm 16": encode_deep(colours, ".ppm"),
        "tiff": encode(image, "TIFF"), "tiff lzw": encode(image, "TIFF", compression="tiff_lzw"),
        "tiff 16": encode_deep(colours, ".tif"),
        "webp": encode(image, "WEBP", lossless=True), "jp2": encode(image, "JPEG2000"),
        "j2k": encode(image, "JPEG2000", no_jp2=True),
    }  # fmt: skip
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("PNG", "TIFF", "WEBP"):
            options = {"lossless": True} if kind == "WEBP" else {}
            files[f"{kind.lower()} turned {orientation}"] = encode(image, kind, exif=exif, **options)
    return files


def alpha() -> np.ndarray:
    """Return how much of the picture shows: uint8 (height, width), nothing at the top, all of it at the bottom."""
    return np.asarray(Image.linear_gradient("L").resize((WIDTH, HEIGHT)))


def on_background(pixels: np.ndarray, shows: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """Return *pixels*, red first, over a colour, in exact arithmetic: uint8 (height, width, 3)."""
    share = shows[..., None].astype(np.float64) / 255
    return np.rint(pixels * share + np.array(background) * (1 - share)).astype(np.uint8)


def transparent() -> dict[str, tuple[bytes, np.ndarray, np.ndarray]]:
    """Return files through which a background shows, the pixels, red first, that each holds, and how much they show."""
    image, shows = Image.fromarray(picture()), alpha()
    colours, grey16 = deep()
    whole, grey = image.copy(), image.convert("L")
    whole.putalpha(Image.fromarray(shows))
    grey_whole, grey_pixels = Image.merge("LA", (grey, Image.fromarray(shows))), np.asarray(grey.convert("RGB"))
    deep_whole = np.dstack([colours, shows.astype(np.uint16) * 257])
    palette = image.quantize(64)
    listed, index = np.asarray(palette.convert("RGB")), np.asarray(palette)
    red, level = picture()[0, 0].tolist(), int(np.asarray(grey)[0, 0])
    one_colour = np.where((picture() == red).all(2), 0, 255).astype(np.uint8)
    one_level = np.where(np.asarray(grey) == level, 0, 255).astype(np.uint8)
    deep_grey = np.repeat((grey16 >> 8).astype(np.uint8)[..., None], 3, 2)
    level16 = int(grey16[0, 0])
    one_level16 = np.where(grey16 == level16, 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = picture()
    return {
        "png": (encode(whole, "PNG"), pixels, shows), "png grey": (encode(grey_whole, "PNG"), grey_pixels, shows),
        "png palette": (encode(palette, "PNG", transparency=3), listed, np.where(index == 3, 0, 255)),
        "png palette shares": (
            encode(palette, "PNG", transparency=bytes(range(0, 256, 4))), listed, index.astype(np.int64) * 4,
        ),
        "png colour": (encode(image, "PNG", transparency=tuple(red)), pixels, one_colour),
        "png level": (encode(grey, "PNG", transparency=level), grey_pixels, one_level),
        "png 16": (encode_deep(deep_whole, ".png"), pixels, shows),
        "png 16 colour": (
            with_chunk(encode_deep(colours, ".png"), chunk(b"tRNS", struct.pack(">3H", *colours[0, 0, ::-1]))),
            pixels, one_colour,
        ),
        "png 16 level": (
            with_chunk(encode_deep(grey16, ".png"), chunk(b"tRNS", struct.pack(">H", level16))), deep_grey, one_level16,
        ),
        "png turned": (encode(whole, "PNG", exif=exif), np.rot90(pixels, -1), np.rot90(shows, -1)),
        "tiff": (encode(whole, "TIFF"), pixels, shows), "tiff grey": (encode(grey_whole, "TIFF"), grey_pixels, shows),
        "tiff 16": (encode_deep(deep_whole, ".tif"), pixels, shows),
        "webp": (encode(whole, "WEBP", lossless=True, exact=True), pixels, shows),
        "jp2": (encode(whole, "JPEG2000"), pixels, shows), "jp2 16": (encode_deep(deep_whole, ".jp2"), pixels, shows),
        "gif": (encode(palette, "GIF", transparency=5), listed, np.where(index == 5, 0, 255)),
    }  # fmt: skip


def others() -> dict[str, bytes]:
    """Return files that lose some of the picture, or hold it in grey, in few colours or as ink."""
    image, (colours, grey16) = Image.fromarray(picture()), deep()
    grey, palette, ink, bits = image.convert("L"), image.quantize(64), image.convert("CMYK"), image.convert("1")
    files = {
        "jpeg": encode(image, "JPEG"), "jpeg progressive": encode(image, "JPEG", progressive=True),
        "jpeg grey": encode(grey, "JPEG"), "jpeg cmyk": encode(ink, "JPEG"),
        "jpeg rgb": encode(image, "JPEG", keep_rgb=True), "jpeg 4:4:4": encode(image, "JPEG", subsampling=0),
        "jpeg 4:2:2": encode(image, "JPEG", subsampling=1), "png grey": encode(grey, "PNG"),
        "png grey 16": encode_deep(grey16, ".png"), "png palette": encode(palette, "PNG"),
        "png 1": encode(bits, "PNG"), "gif": encode(image, "GIF"), "gif grey": encode(grey, "GIF"),
        "gif animated": encode(image, "GIF", save_all=True, append_images=[image.rotate(9)]),
        "webp lossy": encode(image, "WEBP"),
        "webp animated": encode(image, "WEBP", save_all=True, append_images=[grey]), "avif": encode(image, "AVIF"),
        "avif 4:4:4": encode(image, "AVIF", subsampling="4:4:4"), "tiff grey": encode(grey, "TIFF"),
        "tiff grey 16": encode_deep(grey16, ".tif"), "tiff cmyk": encode(ink, "TIFF"),
        "tiff palette": encode(palette, "TIFF"), "tiff 1": encode(bits, "TIFF"),
        "tiff jpeg": encode(image, "TIFF", compression="jpeg"),
        "tiff fax": encode(bits, "TIFF", compression="group4"), "tiff 12": tiff(1, 12, data=bytes(range(24))),
        "bmp palette": encode(palette, "BMP"), "bmp 1": encode(bits, "BMP"), "pgm": encode(grey, "PPM"),
        "pbm": encode(bits, "PPM"), "pgm 4": b"P5\n83 61\n15\n" + (np.asarray(grey) >> 4).tobytes(),
        "pgm 16": encode_deep(grey16, ".pgm"), "pgm 12": b"P5\n83 61\n4095\n" + (grey16 >> 4).astype(">u2").tobytes(),
        "jp2 lossy": encode(image, "JPEG2000", irreversible=True), "jp2 grey 16": encode_deep(grey16, ".jp2"),
        "jp2 16": encode_deep(colours, ".jp2"),
    }  # fmt: skip
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("JPEG", "AVIF"):
            files[f"{kind.lower()} turned {orientation}"] = encode(image, kind, exif=exif)
    see_through = image.copy()
    see_through.putalpha(Image.fromarray(np.where(alpha() < 128, 250, 255).astype(np.uint8)))
    return files | {f"{kind.lower()} alpha": encode(see_through, kind) for kind in ("AVIF", "WEBP")}
