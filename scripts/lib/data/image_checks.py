"""Check one image file: can the trainer read it to its end, what is odd about it, and what does it look like.

Pillow reads the header, unless it is that of a plain JPEG; the picture is decoded as the trainer decodes it, a JPEG at
a fraction of its size, which parses all of the file in half of the time.
"""

from __future__ import annotations

import os
import re
import struct
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from scripts.lib.data.decoding import (
    REDUCED,
    Undecodable,
    bits_of,
    decode_image,
    deep_peak,
    find_bomb,
    is_transparent,
    opened,
    orientation_of,
    size_of_bomb,
)
from scripts.lib.data.reading import USUAL, Reading

#: Larger ones cost time and memory, and training shrinks them to some 50,000 pixels anyway.
HUGE_PIXELS = 25_000_000
#: Shorter sides below this hold less than the smallest images of well-known sets (CIFAR's are exactly 32 pixels).
TINY_EDGE = 32
#: A blank image varies less than sensors' noise does: standard deviation and range of each channel, in grey levels.
BLANK_DEVIATION, BLANK_RANGE = 2.0, 24
#: By how much a thumbnail, all of means, may exceed the picture's own range: each step rounds.
ROUNDING = 4
#: A JPEG is decoded at a fraction of its size while the shorter side keeps this many pixels (40 would move a thumbnail
#: by 0.08, twice what near copies may differ by), and REDUCED_EDGE where the sides are no multiples (the last, padded
#: block would shift the thumbnail). Other pictures are shrunk to that.
EXACT_EDGE, REDUCED_EDGE = 72, 128
#: Of the squared differences of neighbours, down plus across: what rounding to whole levels adds, and below which the
#: rest says nothing.
ROUNDED, LEAST_DIFFERENCES = 1 / 3, 1.0
#: Edges of the thumbnails by which copies are recognised: brightness, and each of two colour differences.
GREY_EDGE, COLOUR_EDGE = 32, 8
#: Longest `detail` that is kept, in bytes of UTF-8.
DETAIL_BYTES = 160
#: A WebP download that was padded with zeros; blank WebP images end in zeros for up to 6 % of their bytes.
WEBP_ZEROS = 0.25


class Status(IntEnum):
    """Whether an image can be used; all but ``READABLE`` are set aside."""

    READABLE = 0
    UNREADABLE = 1
    TRUNCATED = 2
    TOO_MANY_PIXELS = 3


class Oddity(IntFlag):
    """What is odd about an image that can be read."""

    ANIMATED = 1
    CMYK = 2
    SIXTEEN_BIT = 4
    ALPHA = 8
    PALETTE = 16
    BLANK = 32


NOTHING_ODD = Oddity(0)


@dataclass(frozen=True)
class Checked:
    """What the bytes of one file say.

    ``format``: Pillow's name, "" where it knows none; ``orientation``: EXIF, 1 to 8; ``width``, ``height``: as stored;
    ``detail``: why it cannot be read; ``grey``: 32 x 32 bytes of brightness; ``colour``: 2 x 8 x 8 bytes of colour
    differences (Cr, Cb), both of the picture as the trainer sees it, "" where it cannot; ``peak``: the largest value of
    one of 16 bits a channel, 0 for others; ``sharpness``, ``roughness``: see :func:`measure_edges`.
    """

    status: Status = Status.READABLE
    format: str = ""
    width: int = 0
    height: int = 0
    oddities: Oddity = NOTHING_ODD
    orientation: int = 1
    detail: str = ""
    grey: bytes = b""
    colour: bytes = b""
    peak: int = 0
    sharpness: float = 0.0
    roughness: float = 0.0


class DecoderMessages:
    """What the C libraries print of a file: kept out of the terminal, and the only place where libjpeg reports damage.

    Takes over file descriptor 2 of this process for good, so it is for worker processes.
    """

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process lives)
        os.dup2(self.file.fileno(), 2)

    def take(self) -> str:
        """Return what was printed since the last call."""
        if not (length := os.lseek(2, 0, os.SEEK_CUR)):  # one offset for both descriptors
            return ""
        text = os.pread(2, length, 0).decode("utf-8", "replace")
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        return text


