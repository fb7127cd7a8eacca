"""Decide under which split and class an image of an archive goes, by the folders that it lies in: pure functions.

What cannot be told from names is never guessed in silence: folders that may be splits, variants or classes are
refused, and ``dataset.source.folders`` says what they are.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, NoReturn, TypeVar

from scripts.lib.base.problems import UserError
from scripts.lib.data.image_paths import Components
from scripts.lib.data.split_words import SplitName, read_split_name

NO_CLASS = "outside any class folder"
NO_SPLIT = "outside the train, val and test folders"
#: The setting, as messages name it.
KEY = "dataset.source.folders"
#: How many names a message lists.
LISTED = 5

#: ``dataset.source.folders``: which folders are the classes where two levels may be, or split to its folders.
Folders = Literal["outer", "inner"] | Mapping[str, str | Sequence[str]]
#: Folders, and how many images lie directly in each.
Tree = Mapping[Components, int]
#: A folder, by its name or by its path.
Top = TypeVar("Top", str, Components)
#: Where the images of each folder go, ([split,] class, ...), or the reason why they are left out.
Places = dict[Components, Components | str]


class Layout(NamedTuple):
    """Where each image goes, ([split,] class, ..., file), or why it is left out; what was decided by names alone."""

    targets: list[Components | str]
    remarks: list[str]
    has_splits: bool


def find_layout(paths: Sequence[Components], folders: Folders | None = None) -> Layout:
    """Return where the images of an archive go, by their folders.

    The folders that all images share are stripped. Where what is left are folders called as train, val or test, with
    class folders inside, they are the splits; else the first folders are the classes (a vehicle data set may well have
    a class *train*). Splits inside class folders are turned round.

    Parameters
    ----------
    paths : folders and file name of each image, as they lie in the archive.
    folders : what the settings say of them.

    Raises
    ------
    UserError : folders that may be splits, variants or classes, of which *folders* does not say what they are.
    """
    tree = Counter(path[:-1] for path in paths)
    if folders is None or isinstance(folders, str):
        places, remarks, has_splits = _by_structure(tree, folders)
    else:
        places, remarks, has_splits = _by_settings(tree, folders), [], True
    return Layout(_of_images(paths, places), remarks, has_splits)


def find_classes(paths: Sequence[Components], folders: Folders | None = None) -> Layout:
    """Return where the images go, (class, ..., file), as :func:`find_layout` does, but without any split."""
    targets, remarks, has_splits = find_layout(paths, folders)
    if has_splits:
        targets = [target if isinstance(target, str) else target[1:] for target in targets]
        remarks = [
            f"{note}; they are joined, since dataset.source.split says which split all images are of"
            for note in remarks
        ]
    return Layout(targets, remarks, False)


def find_splits_of_class(
    paths: Sequence[Components], label: str, split: str | None = None, folders: Folders | None = None
) -> Layout:
    """Return where the images of the class *label* go, ([split,] class, ..., file).

    The folders that all images share are stripped; where those below are called as train, val or test, they are
    splits, unless all images belong to the given *split*.

    Raises
    ------
    UserError : only some of the folders are called as splits.
    """
    tree = Counter(path[:-1] for path in paths)
    depth = len(_common(tree))
    tops = {folder[depth] for folder in tree if len(folder) > depth}
    remarks: list[str] = []
    read = {top: name for top in tops if (name := read_split_name(top))}
    splits = {name.split for name in read.values()}
    if split:
        places: Places = {folder: (split, label, *folder[depth:]) for folder in tree}
    elif isinstance(folders, Mapping):
        named = _find_named(tree, folders)
        places = {f: (named[f].split, label, *named[f].left) if f in named else NO_SPLIT for f in tree}
    elif "train" in splits and read.keys() == tops and all(len(folder) > depth for folder in tree):
        places = {folder: (read[folder[depth]].split, label, *folder[depth + 1 :]) for folder in tree}
        remarks = [_told({top: name.split for top, name in read.items()})]
    else:
        if "train" in splits and len(splits) > 1:
            _refuse(f"of the folders of class {label!r}, {_listed(read)} are called as splits, others are not",
                    f"set {KEY}: {_suggested({top: name.split for top, name in read.items()})}")  # fmt: skip
        places = {folder: (label, *folder[depth:]) for folder in tree}
    return Layout(_of_images(paths, places), remarks, bool(split or remarks or isinstance(folders, Mapping)))


def _of_images(paths: Sequence[Components], places: Places) -> list[Components | str]:
    return [to if isinstance(to := places[path[:-1]], str) else (*to, path[-1]) for path in paths]


# --- by the settings --------------------------------------------------------------------------------------------------


class _Named(NamedTuple):
    """Where a folder lies by the settings: its split, by which name, and what is left of it without that name."""

    split: str
    name: Components
    left: Components


def _by_settings(tree: Tree, folders: Mapping[str, str | Sequence[str]]) -> Places:
    """Return where the images go where the settings name the folders of each split."""
    places_named = _find_named(tree, folders)
    by_name: dict[Components, dict[Components, int]] = defaultdict(dict)
    for folder, named in places_named.items():
        by_name[named.name][named.left] = tree[folder]
    wrapped = _wrappers(by_name)
    below = {folder: named.left[wrapped[named.name] :] for folder, named in places_named.items()}
    _check_names({left[0]: {} for left in below.values() if left})
    return {
        folder: NO_SPLIT
        if folder not in places_named
        else (places_named[folder].split, *below[folder])
        if below[folder]
        else NO_CLASS
        for folder in tree
    }


def _find_named(tree: Tree, folders: Mapping[str, str | Sequence[str]]) -> dict[Components, _Named]:
    """Return the folders that are in a split; those that are not named are train where no folder of train is named.

    Raises
    ------
    UserError : no image is in a folder of one of the names.
    """
    split_of = {
        tuple(composed(folder) for folder in name.split("/") if folder not in ("", ".")): split
        for split, names in folders.items()
        for name in ([names] if isinstance(names, str) else names)
    }
    places_named: dict[Components, _Named] = {}
    for folder in tree:
        plain = tuple(map(composed, folder))
        for start in range(len(plain)):  # the outermost; of several, the longest
            if names := [name for name in split_of if plain[start : start + len(name)] == name]:
                name = max(names, key=len)
                places_named[folder] = _Named(split_of[name], name, folder[:start] + folder[start + len(name) :])
                break
    for name in split_of.keys() - {named.name for named in places_named.values()}:
        there = {name for folder in tree for name in folder}
        _refuse(
            f"{KEY} names {'/'.join(name)!r}, but no image is in a folder of that name",
            f"there are {_listed(there)}" if there else "there are no folders",
        )
    if "train" in folders:
        return places_named
    return {folder: _Named("train", (), folder) for folder in tree} | places_named


# --- by the structure of the folders ----------------------------------------------------------------------------------


def _by_structure(tree: Tree, told: str | None) -> tuple[Places, list[str], bool]:
    """Return where the images go, what was decided by names alone, and whether there are splits."""
    depth = _shared_depth(tree)
    tops = _group(tree, depth)
    places: Places = {}
    remarks = []
    splits = _splits_of(tops)
    within = None if splits else _splits_within(tops)
    if splits:
        wrapped = _wrappers({top: tops[top] for top in splits})
        for folder in tree:
            top = folder[depth] if len(folder) > depth else ""
            inside = folder[depth + 1 + wrapped[top] :] if top in splits else ()
            places[folder] = (splits[top], *inside) if inside else NO_CLASS if top in splits else NO_SPLIT
        remarks.append(_told(splits))
    elif within:
        for folder in tree:
            top = folder[depth] if len(folder) > depth else ""
            at = depth + 1 + _shared_depth(tops.get(top, {}), is_split)
            places[folder] = (within[folder[at]], top, *folder[at + 1 :]) if len(folder) > at else NO_CLASS
        remarks.append(f"inside the class folders, {_told(within)}")
    else:
        places = {folder: folder[depth:] or NO_CLASS for folder in tree}
    first = int(bool(remarks))
    classes: dict[str, Counter[Components]] = defaultdict(Counter)
    for folder, to in places.items():
        if not isinstance(to, str):
            classes[to[first]][to[first + 1 :]] += tree[folder]
    if told is None:
        remarks += _check_classes(classes, splits or within or {})
    elif told == "inner":
        inner = {name: _shared_depth(below) for name, below in classes.items()}
        for folder, to in places.items():
            if not isinstance(to, str):
                at = first + 1 + inner[to[first]]
                places[folder] = (*to[:first], to[at], to[first], *to[at + 1 :]) if len(to) > at else NO_CLASS
    return places, remarks, bool(first)


def _splits_of(tops: Mapping[str, Tree]) -> dict[str, str] | None:
    """Return the splits that the first folders are: all are called so; or train with class folders, and another one.

    All say the same besides the split, such as the name of the data set.

    Raises
    ------
    UserError : one that is not called so has the classes of train.
    """
    read = {top: name for top in tops if (name := read_split_name(top))}
    alike: dict[Components, dict[str, str]] = defaultdict(dict)
    for top, name in read.items():
        alike[name.rest][top] = name.split
    several = [splits for splits in alike.values() if len(set(splits.values())) > 1]
    if not several and len(read) > 1 and _say_the_same(read.values()):
        several = [{top: name.split for top, name in read.items()}]
    if len(several) != 1:
        return None
    (splits,) = several
    if len(splits) == len(tops):
        return splits
    if not any(split == "train" and any(tops[top]) for top, split in splits.items()):
        return None
    classes = {name for top, names in _inner_names(tops).items() if top in splits for name in names}
    for top, names in _inner_names(tops).items():
        if top not in splits and _are_alike(names, classes):
            _refuse(
                f"beside {_listed(splits)} there is {top!r} with the same folders in it ({_listed(names & classes)})",
                f"set {KEY} to the folders of each split, such as {_suggested(splits)}, which leaves {top!r} out",
            )
    return splits


def _splits_within(tops: Mapping[str, Tree]) -> dict[str, str] | None:
    """Return the splits that the folders inside the first ones are, where each of those holds nothing else."""
    within: dict[str, str] = {}
    if any(name and name.is_no_class for name in map(read_split_name, tops)):
        return None
    for tree in tops.values():
        at = _shared_depth(tree, is_split)
        read = {folder[at] if len(folder) > at else "": None for folder in tree}
        names = {inner: name for inner in read if (name := read_split_name(inner))}
        if len(names) < len(read) or not _say_the_same(names.values()):
            return None
        within |= {inner: name.split for inner, name in names.items()}
    return within if "train" in within.values() else None


def _say_the_same(names: Collection[SplitName]) -> bool:
    """Tell whether names of splits say the same besides, or else only number the splits, as 1_train and 2_test do."""
    numbered = len({name.split for name in names}) == len(names)
    return len({tuple(filter(_is_word, name.rest)) if numbered else name.rest for name in names}) == 1


# --- what may be classes or not ---------------------------------------------------------------------------------------


def _check_classes(classes: Mapping[str, Tree], known: Collection[str]) -> list[str]:
    """Refuse classes that may be splits, or variants of a data set; return a note on those that only seem so.

    Parameters
    ----------
    known : the folders that are splits.

    Raises
    ------
    UserError : what they are cannot be told from their names; the message says which setting tells it.
    """
    if len(classes) < 2:
        return []
    for name, below in classes.items():
        children: dict[tuple[Components, Components], dict[str, str]] = defaultdict(dict)
        for folder in below:
            for depth, child in enumerate(folder):
                if read := read_split_name(child):
                    children[folder[:depth], read.rest][child] = read.split
        for (folder, _), splits in children.items():
            if "train" in splits.values() and len(set(splits.values())) > 1:
                inside = "/".join((name, *folder))
                _refuse(
                    f"the folders {_listed(splits)} in {inside!r} are called as splits, but not every folder beside it"
                    f" ({_listed(set(classes) - {name})}) holds such, and nothing else",
                    f"set {KEY}: {_suggested(splits)} if they are splits (the rest is left out), outer if"
                    f" {_listed(classes)} are the classes",
                )
    remarks = _check_names(classes, known)
    _check_nested(classes)
    return remarks + _check_alike(classes, has_splits=bool(known))


def _check_names(classes: Mapping[str, Tree], known: Collection[str] = ()) -> list[str]:
    """Refuse class folders some of which are called as splits; return a note on one that may well be a class."""
    read = {name: split for name in classes if (split := read_split_name(name))}
    alone = {name: split for name, split in read.items() if name in known or not any(map(_is_word, split.rest))}
    others = _listed(set(classes) - set(alone))
    named = {name: split.split for name, split in alone.items()}
    if len(classes) > 1 and (len(alone) > 1 or any(name in known or alone[name].is_no_class for name in alone)):
        _refuse(
            f"folders called as splits ({_listed(alone)}) "
            + (f"are beside others ({others})" if others else "are alike"),
            f"set {KEY}: {_suggested(named)} if they are splits, outer if they are classes",
        )
    both: dict[Components, set[str]] = defaultdict(set)
    for split in read.values():
        both[split.rest].add(split.split)
    if mixed := [name for name, split in read.items() if len(both[split.rest]) > 1]:
        _refuse(
            f"its folders {_listed(mixed)} name a class and a split at once",
            f"make folders for the splits with the class folders inside, or set {KEY}: outer if each is a class",
        )
    return [f"the folder {name!r} is read as a class, since those beside it are: {others}" for name in alone]


def _check_nested(classes: Mapping[str, Tree]) -> None:
    """Refuse a class folder that holds folders of the names of the others."""
    tops = {composed(name).casefold() for name in classes}
    for name, names in _inner_names(classes).items():
        if len(shared := names & (tops - {composed(name).casefold()})) > 1:
            _refuse(
                f"its folder {name!r} holds folders called as those beside it ({_listed(shared)})",
                f"move it away, or set {KEY}, to {_suggested({name: 'test'})} if it is a split, with no image that the"
                " others have in any form, or to outer if it is a class",
            )


def _check_alike(classes: Mapping[str, Tree], has_splits: bool) -> list[str]:
    """Refuse class folders that hold the same folders: they may be splits, folds, variants, patients or classes.

    A few among many are classes; a note says so.
    """
    inner = _inner_names(classes)
    size = {name: sum(classes[name].values()) for name in classes}
    largest = sorted(inner, key=lambda name: -size[name])[:20]
    groups = [[name for name in inner if _are_alike(inner[name], inner[first])] for first in largest]
    group = max(groups, key=len, default=[])
    if len(group) < 2:
        return []
    if 2 * len(group) < len(classes) and 2 * sum(size[name] for name in group) < sum(size.values()):
        return [f"the folders {_listed(group)} are read as classes, though they hold the same folders"]
    shared = sorted(set.intersection(*(inner[name] for name in group)) or inner[group[0]])
    # Variants of an image in two splits make a result too good: only numbered folders may be an example of splits.
    numbered = len({re.sub(r"\d+", "", name) for name in group}) == 1
    splits = _suggested({max(group): "test"}) if numbered else "the folders of each split"
    others = f", {_suggested({group[0]: 'train'})} to use that one only, or, if no two show the same image, {splits}"
    _refuse(
        f"its folders {_listed(group)} hold the same folders, {_listed(shared)}: they may be classes, splits, or"
        " variants of the same images",
        f"set {KEY}: outer if {group[0]!r} is a class, inner if {shared[0]!r} is one (dataset.split.group_by keeps the"
        f" variants of an image in one split){'' if has_splits else others}",
    )


def _inner_names(tops: Mapping[str, Tree]) -> dict[str, set[str]]:
    """Return the names of the folders in each of *tops*, without regard to case; of none that holds images itself."""
    names: dict[str, set[str]] = {}
    for top, tree in tops.items():
        if 4 * tree.get((), 0) <= sum(tree.values()):
            at = _shared_depth(tree)
            names[top] = {composed(folder[at]).casefold() for folder in tree if len(folder) > at}
    return names


def _are_alike(names: Collection[str], others: Collection[str]) -> bool:
    shared = len(set(names) & set(others))
    return shared > 1 and 2 * shared >= min(len(names), len(others))


# --- folders ----------------------------------------------------------------------------------------------------------


def _group(tree: Tree, depth: int) -> dict[str, dict[Components, int]]:
    """Return the folders below each folder at *depth*."""
    tops: dict[str, dict[Components, int]] = defaultdict(dict)
    for folder, count in tree.items():
        if len(folder) > depth:
            tops[folder[depth]][folder[depth + 1 :]] = count
    return dict(tops)


def _shared_depth(tree: Iterable[Components], stays: object = None) -> int:
    """Return how many leading folders all images share, unless that leaves no folder: then the last is the only class.

    Images that lie directly in one of those folders (a cover, a sample picture) do not keep it.
    """
    tree = list(tree)
    depth = 0
    while len(names := {folder[depth] for folder in tree if len(folder) > depth}) == 1:
        if stays and is_split(*names):
            return depth
        depth += 1
    return depth if names else min((len(folder) - 1 for folder in tree if folder), default=0)


def _wrappers(tops: Mapping[Top, Tree]) -> dict[Top, int]:
    """Return how many folders stand between each of *tops* and its classes: those that all share, or its own."""
    together = _shared_depth(folder for tree in tops.values() for folder in tree)
    separate = {top: _shared_depth(tree) for top, tree in tops.items()}
    result = {}
    for top, tree in tops.items():
        others = {
            name
            for other in tops
            if other != top
            for at in (together, separate[other])
            for name in _at(tops[other], at)
        }
        depths = (together, separate[top])
        result[top] = max(depths, key=lambda at: len(_at(tree, at) & others))
        if len(names := _at(tree, result[top])) == 1 and is_split(*names):  # test/test/1.jpg, without classes
            result[top] += 1
    return result


def _at(tree: Tree, depth: int) -> set[str]:
    return {folder[depth] for folder in tree if len(folder) > depth}


def _common(folders: Collection[Components]) -> Components:
    """Return the leading folders that all of *folders* share."""
    if not folders:
        return ()
    first, last = min(folders), max(folders)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]


def is_split(name: str) -> bool:
    """Tell whether a folder is called as a split."""
    return read_split_name(name) is not None


def composed(name: str) -> str:
    """Return *name* with composed Unicode: file systems store it in either form."""
    return unicodedata.normalize("NFC", name)


def _is_word(token: str) -> bool:
    return not token.isdigit()


# --- messages ---------------------------------------------------------------------------------------------------------


def _refuse(what: str, remedy: str) -> NoReturn:
    raise UserError(f"dataset.source: {what}", remedy)


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - LISTED} more" if len(ordered) > LISTED else ""
    return ", ".join(map(repr, ordered[:LISTED])) + more


def _told(splits: Mapping[str, str]) -> str:
    shown = [f"{folder!r} as {split}" for folder, split in sorted(splits.items())]
    more = f" and {len(shown) - LISTED} more" if len(shown) > LISTED else ""
    return f"folders are read as splits by their names: {', '.join(shown[:LISTED])}{more}"


def _suggested(splits: Mapping[str, str]) -> str:
    """Return a value of ``folders`` as people write it in YAML."""
    by_split: dict[str, list[str]] = defaultdict(list)
    for folder, split in sorted(splits.items()):
        by_split[split].append(
            folder if re.fullmatch(r"[^\W\d]\w*", folder) else json.dumps(folder, ensure_ascii=False)
        )
    texts = {split: names[0] if len(names) == 1 else f"[{', '.join(names)}]" for split, names in by_split.items()}
    return "{" + ", ".join(f"{split}: {text}" for split, text in texts.items()) + "}"
