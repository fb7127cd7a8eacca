"""Folders in few signs, for tests of layouts: ``{train,test}/{cat,dog}`` is four folders, each with an image."""

from __future__ import annotations

import re


def expand(text: str) -> list[str]:
    """Return the folders that *text* stands for: a{b,c} is ab and ac."""
    braces = re.search(r"\{([^{}]*)\}", text)
    if not braces:
        return [text]
    before, after = text[: braces.start()], text[braces.end() :]
    return list(dict.fromkeys(folder for choice in braces[1].split(",") for folder in expand(before + choice + after)))


def images(text: str) -> list[tuple[str, ...]]:
    """Return an image in each folder of *text*, which blanks separate; a plus is a blank in a name."""
    folders = [folder.replace("+", " ") for word in text.split() for folder in expand(word)]
    return [(*folder.split("/"), f"{number}.jpg") for number, folder in enumerate(folders)]