def prepare_process() -> DecoderMessages:
    """Set the libraries up in a process that checks images: one thread, no warnings, our own limit of pixels."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None
    return DecoderMessages()


def check_image(content: bytes, messages: DecoderMessages | None = None, reading: Reading = USUAL) -> Checked:
    """Return what the bytes of one file say; never raises.

    Parameters
    ----------
    content : the whole file.
    messages : where the C libraries' words go; without it, a JPEG whose data end before the picture does, though its
        end marker is there, passes.
    reading : as of the data set.
    """
    header = _read_plain_jpeg(content) or _read_header(content)
    if header.status is not Status.READABLE:
        return header
    if header.format in ("JPEG", "MPO") and not jpeg_is_whole(content):
        return _bad(header, Status.TRUNCATED, "the data end before the end of the JPEG")
    factor = 1
    if header.format in ("JPEG", "MPO"):
        factor = _fraction(header.width, header.height)
    if messages:
        messages.take()
    try:
        picture = decode_image(content, factor=factor, reading=reading)
        peak = deep_peak(content) if Oddity.SIXTEEN_BIT in header.oddities else 0
    except Undecodable as error:
        return _explain(header, content, messages.take() if messages else "", str(error))
    printed = messages.take() if messages else ""
    if "premature end" in printed:  # libjpeg goes on with grey
        return _bad(header, Status.TRUNCATED, "the data of the JPEG end before the picture does")
    if header.format == "WEBP" and len(content) - len(content.rstrip(b"\0")) > WEBP_ZEROS * len(content):
        return _bad(header, Status.TRUNCATED, "the rest of the file is zeros")
    return replace(_look(header, picture), peak=peak)


def _fraction(width: int, height: int) -> int:
    """Return by which of 8, 4, 2 a JPEG can be divided while it is decoded; 1: by none."""
    for factor in REDUCED:
        exact = width % factor == 0 and height % factor == 0
        if min(width, height) >= factor * (EXACT_EDGE if exact else REDUCED_EDGE):
            return factor
    return 1


def _bad(header: Checked, status: Status, detail: str) -> Checked:
    clean = " ".join(detail.split()).encode()[:DETAIL_BYTES].decode("utf-8", "ignore")
    return replace(header, status=status, detail=clean)


def _read_plain_jpeg(content: bytes) -> Checked | None:
    """Return what Pillow would say of a JPEG in a fifth of its time; None for any other file, which Pillow is to read.

    Plain is: not progressive, grey or three colours of 8 bits, without EXIF, profile and further pictures.
    """
    if not content.startswith(b"\xff\xd8"):
        return None
    position, size = 2, (0, 0)
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker, start = content[position + 1], position + 4
        length = int.from_bytes(content[position + 2 : position + 4], "big")
        position += 2 + length
        if length < 2 or position > len(content):
            return None
        match marker:
            case 0xDA:
                return Checked(format="JPEG", width=size[0], height=size[1]) if size != (0, 0) else None
            case 0xC0:
                if size != (0, 0) or length not in (11, 17):
                    return None
                bits, height, width, colours = struct.unpack_from(">BHHB", content, start)
                size = width, height
                if bits != 8 or colours != (length - 8) // 3 or not min(size) or size_of_bomb(*size):
                    return None
            case 0xE0 if length >= 16 and content.startswith(b"JFIF\0", start):
                pass
            case 0xDB if (length - 2) % 65 == 0 and all(content[table] < 16 for table in range(start, position, 65)):
                pass
            case 0xC4 | 0xDD | 0xFE:
                pass
            case _:
                return None
    return None


def _read_header(content: bytes) -> Checked:
    """Return what the header says; nothing is decoded."""
    try:
        with opened(content) as image:
            name, width, height = image.format or "", image.width, image.height
            if bomb := find_bomb(image, content):
                return Checked(Status.TOO_MANY_PIXELS, name, width, height, detail=bomb)
            oddities, orientation = _oddities(image, content), orientation_of(image, content)
            return Checked(Status.READABLE, name, width, height, oddities, orientation)
    except Exception as error:  # hostile bytes reach every corner of the parsers
        return _explain_header(content, error)


def _explain_header(content: bytes, error: Exception) -> Checked:
    if isinstance(error.__cause__, Image.DecompressionBombError):
        return _bad(Checked(), Status.TOO_MANY_PIXELS, str(error))
    if error.__cause__ and (name := _cut_short(content)):
        return _bad(Checked(format=name), Status.TRUNCATED, f"the data end before the end of the {name}")
    if error.__cause__ is None or isinstance(error.__cause__, Image.UnidentifiedImageError):
        return _bad(Checked(), Status.UNREADABLE, str(error))
    return _bad(Checked(), Status.UNREADABLE, f"its header cannot be read: {error}")


def _oddities(image: Image.Image, content: bytes) -> Oddity:
    oddities = NOTHING_ODD
    if image.format != "MPO" and getattr(image, "is_animated", False):
        oddities |= Oddity.ANIMATED
    if image.mode == "CMYK":
        oddities |= Oddity.CMYK
    if bits_of(image, content) > 8:
        oddities |= Oddity.SIXTEEN_BIT
    if is_transparent(image):
        oddities |= Oddity.ALPHA
    if image.mode in ("P", "PA") and image.format != "GIF":  # a GIF always has one
        oddities |= Oddity.PALETTE
    return oddities


#: In JPEG's entropy-coded data: a marker that is neither a stuffed byte nor a restart marker.
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


def jpeg_is_whole(content: bytes) -> bool:
    """Tell whether a JPEG's own end marker is there (that of an EXIF thumbnail, or bytes behind the end, are not)."""
    position = 2
    while match := _MARKER.search(content, position):
        marker, position = content[match.end() - 1], match.end()
        if marker == 0xD9:
            return True
        if marker == 0xDA and content.endswith(b"\xff\xd9"):  # no need to look through the data in between
            return True
        if marker not in (0x01, 0xD8) and len(content) >= position + 2:
            position += int.from_bytes(content[position : position + 2], "big")
    return False


