"""Samples in the layout of WebDataset: beside each image, a file of the same name that says its class.

In the tar shards of such a data set the files of one sample follow each other, and their names are the same up to the
first point: ``000017.jpg``, ``000017.cls``. A `.cls` holds the class or its number, a `.json` has it under one of the
names that columns of tables have, a `.txt` holds its name.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import megabytes, plural
from scripts.lib.data.archive_entries import Limits, damage
from scripts.lib.data.archives import open_contents
from scripts.lib.data.file_kinds import names_archive
from scripts.lib.data.folders import check_unchanged, open_listed, read_manifest
from scripts.lib.data.image_paths import Components
from scripts.lib.data.label_files import KEY, LABEL_COLUMNS, LISTED, class_folder
from scripts.lib.data.label_text import once
from scripts.lib.data.origins import NOT_AN_IMAGE, Contents, LeftOut, Origin

#: What may say the class, by the suffix; the first that the images have.
SUFFIXES = ("cls", "json", "txt")
#: Bytes of such a file, and characters of the name of a class: more is no class.
LONGEST, LONGEST_NAME = 1 << 20, 200
#: Files that lie beside the shards in a folder, and say something about all of them.
BESIDE = (".json", ".txt", ".md", ".csv", ".tsv", ".yaml", ".idx", ".index", ".html", ".sha256", ".md5")
#: Remedy where the classes cannot be read.
TABLE = f"name the classes in a table of your own ({KEY})"


def expand(origin: Origin, left_out: LeftOut) -> list[Origin]:
    """Return the tar shards of a folder that is read in place and holds nothing else, else the origin itself.

    Raises
    ------
    UserError : a shard is not what was listed any more.
    """
    if origin.folder is None:
        return [origin]
    names = [listed.name for listed in read_manifest(origin.archive)]
    shards = shards_among(names)
    if not shards:
        return [origin]
    since = origin.archive.stat().st_mtime_ns
    for listed in read_manifest(origin.archive):
        if listed.name in shards:
            check_unchanged(origin.folder / listed.name, listed, since)
        else:
            left_out.add(listed.name, "beside the shards")
    return [
        replace(origin, archive=origin.folder / name, folder=None, name=name, is_shard=True)
        for name in names
        if name in shards
    ]


def shards_among(names: Sequence[str]) -> set[str]:
    """Return the tar shards among the files of a folder; none where it holds anything else that matters."""
    shards = {name for name in names if names_archive(name)}
    return shards if all(name in shards or name.lower().endswith(BESIDE) for name in names) else set()


def stem_and_suffix(name: str) -> tuple[str, str]:
    """Return what names the sample of a file, and what the file is: before and after the first point of its name.

    >>> stem_and_suffix("a/000017.cls"), stem_and_suffix("a.b/x.seg.png")
    (('a/000017', 'cls'), ('a.b/x', 'seg.png'))
    """
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return folder + slash + stem, suffix.lower()


def label_entries(content: Contents) -> dict[str, array[int]]:
    """Return, by suffix, the entry that says the class of each image of an archive; -1: there is none."""
    by_suffix = {suffix: array("q", [-1]) * len(content.images) for suffix in SUFFIXES}
    names = zip(content.entries, content.names(), strict=True)
    files = ((index, *stem_and_suffix(name)) for index, (entry, name) in enumerate(names) if entry.kind == "file")
    number = 0  # of the image that comes next
    for _stem, sample in groupby(files, key=itemgetter(1)):
        first, beside = number, {}
        for index, _, suffix in sample:
            if number < len(content.images) and content.images[number] == index:
                number += 1
            elif suffix in by_suffix:
                beside[suffix] = index
        for suffix, index in beside.items():
            by_suffix[suffix][first:number] = array("q", [index]) * (number - first)
    return by_suffix


def find(origins: Sequence[Origin], contents: Sequence[Contents]) -> tuple[str, dict[int, array[int]]]:
    """Return of the archives whose images have files that say their classes which files: their suffix, the entries.

    A `.cls` beside half of the images is enough. A `.json` or `.txt` may be anything, such as boxes, where the images
    lie in folders, which are classes then.
    """
    others = [
        number
        for number, (origin, content) in enumerate(zip(origins, contents, strict=True))
        if content.images and not (origin.label or origin.folders) and (origin.labels is None or names_only(origin))
    ]
    by_suffix = {number: label_entries(contents[number]) for number in others}
    is_flat = len({path[:-1] for number in others for path in contents[number].paths}) == 1
    for suffix in SUFFIXES if is_flat else SUFFIXES[:1]:
        entries = {number: by_suffix[number][suffix] for number in others}
        entries = {n: each for n, each in entries.items() if 2 * sum(entry >= 0 for entry in each) >= len(each)}
        if entries:
            return suffix, entries
    return "", {}


def names_only(origin: Origin) -> bool:
    """Tell whether the settings name only the classes, of which the samples say the numbers."""
    return isinstance(origin.labels, Mapping) and origin.labels.keys() == {"classes"}


def targets(
    origins: Sequence[Origin], contents: Sequence[Contents], limits: Limits, left_out: LeftOut, names: Sequence[str]
) -> dict[int, list[Components | str]]:
    """Return where the images of the archives that :func:`find` finds go, (class, file), or why they are left out.

    Parameters
    ----------
    names : of the classes, where the samples hold their numbers from 0; empty where there are none.

    Raises
    ------
    UserError : a file that says no class; a number without a name.
    """
    suffix, entries_of = find(origins, contents)
    reader = _Reader(suffix)
    labels: dict[int, list[str]] = {}
    for number, entries in entries_of.items():
        wanted = {entry for entry in entries if entry >= 0}
        texts = _read(origins[number], contents[number], wanted, limits)
        known = {index: reader.label(raw, where) for index, raw, where in texts}
        labels[number] = [known[entry] if entry >= 0 else "" for entry in entries]
        left_out.forget(NOT_AN_IMAGE, len(wanted))
    classes = sorted({label for each in labels.values() for label in each if label})
    if not classes:
        return {}
    if suffix == "txt" and 2 * len(classes) > sum(map(len, labels.values())):
        what = f"the .txt files beside the images hold {plural(len(classes), 'text')}: captions, not classes"
        raise UserError(f"dataset.source: {what}", TABLE)
    name_of = _names(classes, suffix, names, left_out)
    return {
        number: [
            (class_folder(name_of[label]), path[-1]) if label else f"no .{suffix} beside it"
            for label, path in zip(each, contents[number].paths, strict=True)
        ]
        for number, each in labels.items()
    }


def _names(classes: Sequence[str], suffix: str, names: Sequence[str], left_out: LeftOut) -> dict[str, str]:
    """Return the name of each class that samples hold: of a number that of the list, else all of the same length."""
    told = f"the class of each image is read from the .{suffix} beside it: {plural(len(classes), 'class')}"
    are_numbers = all(label.isascii() and label.isdigit() for label in classes)
    if names and are_numbers:
        if unknown := [label for label in classes if int(label) >= len(names)]:
            what = f"{KEY}.classes: {len(names)} names, but a .{suffix} holds the number {unknown[0]}, counted from 0"
            raise UserError(what, "give the names of all classes, one a line")
        left_out.remarks.append(f"{told}, by number")
        return {label: names[int(label)] for label in classes}
    if are_numbers:
        width = max(len(label) for label in classes)
        left_out.remarks.append(f"{told}, called by their numbers; {KEY}: {{classes: FILE}} names them")
        return {label: label.zfill(width) for label in classes}
    if names and (unknown := sorted(set(classes) - set(names))):
        raise UserError(f"{KEY}.classes: {unknown[0]!r}, which a .{suffix} holds, is not among them", "add it")
    left_out.remarks.append(told)
    return {label: label for label in classes}


def _read(
    origin: Origin, content: Contents, wanted: Collection[int], limits: Limits
) -> Iterator[tuple[int, bytes, str]]:
    """Yield the wanted entries of an archive in its order: index, content, and how messages name it.

    Raises
    ------
    UserError : one is too large to say a class.
    """
    chosen = ["" if index in wanted else None for index in range(len(content.entries))]
    if origin.folder is not None:
        opened = open_listed(origin.archive, origin.folder, chosen)
    else:
        opened = open_contents(origin.archive, content.kind, limits, chosen)
    with damage(origin.archive):
        for index, (_, size, stream) in zip(sorted(wanted), opened, strict=True):
            where = f"{origin.folder or origin.archive}: {content.name(index)}"
            if size > LONGEST:
                raise UserError(f"{where} is larger than {megabytes(LONGEST)}, and says no class", TABLE)
            yield index, stream.read(LONGEST + 1), where


class _Reader:
    """Reads classes out of files of one suffix, each of them alike."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix
        self.key = ""  # of a JSON object

    def label(self, raw: bytes, where: str) -> str:
        """Return the class that a file holds; *where* names it.

        Raises
        ------
        UserError : it holds none.
        """
        try:
            text = raw.decode("utf-8-sig").strip()
            if self.suffix == "json":
                text = self._of_object(json.loads(text, object_pairs_hook=once), where)
        except ValueError as error:
            raise UserError(f"{where}: neither UTF-8 nor a class ({one_line(error)})", TABLE) from error
        if not text or "\n" in text or len(text) > LONGEST_NAME:
            raise UserError(f"{where}: no name or number of a class ({one_line(text[:60])!r})", TABLE)
        return sys.intern(text)

    def _of_object(self, value: Any, where: str) -> str:
        keys = {" ".join(str(key).split()).lower().replace(" ", "_"): key for key in value} if _is_object(value) else {}
        if not self.key:
            known = [keys[column] for column in LABEL_COLUMNS if column in keys]
            self.key = next((key for key in known if isinstance(value[key], str)), next(iter(known), ""))
        label = value.get(self.key) if self.key and _is_object(value) else None
        if isinstance(label, bool) or not isinstance(label, str | int):
            listed = ", ".join(map(repr, list(keys)[: 2 * LISTED])) or "none"
            raise UserError(f"{where}: no class in it (its keys: {listed})", f"call one `label`, or {TABLE}")
        return str(label)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)
