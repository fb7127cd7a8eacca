"""The pixels of a picture: the one place where a file becomes what the model sees, equal in every environment.

OpenCV decodes JPEG and PNG, whose bits are those of every version of it, and what has 16 bits a channel; Pillow decodes
all else: OpenCV 4, which the cuda11 environment has, reads neither GIF nor AVIF and does not turn WebP. A transparent
picture lies on a background: what is stored where nothing shows is black in many files, and noise in others.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from scripts.lib.data.image_formats import HEAD, SUFFIXES, describe_foreign, sniff
from scripts.lib.data.reading import FULL_DEPTH, USUAL, Reading

#: More pixels than any photograph (100 MP cameras) are a decompression bomb: three bytes a pixel, in every worker.
TOO_MANY_PIXELS = 100_000_000
#: Training makes the shorter side some 256 pixels: a picture of 1 x 65,535 would take 13 GB.
MOST_ELONGATED = 1000
#: Scans of a progressive JPEG: ten are usual, and each takes as long as a whole picture.
MOST_SCANS = 100
START_OF_SCAN = b"\xff\xda"
#: Fractions of its size at which a JPEG can be decoded, in less time.
REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
BROKEN = "a broken image: OpenCV cannot decode it"
#: Tags of TIFF: width and height of its tiles, bits of a sample, samples of a pixel, kind of a sample, what the samples
#: are, and whether each has a plane of its own.
TILE_WIDTH, TILE_HEIGHT, BITS_PER_SAMPLE, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 322, 323, 258, 277, 339
PHOTOMETRIC, PLANAR = 262, 284
#: What samples are beside grey, 0 being black, and RGB: of more than 8 bits, OpenCV reads them as one of these two.
_COLOURS = {0: "grey of which 0 is white", 3: "a palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 32803: "raw sensor data"}
_SAMPLES = {1: "unsigned integers", 2: "signed integers", 3: "floating-point numbers"}
#: How a picture is turned, by the number in its EXIF data; 1 is upright.
_TURNS = dict(
    zip(range(2, 9), (
        Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
    ), strict=True)
)  # fmt: skip
_PNG = b"\x89PNG\r\n\x1a\n"
#: Formats of which OpenCV reads pictures of more than 8 bits a channel.
_DEEP = ("PNG", "TIFF", "JPEG2000")
#: Formats that Pillow is asked for: it opens an MPO as a JPEG first.
_BY_PILLOW = [name for name in SUFFIXES if name != "MPO"]
#: Chunks of a PNG that count beside those that no PNG is without: transparency and how it is turned; of an animation.
_PNG_OPTIONAL, _PNG_FRAMES = (b"tRNS", b"eXIf"), (b"acTL", b"fcTL", b"fdAT")


class Undecodable(ValueError):
    """A file that is no picture, or one that cannot be decoded; the message says why."""


def decode_image(content: bytes, grey: bool = False, factor: int = 1, reading: Reading = USUAL) -> np.ndarray:
    """Return the pixels of a file as the model sees them, turned as its EXIF data say, on a background.

    Parameters
    ----------
    content : the whole file.
    grey : one channel.
    factor : 2, 4, 8: a JPEG comes at that fraction of its size; others, and grey ones, as they are.
    reading : the bits that pictures of 16 bits a channel use, and the background of transparent ones.

    Returns
    -------
    np.ndarray : uint8 of shape (height, width, 3), blue, green, red; with *grey* of shape (height, width).

    Raises
    ------
    Undecodable : it cannot be read.
    """
    flag = cv2.IMREAD_GRAYSCALE if grey else REDUCED.get(factor, cv2.IMREAD_COLOR)
    if content.startswith(b"\xff\xd8\xff"):
        return _by_opencv(content, flag)
    flag = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    if content.startswith(_PNG):
        if png_declares_too_much(content):
            raise Undecodable("the data end before the end of the PNG")
        content = png_of_pixels(content)
        deep = content[24:25] == b"\x10"
        if not _png_is_transparent(content):
            return _to_bytes(_deep(content, flag), reading.bit_depth) if deep else _by_opencv(content, flag)
    with opened(content) as image:
        if bomb := find_bomb(image, content):
            raise Undecodable(bomb)
        bits = bits_of(image, content)
        if (bits > 8 and image.format in _DEEP) or (bits == FULL_DEPTH and image.format == "PPM"):
            depth = reading.bit_depth
            if bits != FULL_DEPTH:
                # OpenCV widens those of a TIFF to 16 bits, and leaves those of a JPEG 2000 as they are.
                depth = FULL_DEPTH if image.format == "TIFF" else bits
            if is_transparent(image):
                return _on_background(_deep_and_alpha(content, image, depth), grey, reading)
            return _to_bytes(_deep(content, flag), depth)
        return _by_pillow(image, content, grey, reading)


def deep_peak(content: bytes) -> int:
    """Return the largest value in a picture of 16 bits a channel, before it is scaled; 0 for other pictures."""
    if content.startswith(_PNG):
        deep, content = content[24:25] == b"\x10", png_of_pixels(content)
    elif content.startswith(b"\xff\xd8\xff"):
        return 0
    else:
        with opened(content) as image:
            deep = image.format in ("TIFF", "JPEG2000", "PPM") and bits_of(image, content) == FULL_DEPTH
    return int(_deep(content, cv2.IMREAD_COLOR).max()) if deep else 0


def orientation_of(image: Image.Image, content: bytes) -> int:
    """Return how an opened image is turned by its EXIF data, 1 to 8; 1: not, as no camera writes it, or damaged data.

    Parameters
    ----------
    content : the whole file.
    """
    if image.format == "PNG" and b"eXIf" not in content:  # Pillow would decode it all to look behind the pixels
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # hostile bytes reach every corner of Pillow's parsers; OpenCV turns no such JPEG either
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def is_transparent(image: Image.Image) -> bool:
    """Tell whether something may show through an opened image: it has an alpha channel, or a transparent colour."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _by_opencv(content: bytes, flag: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except (cv2.error, MemoryError) as error:
        raise Undecodable(BROKEN) from error
    if image is None:
        raise Undecodable(BROKEN)
    return image