def png_is_whole(content: bytes) -> bool:
    """Tell whether a PNG's chunks go on to its last one, IEND."""
    position = 8
    while position + 12 <= len(content):
        kind = content[position + 4 : position + 8]
        position += 12 + int.from_bytes(content[position : position + 4], "big")
        if kind == b"IEND":
            return position <= len(content)
        if not kind.isalpha():  # zeros, or whatever else lies there
            return False
    return False


def tiff_is_whole(content: bytes) -> bool:
    """Tell whether the directory of a TIFF, which often lies at its end, is there."""
    order: Literal["little", "big"] = "little" if content[:2] == b"II" else "big"
    return int.from_bytes(content[4:8], order) + 2 < len(content)


#: Signatures of formats, and how to tell whether a file that cannot be read was cut short.
WHOLE: dict[str, tuple[bytes, Callable[[bytes], bool]]] = {
    "JPEG": (rb"\xff\xd8\xff", jpeg_is_whole),
    "PNG": (rb"\x89PNG\r\n\x1a\n", png_is_whole),
    # As long as its header says.
    "WEBP": (rb"RIFF....WEBP", lambda content: int.from_bytes(content[4:8], "little") + 8 <= len(content)),
    "TIFF": (rb"II\*\0|MM\0\*", tiff_is_whole),
    # Ends in its trailer; zeros behind it do no harm.
    "GIF": (rb"GIF8[79]a", lambda content: content.rstrip(b"\0").endswith(b"\x3b")),
}


