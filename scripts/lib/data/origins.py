"""The archives of a data set: what the settings say of each, what each holds, and what was left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.lib.data.archive_entries import Entry
from scripts.lib.data.encodings import Encoding
from scripts.lib.data.image_paths import Components
from scripts.lib.data.label_files import Spec
from scripts.lib.data.layouts import Folders
from scripts.lib.data.split_words import read_split_name

logger = logging.getLogger(__name__)

#: Why most of what is left out is.
NOT_AN_IMAGE = "not an image"


@dataclass(frozen=True)
class Origin:
    """One of the archives that make up a data set, and what the settings say of its images.

    ``split``, ``label``: of all of them; ``folders``: what its folders are; ``labels``: the files that say it of each;
    ``kept``: where those of them lie that are not in an archive; ``folder``: the archive is the manifest of this
    folder, whose files are linked to; ``name``: of its url or path; ``encoding``: ``dataset.encoding``; ``is_shard``:
    it is a file of such a folder.
    """

    archive: Path
    split: str | None = None
    label: str | None = None
    folders: Folders | None = None
    labels: Spec | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    name: str = ""
    encoding: str | None = None
    is_shard: bool = False


@dataclass(frozen=True)
class Contents:
    """What an archive holds: ``images[i]`` is the index of an image in ``entries``, ``paths[i]`` its path."""

    kind: str
    entries: Sequence[Entry]
    encoding: Encoding
    images: list[int]
    paths: list[Components]

    def name(self, index: int) -> str:
        """Return the name of an entry as text: all of them would fill memory."""
        return self.encoding.decode(self.entries[index].name)

    def names(self) -> Iterator[str]:
        """Yield the names of all entries."""
        return (self.encoding.decode(entry.name) for entry in self.entries)


@dataclass
class LeftOut:
    """How often something was left out for each reason, with an example; ``remarks``: what was guessed."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, name: str, reason: str) -> None:
        self.counts[reason] += 1
        self.examples.setdefault(reason, name)
        logger.debug("left out: %r: %s", name, reason)

    def forget(self, reason: str, number: int) -> None:
        """Count so many less: they were of use after all."""
        self.counts[reason] -= number
        if self.counts[reason] <= 0:
            del self.counts[reason]

    def lines(self) -> list[str]:
        """Return a line for each reason."""
        example = {reason: f", such as {name!r}" for reason, name in self.examples.items()}
        return [f"left out {n}: {reason}{example.get(reason, '')}" for reason, n in sorted(self.counts.items())]


def splits_by_name(names: Mapping[int, str]) -> dict[int, str]:
    """Return the splits of archives called as train, test, ...; none where one is not, or says something else, too."""
    read = {index: split for index, name in names.items() if (split := read_split_name(name))}
    splits = {index: split.split for index, split in read.items()}
    alike = len(read) == len(names) and len({split.rest for split in read.values()}) == 1
    return splits if alike and "train" in splits.values() and len(set(splits.values())) > 1 else {}