def _deep(content: bytes, flag: int) -> np.ndarray:
    """Return the values of a picture of up to 16 bits a channel as they are: uint16."""
    image = _by_opencv(content, flag | cv2.IMREAD_ANYDEPTH)
    if image.dtype != np.uint16:
        raise Undecodable(f"its values are read as {image.dtype}, not as 16 bits: convert it to 8 or 16 bits")
    return image


def _to_bytes(image: np.ndarray, bits: int) -> np.ndarray:
    """Return values of *bits* bits as uint8: their upper 8 bits, 255 for what needs more."""
    return np.minimum(image >> (bits - 8), 255).astype(np.uint8)


def _turned(image: Image.Image, content: bytes) -> Image.Image:
    """Return an opened image turned as its EXIF data say; Pillow's own function fails where these are damaged."""
    image.load()  # which turns a TIFF
    method = _TURNS.get(orientation_of(image, content))
    return image if method is None else image.transpose(method)


def _by_pillow(image: Image.Image, content: bytes, grey: bool, reading: Reading) -> np.ndarray:
    try:
        transparent = is_transparent(image)
        image = _turned(image, content)
        if transparent:
            return _on_background(image.convert("RGBA"), grey, reading)
        if image.mode.startswith("I"):  # a PGM of more than 8 bits, which Pillow has scaled to 16, and would cut off
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except Exception as error:  # hostile bytes reach every corner of Pillow's parsers
        raise Undecodable(str(error) or type(error).__name__) from error
    return np.ascontiguousarray(pixels if grey else pixels[..., ::-1])


