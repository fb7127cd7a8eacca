"""Unpack the images of archives, trusting nothing in them: which go where, then they, and only they, are written.

Two passes: the first reads every name and decides, so that a hostile archive is refused before a byte is written.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from scripts.lib.base.download import Progress
from scripts.lib.base.files import atomic_path, find_json, remove_leftovers
from scripts.lib.base.problems import UserError
from scripts.lib.base.ranges import Range, write_index
from scripts.lib.base.units import megabytes, plural
from scripts.lib.data import image_paths, label_files, layouts, samples
from scripts.lib.data.alike_names import describe_alike
from scripts.lib.data.archive_entries import CHUNK, Damaged, Entries, Entry, Limits, check_link, check_name, damage
from scripts.lib.data.archives import open_contents, read_entries, sniff_format, unwrapped
from scripts.lib.data.encodings import find_encoding
from scripts.lib.data.file_kinds import names_archive, piece_of
from scripts.lib.data.folders import MANIFEST, left_out_beside, link_files, manifest_entries, read_listed
from scripts.lib.data.image_formats import describe_unread, is_read
from scripts.lib.data.image_paths import Components, is_image, is_junk, safe_component
from scripts.lib.data.label_files import KEY, LISTED, LONGEST_FILE
from scripts.lib.data.layouts import Layout
from scripts.lib.data.origins import NOT_AN_IMAGE, Contents, LeftOut, Origin, splits_by_name
from scripts.lib.data.split_words import WORDS
from scripts.lib.data.tar_archives import tar_ranges

logger = logging.getLogger(__name__)

IS_JUNK = "junk (hidden files, __MACOSX, Thumbs.db and the like)"
IS_LINK = "a link"
IS_ARCHIVE = "an archive inside the archive"
IS_PIECE = "a piece of an archive inside the archive"
#: Why nothing remains, to what to do.
REMEDIES = {
    IS_ARCHIVE: "unpack it once and give the folder, or list the archives in it as dataset.source, with label or split;"
    " where they are shards whose images have a .cls, .json or .txt beside them: in_place: true",
    IS_LINK: "pack the files that the links lead to (tar --dereference), or give the folder",
}

#: Where each entry of an archive goes below images/; None: nowhere.
Targets = list[str | None]


def sift(origin: Origin, kind: str, entries: Sequence[Entry], limits: Limits, left_out: LeftOut) -> Contents:
    """Find the images among the *entries* of an archive.

    Raises
    ------
    UserError : an entry, or the archive as a whole, is refused.
    """
    # Names are decoded one by one: all of them as text would fill memory.
    archive, oem = origin.archive, isinstance(entries, Entries) and entries.oem
    encoding = find_encoding((entry.name for entry in entries), origin.encoding, oem)
    if remark := encoding.describe(f"names in {origin.folder or archive.name}"):
        left_out.remarks.append(remark)
    names = (encoding.decode(entry.name) for entry in entries)
    backslashes = not any("/" in name for name in names)  # some Windows tools write them between folders
    folders: dict[str, str] = {}  # each is held once
    images: list[int] = []
    paths: list[Components] = []
    for index, entry in enumerate(entries):
        name = encoding.decode(entry.name)
        check_name(archive, name)
        if entry.kind == "device":
            raise UserError(f"{archive}: refused: its entry {name!r} is a device or a pipe; nothing was written")
        if entry.kind == "link":
            check_link(archive, name, entry.target)
        if entry.kind == "folder":
            continue
        components = tuple(c for c in re.split(r"[/\\]" if backslashes else "/", name) if c not in ("", "."))
        if not components or is_junk(components):
            left_out.add(name, IS_JUNK)
        elif entry.kind == "link":
            left_out.add(name, IS_LINK)
        elif not is_image(components[-1]) and not is_read(entry.format):
            what = describe_unread(entry.format) if entry.format else NOT_AN_IMAGE
            inner = IS_PIECE if piece_of(components[-1]) else IS_ARCHIVE if names_archive(components[-1]) else what
            left_out.add(name, inner)
        else:
            images.append(index)
            paths.append((*(folders.setdefault(name, name) for name in components[:-1]), components[-1]))
    check_number([archive], len(images), limits)
    return Contents(kind, entries, encoding, images, paths)


def check_number(archives: Sequence[Path], images: int, limits: Limits) -> None:
    """Refuse more images than the limits allow."""
    if images > limits.images:
        raise UserError(
            f"{', '.join(map(str, archives))}: refused: {images} images, more than {limits.images} (--max-images);"
            " nothing was written"
        )


def plan(origins: Sequence[Origin], contents: Sequence[Contents], limits: Limits, left_out: LeftOut) -> list[Targets]:
    """Decide where each entry of each archive goes below images/; None: nowhere.

    Archives of which the settings say nothing are looked at together, as if they were one; so are those that share
    their files of labels.

    Raises
    ------
    UserError : the settings and the archives do not fit each other.
    """
    targets_of: list[list[Components | str]] = [[] for _ in origins]
    has_splits = [False for _ in origins]
    names = _names_of_classes(origins, contents, limits, left_out.remarks)
    placed = samples.targets(origins, contents, limits, left_out, names)
    for index, split in _splits_of_shards(origins, placed, left_out).items():
        placed[index] = [to if isinstance(to, str) else (split, *to) for to in placed[index]]
        has_splits[index] = True
    for index, to_of_sample in placed.items():
        targets_of[index] = to_of_sample
    for group in _planned_together(origins, placed):
        paths = [path for index in group for path in contents[index].paths]
        layout = _layout(origins, contents, group, paths, limits)
        left_out.remarks += layout.remarks
        layout_of_group = iter(layout.targets)
        for index in group:
            targets_of[index] = [next(layout_of_group) for _ in contents[index].paths]
            has_splits[index] = layout.has_splits
        splits = {} if layout.has_splits else splits_by_name({index: origins[index].name for index in group})
        for index, split in splits.items():
            targets_of[index] = [to if isinstance(to, str) else (split, *to) for to in targets_of[index]]
            has_splits[index] = True
            left_out.remarks.append(f"dataset.source.{index} is read as {split} by its name, {origins[index].name!r}")
    check_splits(targets_of, has_splits)
    taken = image_paths.Taken()
    planned: list[Targets] = []
    renamed: list[str] = []
    for content, layout_of_archive in zip(contents, targets_of, strict=True):
        targets: Targets = [None] * len(content.entries)
        for index, target in zip(content.images, layout_of_archive, strict=True):
            if isinstance(target, str):
                left_out.add(content.name(index), target)
            else:
                path = targets[index] = taken.take([safe_component(component) for component in target])
                if path != "/".join(target):
                    renamed.append(f"{path!r} for {content.name(index)!r}")
        planned.append(targets)
    if renamed:
        left_out.remarks.append(f"{plural(len(renamed), 'image')} under another name, such as {renamed[0]}")
    return planned


def _names_of_classes(
    origins: Sequence[Origin], contents: Sequence[Contents], limits: Limits, remarks: list[str]
) -> list[str]:
    """Return the names of the classes where the settings give only those, and each sample says its number."""
    for index, origin in enumerate(origins):
        if isinstance(origin.labels, Mapping) and samples.names_only(origin):
            read = partial(read_label_file, origins=origins, contents=contents, group=[index], limits=limits)
            return label_files.read_names(origin.labels, read, remarks, origin.encoding)
    return []


def _splits_of_shards(origins: Sequence[Origin], placed: Collection[int], left_out: LeftOut) -> dict[int, str]:
    """Return the splits of archives of samples: as the settings say, else by their names but for their numbers."""
    if splits := {index: split for index in placed if (split := origins[index].split)}:
        return splits
    splits = splits_by_name({index: re.sub(r"[\W_]*\d+(?=\.|$)", "", origins[index].name) for index in placed})
    if splits:
        counts = Counter(splits.values())
        told = ", ".join(f"{plural(counts[split], 'shard')} as {split}" for split in WORDS if split in counts)
        left_out.remarks.append(f"read by their names: {told}")
    return splits


def _planned_together(origins: Sequence[Origin], placed: Collection[int]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for index, origin in enumerate(origins):
        if index in placed:
            continue
        if samples.names_only(origin):
            what = f"{KEY}: it names only classes, but no image has a .cls, .json or .txt beside it that says which"
            raise UserError(what, "name a file for train, val or test")
        alone = origin.labels is None and (origin.split or origin.label)
        key = str(index) if alone else json.dumps([origin.labels, origin.split, origin.folders])
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _layout(
    origins: Sequence[Origin],
    contents: Sequence[Contents],
    group: Sequence[int],
    paths: Sequence[Components],
    limits: Limits,
) -> Layout:
    """Return where the images of archives that are planned together go."""
    origin = origins[group[0]]
    if not paths:
        return Layout([], [], False)
    if origin.labels is not None:
        read = partial(read_label_file, origins=origins, contents=contents, group=group, limits=limits)
        remarks: list[str] = []
        rows = label_files.read_labels(origin.labels, read, remarks, origin.encoding)
        if origin.split:
            rows = [replace(row, split=origin.split) for row in rows if row.split in ("", origin.split)]
        table = origin.labels if isinstance(origin.labels, str) else " and ".join(origin.labels.values())
        targets, more = label_files.place_images(rows, paths, table)
        named = {label_files.class_folder(row.label) for row in rows}
        placed = [to for to in targets if not isinstance(to, str)]
        return Layout(
            targets, [*remarks, *more], all(len(to) > 2 and to[0] in WORDS and to[1] in named for to in placed)
        )
    if origin.label is not None:
        label = label_files.class_folder(origin.label)
        return layouts.find_splits_of_class(paths, label, origin.split, origin.folders)
    if origin.split:
        layout = layouts.find_classes(paths, origin.folders)
        split = origin.split
        targets = [to if isinstance(to, str) else (split, *to) for to in layout.targets]
        return Layout(targets, layout.remarks, True)
    return layouts.find_layout(paths, origin.folders)


def extract(
    archive: Path,
    kind: str,
    limits: Limits,
    targets: Sequence[str | None],
    hard_links: Mapping[int, int],
    folder: Path,
    total: int,
) -> None:
    """Write the entries that have a target below *folder*, which exists and is ours alone.

    A hard link becomes one: to the file that the archive has it to, wherever that goes, else to its first other name.
    """
    targets, made = list(targets), {folder}
    links: list[tuple[str, str]] = []
    for index, original in hard_links.items():
        if target := targets[index]:
            targets[index] = None
            first = targets[original] = targets[original] or target
            links += [(first, target)] if first != target else []
    with damage(archive), Progress("unpacking", 0, total) as progress:
        for target, size, content in open_contents(archive, kind, limits, targets):
            path = folder / target
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            written = 0
            with open(path, "xb") as file:
                while chunk := content.read(CHUNK):
                    written += len(chunk)
                    if written > size:
                        raise Damaged(f"{archive}: refused: {target!r} holds more than the {size} bytes it declares")
                    file.write(chunk)
                    progress.advance(len(chunk))
            if written != size:
                raise Damaged(f"{archive}: damaged or truncated ({target!r} ends after {written} of {size} bytes)")
    for first, target in links:
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        os.link(folder / first, folder / target)


def check_splits(targets_of: Sequence[Sequence[Components | str]], has_splits: Sequence[bool]) -> None:
    """Refuse archives some of which give their images a split and some do not, and classes that look like splits."""
    placed = [{target[0] for target in layout if not isinstance(target, str)} for layout in targets_of]
    with_split = [index for index, names in enumerate(placed) if names and has_splits[index]]
    without = [index for index, names in enumerate(placed) if names and not has_splits[index]]
    if with_split and without:
        raise UserError(
            f"dataset.source.{without[0]}: its images are in no split (train, val, test), those of"
            f" dataset.source.{with_split[0]} are: add `split:` to dataset.source.{without[0]}"
        )
    names = set[str]().union(*placed)
    if without and names <= WORDS.keys():
        raise UserError(
            f"dataset.source: classes that are called {' and '.join(sorted(names))}, and no others, cannot be told from"
            " splits",
            f"rename one of them, or name the folders of the splits in {layouts.KEY}",
        )


def read_label_file(
    name: str, origins: Sequence[Origin], contents: Sequence[Contents], group: Sequence[int], limits: Limits
) -> bytes:
    """Return the content of a file of labels: a local one that was kept, else one in an archive of *group*, else in
    any other archive.

    Raises
    ------
    UserError : there is none, or several.
    """
    kept = origins[group[0]].kept.get(name)
    if kept is not None:
        content = Path(kept).read_bytes()
        if len(content) > LONGEST_FILE:
            raise UserError(f"{KEY}: {name} is larger than {megabytes(LONGEST_FILE)}")
        return content
    others = [number for number in range(len(origins)) if number not in group]
    for numbers in (group, others):
        matches = [(number, index) for number in numbers for index in find_file(contents[number], name)]
        if len(matches) > 1:
            first = " and ".join(repr(contents[number].name(index)) for number, index in matches[:2])
            raise UserError(f"{KEY}: {name!r} may mean {first}: write the folders, too")
        if matches:
            number, index = matches[0]
            return read_entry(origins[number], contents[number], index, limits)
    texts = [
        entry_name
        for content in contents
        for entry, entry_name in zip(content.entries, content.names(), strict=True)
        if entry.kind == "file" and entry_name.lower().endswith(label_files.SUFFIXES)
    ]
    archives = ", ".join(str(origin.archive) for origin in origins)
    there = f"there are {', '.join(map(repr, texts[:LISTED]))}" if texts else "there is no table or text"
    raise UserError(f"{KEY}: no file {name!r} in {archives}, nor here: {there}")


def find_file(content: Contents, name: str) -> list[int]:
    """Return the entries that *name* may mean, whose leading folders may be omitted: those nearest to the root."""
    wanted = [component for component in name.replace("\\", "/").split("/") if component not in ("", ".")]
    ends = []
    for index, (entry, path) in enumerate(zip(content.entries, content.names(), strict=True)):
        if entry.kind == "file" and path.endswith(wanted[-1]):
            components = [component for component in re.split(r"[/\\]", path) if component not in ("", ".")]
            if is_junk(components):
                continue
            if components[-len(wanted) :] == wanted:
                ends.append((len(components), index))
    nearest = min(ends, default=(0, 0))[0]
    return [index for depth, index in ends if depth == nearest]


def read_entry(origin: Origin, content: Contents, index: int, limits: Limits) -> bytes:
    """Return the content of one entry, a text."""
    index = hard_links_of(content).get(index, index)
    name, size = content.name(index), content.entries[index].size
    if size > LONGEST_FILE:
        raise UserError(f"{KEY}: {name} in {origin.archive} is larger than {megabytes(LONGEST_FILE)}")
    if origin.folder is not None:
        return read_listed(origin.archive, origin.folder, index)
    only: list[str | None] = [None] * len(content.entries)
    only[index] = name
    with damage(origin.archive):
        for _, _, stream in open_contents(origin.archive, content.kind, limits, only):
            text = stream.read(size + 1)
            if len(text) != size:
                raise Damaged(f"{origin.archive}: damaged or truncated ({name!r} has not the {size} bytes it declares)")
            return text
    raise AssertionError("an entry that was listed is there")


def hard_links_of(content: Contents) -> Mapping[int, int]:
    """Return of each entry that is another name of an earlier one which one that is."""
    return content.entries.hard_links if isinstance(content.entries, Entries) else {}


def read_origin(origin: Origin, kind: str, limits: Limits, left_out: LeftOut) -> Contents:
    """Return what one archive holds."""
    if origin.folder is not None:
        return sift(origin, MANIFEST, manifest_entries(origin.archive, origin.folder), limits, left_out)
    return sift(origin, kind, read_entries(origin.archive, kind, limits), limits, left_out)


def unpack(archive: Path, output: Path, limits: Limits) -> None:
    """Unpack *archive* as the folder *output*, which appears only when it is whole."""
    unpack_all([Origin(archive)], output, limits)


def unpack_all(origins: Sequence[Origin], output: Path, limits: Limits) -> LeftOut:
    """Unpack the archives of one data set as the folder *output*, which appears only when it is whole.

    Returns
    -------
    What was left out, and what was decided without a setting.
    """
    remove_leftovers(output)
    with ExitStack() as stack:
        return _unpack_all(origins, output, limits, stack)


def _unpack_all(origins: Sequence[Origin], output: Path, limits: Limits, stack: ExitStack) -> LeftOut:
    left_out = LeftOut()
    for origin in origins:
        left_out.counts.update(find_json(left_out_beside(origin.archive)))
    origins = [shard for origin in origins for shard in samples.expand(origin, left_out)]
    contents, bare = [], []  # origins without a second compression
    for number, origin in enumerate(origins):
        kind = sniff_format(origin.archive) if origin.folder is None else MANIFEST
        folder = output.with_name(f".{output.stem}.{os.getpid()}.{number}.tmp{output.suffix}")
        path, kind, own_limits = stack.enter_context(unwrapped(origin.archive, kind, limits, folder))
        bare.append(replace(origin, archive=path))
        contents.append(read_origin(bare[-1], kind, own_limits, left_out))
    origins = bare
    check_number([origin.archive for origin in origins], sum(len(content.images) for content in contents), limits)
    planned = plan(origins, contents, limits, left_out)
    kinds = [content.kind for content in contents]
    in_place = [origin.is_shard and kind == "tar" for origin, kind in zip(origins, kinds, strict=True)]
    left_out.remarks += describe_shards(origins, in_place)
    report(planned, left_out, origins)
    totals = [
        sum(entry.size for entry, target in zip(content.entries, targets, strict=True) if target is not None)
        for content, targets in zip(contents, planned, strict=True)
    ]
    hard_links = [hard_links_of(content) for content in contents]
    del contents
    output.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(output.parent).free
    stays = [bool(origin.folder) or indexed for origin, indexed in zip(origins, in_place, strict=True)]
    total = sum(size for size, there in zip(totals, stays, strict=True) if not there)
    if total > free:
        raise UserError(
            f"no space left for {output}: the images take {megabytes(total)}, {megabytes(free)} are free:"
            " free some and run the same command again"
        )
    with atomic_path(output) as temporary:
        temporary.mkdir()
        images: list[Range] = []
        for number, (origin, targets) in enumerate(zip(origins, planned, strict=True)):
            if in_place[number]:
                images += tar_ranges(origin.archive, limits, targets, hard_links[number])
            elif origin.folder is not None:
                link_files(origin.archive, origin.folder, targets, temporary)
            else:
                extract(
                    origin.archive, kinds[number], limits, targets, hard_links[number], temporary, totals[number]
                )  # fmt: skip
        if images:
            write_index(temporary, images)
    targets = [target for targets in planned for target in targets]
    logger.info("%s %s", "linked" if all(stays) else "unpacked", summary(targets))
    return left_out


def describe_shards(origins: Sequence[Origin], in_place: Sequence[bool]) -> list[str]:
    """Return which shards of a folder that is read in place are read there, and which cannot be."""
    compressed = sum(origin.is_shard for origin in origins) - sum(in_place)
    lines = [f"images are read where they lie, in {plural(sum(in_place), 'tar shard')}"] if any(in_place) else []
    what = f"{plural(compressed, 'compressed shard')} cannot be read in place: the images of these are unpacked"
    return [*lines, *([what] if compressed else [])]


def report(planned: Sequence[Targets], left_out: LeftOut, origins: Sequence[Origin]) -> None:
    """Say what is left out, one line a reason, and which classes look alike; stop when nothing remains."""
    for line in left_out.lines():
        logger.info("%s", line)
    for note in left_out.remarks:
        logger.warning("%s", note)
    classes = {name for _, name in map(split_target, filter(None, chain.from_iterable(planned)))}
    remedy = next((remedy for reason, remedy in REMEDIES.items() if reason in left_out.counts), "")
    if IS_PIECE in left_out.counts:
        before = "" if all(origin.folder for origin in origins) else "unpack it once, then "
        remedy = before + piece_of(left_out.examples[IS_PIECE].rpartition("/")[2])
    why = "; ".join(f"{plural(count, 'file')}: {reason}" for reason, count in sorted(left_out.counts.items()))
    if not classes:
        raise UserError(
            f"{', '.join(str(origin.archive) for origin in origins)}: no image in a class folder"
            f" (left out: {why or 'nothing, it is empty'})",
            remedy or "an archive must hold one folder a class with its images in it",
        )
    if len(classes) == 1 and remedy:  # split_dataset refuses it, and does not know what was left out
        logger.warning("images in one class folder only (left out: %s): %s", why, remedy)
    if warning := describe_alike(sorted(classes)):
        logger.warning("%s", warning)


def split_target(target: str) -> tuple[str, str]:
    """Return split ("" for none) and class folder of an image below images/."""
    first, *rest = target.split("/")
    return (first, rest[0]) if first in WORDS and len(rest) > 1 else ("", first)


def summary(targets: Sequence[str | None]) -> str:
    """Return one line: how many images of how many classes, and in which splits."""
    splits: Counter[str] = Counter()
    classes = set()
    for target in targets:
        if target is not None:
            split, name = split_target(target)
            splits[split] += 1
            classes.add(name)
    by_split = ", ".join(f"{split} {splits[split]}" for split in ("train", "val", "test") if splits[split])
    return f"{plural(sum(splits.values()), 'image')} of {plural(len(classes), 'class')}" + (
        f" ({by_split})" if by_split else ""
    )
