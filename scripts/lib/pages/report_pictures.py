"""The small pictures of report.html: which test images have one, and each picture once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.data.reading import WHITE
from scripts.lib.pages.embedding_page import thumbnails
from scripts.lib.pages.report_run import Images, RunReport

#: Characters that all pictures may take together: with the libraries and the numbers of 40 runs below 15 MB.
ROOM = 7_000_000
#: More than this have none, since each would be too small to tell anything.
MOST_PICTURES = 2_400
#: Pixels of the longer side and quality, the best first; the first with which all fit is taken.
SIZES = ((160, 72), (128, 70), (112, 66), (96, 62), (80, 60), (64, 58), (48, 50), (32, 40))
#: Errors of each run that a reader sees without asking for more.
FIRST_ERRORS = 48
#: Correct images of each class, to look at beside the errors.
EXAMPLES = 3


@dataclass(frozen=True)
class Pictures:
    """WebP pictures in base64, each content once."""

    data: list[str]
    of_image: list[int]  # of each image the index of its picture; -1: it has none
    left_out: int  # images without a picture, for want of room


def wanted(
    images: Images, runs: Sequence[RunReport], first: Sequence[int] = (), most: int = MOST_PICTURES
) -> list[int]:
    """Return the numbers of the images that get a picture, what a reader looks at first in front.

    Parameters
    ----------
    runs : the one that the page opens with first.
    first : numbers of images that come before all others.
    """
    order: dict[int, None] = {}

    def add(numbers: Iterable[int]) -> None:
        order.update(dict.fromkeys(numbers))

    add(first)
    for run in runs:
        pair = run.pair.examples if run.pair else []
        add(image for example in pair for image in (example.image, *example.like))
        add(error[0] for error in run.errors[:FIRST_ERRORS])
    for run in runs:
        add(suspect[0] for suspect in run.suspects)
    seen: dict[int, int] = {}
    for image, label in enumerate(images.labels):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= EXAMPLES:
            add([image])
    for run in runs:
        add(error[0] for error in run.errors)
    add(range(len(images.files)))
    return list(order)[:most]


def collect(
    folder: Path,
    images: Images,
    runs: Sequence[RunReport],
    first: Sequence[int] = (),
    background: tuple[int, int, int] = WHITE,
    room: int = ROOM,
) -> Pictures:
    """Return the pictures of the test images below *folder*, transparent ones on *background*."""
    numbers = wanted(images, runs, first)
    encoded = thumbnails(folder, [images.files[number] for number in numbers], room, background, SIZES)
    data: dict[str, int] = {}
    of_image = [-1] * len(images.files)
    for number, picture in zip(numbers, encoded, strict=True):
        if picture:
            of_image[number] = data.setdefault(picture, len(data))
    return Pictures(list(data), of_image, of_image.count(-1))