def _deep_and_alpha(content: bytes, image: Image.Image, bits: int) -> Image.Image:
    """Return a transparent picture of more than 8 bits as RGBA, turned as the EXIF data of *image* say."""
    stored = _by_opencv(content, cv2.IMREAD_UNCHANGED)  # which turns nothing
    clear = image.info.get("transparency")
    if (stored.ndim == 2 or stored.shape[2] == 3) and clear is not None:  # a colour of a PNG; OpenCV reads some of them
        shows = (np.atleast_3d(stored) != np.atleast_1d(clear)[::-1]).any(2)
        colours = cv2.cvtColor(stored, cv2.COLOR_GRAY2BGR) if stored.ndim == 2 else stored
        stored = np.dstack([colours, shows * np.uint16(65535)])
    if stored.dtype != np.uint16 or stored.ndim != 3 or stored.shape[2] != 4:
        raise Undecodable(f"its transparency is not read, of {bits} bits: convert it to 8 bits")
    pixels = Image.fromarray(np.ascontiguousarray(_to_bytes(stored, bits)[..., [2, 1, 0, 3]]))
    method = _TURNS.get(orientation_of(image, content))
    return pixels if method is None else pixels.transpose(method)


def _on_background(image: Image.Image, grey: bool, reading: Reading) -> np.ndarray:
    """Return an RGBA image over the background, as decode_image does."""
    canvas = Image.new("RGB", image.size, reading.background)
    canvas.paste(image, mask=image)
    pixels = np.ascontiguousarray(np.asarray(canvas)[..., ::-1])
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if grey else pixels