def _cut_short(content: bytes) -> str:
    """Return the format of a file that ends too early; "" for one that does not, as far as its structure tells."""
    for name, (signature, is_whole) in WHOLE.items():
        if re.match(signature, content, flags=re.DOTALL) and not is_whole(content):
            return name
    return ""


def _explain(header: Checked, content: bytes, printed: str, reason: str) -> Checked:
    """Return why a file cannot be decoded, in the words of whoever says more."""
    if name := _cut_short(content):
        return _bad(header, Status.TRUNCATED, f"the data end before the end of the {name}")
    if header.format in ("JPEG", "MPO", "PNG"):  # OpenCV's own words are none
        try:
            with opened(content) as image:
                image.load()
        except Exception as error:
            reason = str(error)
        else:  # libpng error: IDAT: CRC error
            library = re.search(r"^\w+ error: (.+)$", printed, flags=re.MULTILINE)
            reason = library[1] if library else "OpenCV, which training reads with, cannot decode it"
    cut = re.search(r"truncated|not enough|premature|unexpected end|incomplete|data end", reason, flags=re.IGNORECASE)
    return _bad(header, Status.TRUNCATED if cut else Status.UNREADABLE, reason)


def _look(header: Checked, picture: np.ndarray) -> Checked:
    """Add the thumbnails, and whether the picture is blank. *picture*: uint8 (height, width, 3), blue first."""
    height, width = picture.shape[:2]
    scale = REDUCED_EDGE / min(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    thumbnail = cv2.resize(picture, (GREY_EDGE, GREY_EDGE), interpolation=cv2.INTER_AREA)
    channels = cv2.cvtColor(thumbnail, cv2.COLOR_BGR2YCrCb)
    grey = cv2.extractChannel(channels, 0)
    colour = cv2.resize(channels[..., 1:], (COLOUR_EDGE, COLOUR_EDGE), interpolation=cv2.INTER_AREA)
    low, high, _, _ = cv2.minMaxLoc(grey)
    oddities = header.oddities
    # Means vary less than what they are of, so that the whole picture is looked at for few files only.
    if high - low < BLANK_RANGE + ROUNDING:
        _, deviation = cv2.meanStdDev(picture)
        if deviation.max() < BLANK_DEVIATION and np.ptp(picture, axis=(0, 1)).max() < BLANK_RANGE:
            oddities |= Oddity.BLANK
    sharpness, roughness = measure_edges(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))
    return Checked(
        header.status, header.format, header.width, header.height, oddities, header.orientation, header.detail,
        grey.tobytes(), colour.transpose(2, 0, 1).tobytes(), sharpness=sharpness, roughness=roughness,
    )  # fmt: skip


def measure_edges(grey: np.ndarray) -> tuple[float, float]:
    """Return how sharp a picture is, and how rough, by the squared differences of neighbouring pixels.

    Parameters
    ----------
    grey : uint8 (height, width).

    Returns
    -------
    sharpness : the differences as a multiple of those in the picture at half its size: 0.25 where it has nothing but
        slopes, since half as many pixels are twice as far apart; 0.5 of straight edges; 4 of noise. 1 where there is
        too little contrast to tell.
    roughness : the differences as a share of what they were if no pixel told of its neighbour: 1 of noise.
    """
    height, width = grey.shape
    half = cv2.resize(grey, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    fine, coarse = (max(0.0, _differences(image) - ROUNDED) for image in (grey, half))
    variance = float(cv2.meanStdDev(grey)[1][0, 0]) ** 2
    sharpness = fine / coarse if coarse > LEAST_DIFFERENCES else 1.0
    return sharpness, fine / (4 * variance) if variance > 0 else 0.0


def _differences(grey: np.ndarray) -> float:
    """Return the mean squared difference of neighbours, down plus across."""
    down, across = (grey[1:], grey[:-1]), (grey[:, 1:], grey[:, :-1])
    return sum(cv2.norm(*pair, cv2.NORM_L2SQR) / pair[0].size for pair in (down, across) if pair[0].size)
