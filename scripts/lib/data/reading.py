"""How the files of a data set are read, by its settings, and the options of a command that say so."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import ImageColor

#: Bits of a channel that pictures of more than 8 are taken to fill, where nobody says so.
FULL_DEPTH = 16
#: What shows through where a picture is transparent, where nobody says so: as in browsers and on paper.
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Reading:
    """What the user decides of how files become pixels; it holds for a whole data set.

    Attributes
    ----------
    bit_depth : bits that pictures of 16 bits a channel use; what lies above them becomes white.
    background : what shows through where a picture is transparent: red, green, blue, 0 to 255.
    """

    bit_depth: int = FULL_DEPTH
    background: tuple[int, int, int] = WHITE

    def as_arguments(self) -> dict[str, Any]:
        """Return what is not usual, in the types of JSON: arguments of a step of a config."""
        unusual: dict[str, Any] = {"bit_depth": self.bit_depth} if self.bit_depth != FULL_DEPTH else {}
        return unusual | ({"background": list(self.background)} if self.background != WHITE else {})

    def background_option(self) -> list[str]:
        """Return the words of a command whose parser has the option of :func:`add_background`."""
        return ["--background", f"#{bytes(self.background).hex()}"]

    @classmethod
    def of_arguments(cls, arguments: Mapping[str, Any]) -> Reading:
        """Return what :meth:`as_arguments` was made from, whatever else *arguments* hold."""
        red, green, blue = arguments.get("background", WHITE)
        return cls(int(arguments.get("bit_depth", FULL_DEPTH)), (int(red), int(green), int(blue)))


#: How files are read where nobody decides anything.
USUAL = Reading()


def colour(text: str) -> tuple[int, int, int]:
    """Return a colour's red, green and blue, 0 to 255.

    Parameters
    ----------
    text : a name (``white``) or a number (``#ffffff``), as in CSS.

    Raises
    ------
    ValueError : it is no colour, or one that lets something through.
    """
    red, green, blue, *alpha = ImageColor.getrgb(text)
    if alpha not in ([], [255]):
        raise ValueError(f"the colour {text!r} is transparent itself")
    return red, green, blue


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options from which :func:`of_options` makes a Reading."""
    parser.add_argument("--bit-depth", type=int, metavar="N", help=f"bits of 16-bit images in use ({FULL_DEPTH})")
    add_background(parser)


def add_background(parser: argparse.ArgumentParser) -> None:
    """Add the option of a command that shows images, whatever their bits."""
    parser.add_argument(
        "--background", type=colour, default=WHITE, metavar="COLOUR",
        help="what shows through transparent images (white)",
    )  # fmt: skip


def of_options(args: argparse.Namespace) -> Reading:
    """Return what the options of a command say."""
    return Reading(args.bit_depth or FULL_DEPTH, args.background)