def opened(content: bytes) -> Image.Image:
    """Return a picture of which only the header has been read.

    Raises
    ------
    Undecodable : it is none of a format that is read, or its header is damaged.
    """
    if strange := describe_samples(content):
        raise Undecodable(strange)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags that hold nonsense, and of large images
            return Image.open(io.BytesIO(png_of_pixels(content, _PNG_FRAMES)), formats=_BY_PILLOW)
    except Image.DecompressionBombError as error:
        raise Undecodable(f"more than {TOO_MANY_PIXELS:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise Undecodable(describe_unidentified(content)) from error
    except Exception as error:
        raise Undecodable(str(error) or type(error).__name__) from error


def describe_unidentified(content: bytes) -> str:
    """Return what a file is that is no picture of a format that is read, or one whose header is damaged."""
    name = sniff(content[:HEAD])
    unknown = f"damaged or truncated: it begins as {name}" if name else "not an image, or its header is damaged"
    return describe_foreign(content) or unknown


def find_bomb(image: Image.Image, content: bytes) -> str:
    """Return why an opened image must not be decoded, in a few words; "" where it may.

    Parameters
    ----------
    image : of which only the header has been read.
    content : the whole file.
    """
    if too_large := size_of_bomb(*image.size):
        return too_large
    if image.format == "TIFF":
        tags = _tags(image)
        if tags.get(TILE_WIDTH, 0) * tags.get(TILE_HEIGHT, 0) > TOO_MANY_PIXELS:
            return f"tiles of more than {TOO_MANY_PIXELS:,} pixels"
    if "progressive" in image.info and content.count(START_OF_SCAN) > MOST_SCANS:
        return f"a JPEG of more than {MOST_SCANS} scans"
    return ""


def size_of_bomb(width: int, height: int) -> str:
    """Return why a picture of this size must not be decoded; "" where it may."""
    if width * height > TOO_MANY_PIXELS:
        return f"{width} x {height} pixels, more than {TOO_MANY_PIXELS:,}"
    if max(width, height) > MOST_ELONGATED * min(width, height):
        return f"{width} x {height} pixels: one side is more than {MOST_ELONGATED:,} times the other"
    return ""


def _tags(image: Image.Image) -> Any:
    return image.tag_v2  # type: ignore[attr-defined]


def describe_samples(content: bytes) -> str:
    """Return what a TIFF holds where that is no picture of 8 or 16 bits; "" where it is one, and for other files.

    It asks for the tags, not for the picture: Pillow cannot open what is strange.
    """
    if not content.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return ""
    try:
        tags: Any = ImageFileDirectory_v2(content[: 8 if 42 in content[2:4] else 16])
        file = io.BytesIO(content)
        file.seek(tags.next)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags.load(file)
    except Exception:  # of a damaged one, the decoder says more
        return ""
    samples, kind = tags.get(SAMPLES_PER_PIXEL, 1), tags.get(SAMPLE_FORMAT, (1,))
    bits, kind = tags.get(BITS_PER_SAMPLE, (1,)), kind[0] if isinstance(kind, tuple) else kind
    bits = bits[0] if isinstance(bits, tuple) else bits
    if samples > 4:
        return f"a TIFF of {samples} bands: choose three of them, or one, and convert these to PNG or TIFF"
    if kind not in (1, 4) or bits > 16:
        return f"a TIFF of {bits}-bit {_SAMPLES.get(kind, 'numbers')}: convert it to unsigned integers of 8 or 16 bits"
    colours = tags.get(PHOTOMETRIC, 1)
    if bits > 8 and (colours not in (1, 2) or samples == 2 or (samples > 1 and tags.get(PLANAR, 1) == 2)):
        what = _COLOURS.get(colours, f"kind {colours}") if colours not in (1, 2) else f"{samples} planes"
        return f"a TIFF of {bits} bits, {what}: convert it to RGB or grey (magick a.tif a.png)"
    return ""


def bits_of(image: Image.Image, content: bytes) -> int:
    """Return the bits of a channel; Pillow calls many images of 16 bits RGB."""
    if image.format == "PNG":
        return content[24]
    if image.format == "TIFF":
        return max(_tags(image).get(BITS_PER_SAMPLE, (1,)))
    if image.format == "PPM":
        match = re.match(rb"P[2356]\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*(\d+)", content)
        return int(match[1]).bit_length() if match else 1
    if image.format == "JPEG2000":
        start = content.find(b"\xff\x4f\xff\x51")  # start of the code stream, then its size: ISO/IEC 15444-1, A.5.1
        return (content[start + 42] & 127) + 1 if 0 <= start < len(content) - 42 else 8
    return 16 if image.mode.startswith(("I", "F")) else 8


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each chunk of a PNG; the last end may lie behind the data."""
    position = len(_PNG)
    while position + 8 <= len(content):
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        yield content[position + 4 : position + 8], position, end
        position = end


def _png_is_transparent(content: bytes) -> bool:
    """Tell whether a PNG has an alpha channel (colour types 4 and 6), or says which colours are transparent."""
    return content[25:26] in (b"\x04", b"\x06") or any(kind == b"tRNS" for kind, _, _ in _png_chunks(content))


def png_declares_too_much(content: bytes) -> bool:
    """Tell whether a chunk of a PNG is said to be longer than the file: OpenCV 5 takes that much memory for it."""
    for kind, _, end in _png_chunks(content):
        if kind == b"IEND":
            return False
        if end > len(content):
            return True
    return False


def png_of_pixels(content: bytes, besides: tuple[bytes, ...] = ()) -> bytes:
    """Return a PNG without texts, colour profiles and the like: large or damaged ones do not make it unreadable.

    Parameters
    ----------
    content : any file; one that is no PNG comes back as it is.
    besides : kinds of chunks that stay as well.
    """
    if not content.startswith(_PNG):
        return content
    chunks = list(_png_chunks(content))
    kept = [chunk for chunk in chunks if _stays(content, *chunk, (*_PNG_OPTIONAL, *besides))]
    return content if len(kept) == len(chunks) else _PNG + b"".join(content[start:end] for _, start, end in kept)


def _stays(content: bytes, kind: bytes, start: int, end: int, wanted: tuple[bytes, ...]) -> bool:
    if not kind.isalpha() or kind[:1].isupper():  # a capital: needed for the pixels; no name: damage, for the decoder
        return True
    return kind in wanted and zlib.crc32(content[start + 4 : end - 4]) == int.from_bytes(content[end - 4 : end], "big")
