"""Read which class each image has where its folder does not say it: from a CSV table or from annotation files.

Pure functions over texts and names. A table has a row an image (``file,label[,split]``); annotation files are those
that mmcls reads, a file a split with lines ``path label``.
"""

from __future__ import annotations

import csv
import io
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data.annotation_files import Row, lines_of, name_labels, read_annotations
from scripts.lib.data.image_paths import Components, is_image, is_junk, safe_component
from scripts.lib.data.label_text import KEY, read_text
from scripts.lib.data.split_columns import SplitColumns
from scripts.lib.data.split_words import WORDS, folder_splits, read_split_name

#: How people head the columns of such tables; of several, the first here is taken.
FILE_COLUMNS = (
    "path", "filepath", "file_path", "image_path", "img_path", "file", "filename", "file_name", "image", "image_name",
    "img", "img_name", "image_id", "img_id", "id", "name", "文件名", "文件", "图片", "图像", "路径",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "class", "category", "label_name", "class_name", "category_name", "labels", "target", "species", "breed",
    "标签", "类别", "分类",
)  # fmt: skip
DELIMITERS = ",;\t|"
#: The first line by which Excel knows the delimiter.
SEP = re.compile(r'"?sep=(.)"?,*', re.IGNORECASE)
#: Suffixes of files with lines ``path label``, where such a file is given alone.
ANNOTATION_SUFFIXES = (".txt", ".lst")
SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", *ANNOTATION_SUFFIXES)
#: Largest file of labels in bytes: it is read into memory.
LONGEST_FILE = 512 * 1024 * 1024
#: How many names a message lists, and characters of a cell.
LISTED, LONGEST_CELL = 5, 60

#: ``dataset.source.labels``: a file, or what (train, val, test, classes) to a file each.
Spec = str | Mapping[str, str]


def read_labels(
    spec: Spec, read: Callable[[str], bytes], remarks: list[str] | None = None, encoding: str | None = None
) -> list[Row]:
    """Return the rows of the files that *spec* names.

    Parameters
    ----------
    read : returns the content of a file named in *spec*.
    remarks : what to tell is added to them.
    encoding : of :func:`read_text`.

    Raises
    ------
    UserError : a file that cannot be understood; file, line and remedy are named.
    """

    remarks = [] if remarks is None else remarks

    def text_of(name: str, columns: Collection[str] = FILE_COLUMNS) -> str:
        return read_text(name, read(name), columns, encoding, remarks.append)

    if isinstance(spec, str):
        text = text_of(spec)
        return read_annotations(spec, text, "") if _is_annotations(spec, text) else read_table(spec, text, remarks)
    classes = None
    if "classes" in spec:
        classes = read_names(spec, read, remarks, encoding)
    rows = [
        row
        for split, name in spec.items()
        if split != "classes"
        for row in read_annotations(name, text_of(name), split, classes)
    ]
    if classes is None:
        return rows
    named = name_labels(rows, classes, spec["classes"])
    if rows != named:
        remarks.append(f"labels are read as positions in {spec['classes']}: 0 is {classes[0]!r}")
    return named


def read_names(
    spec: Mapping[str, str], read: Callable[[str], bytes], remarks: list[str], encoding: str | None = None
) -> list[str]:
    """Return the names of the classes in the file that *spec* names, one a line; the rest as of :func:`read_labels`."""
    text = read_text(spec["classes"], read(spec["classes"]), (), encoding, remarks.append)
    names = [name for line in lines_of(text) if (name := line.strip())]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{KEY}.classes: {spec['classes']} names {twice[0]!r} twice")
    return names


def _is_annotations(name: str, text: str) -> bool:
    first = next((line for line in lines_of(text) if line.strip()), "")
    return name.lower().endswith(ANNOTATION_SUFFIXES) and not any(char in first for char in DELIMITERS)


# --- tables -----------------------------------------------------------------------------------------------------------


def read_table(name: str, text: str, remarks: list[str] | None = None) -> list[Row]:
    """Return the rows of a CSV table; its columns are found by their names, its delimiter is comma, semicolon or tab.

    A table without a heading is understood where its first column holds names of images.
    """
    lines = lines_of(text)
    if declared := SEP.fullmatch(lines[0]):
        lines[0] = ""
    first = next((line for line in lines if line.strip()), "")
    likely = max(DELIMITERS, key=lambda char: len(next(csv.reader([first], delimiter=char), [])))
    reader = csv.reader(
        io.StringIO("\n".join(lines), newline=""), delimiter=declared[1] if declared else likely,
        skipinitialspace=True,
    )  # fmt: skip
    columns: tuple[int, int] | None = None
    rows = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _find_columns(name, cells)
                is_heading = not is_image(cells[columns[0]].strip())
                names = cells if is_heading else ["", "", "split"][: len(cells)]
                split_columns = SplitColumns(names, columns)
                if is_heading:
                    continue
            if any(cell.strip() for cell in cells[len(names) :]):
                raise csv.Error(f"{len(cells)} cells, where the first line has {len(names)}")
            file, label = (cells[index].strip() if index < len(cells) else "" for index in columns)
            if "\n" in file + label:
                raise csv.Error("a name goes over several lines")
            rows.append(Row(file, label, "", (name, reader.line_num)))
            split_columns.add(cells)
        if text.count('"') % 2 and rows and any("\n" in cell for cell in cells):
            raise csv.Error("a cell goes on to the end of the file")
    except csv.Error as error:
        raise UserError(
            f"{KEY}: {name}, line {reader.line_num}: no valid CSV ({error})",
            "look for a quote that is not closed, or a name with a comma that needs quotes",
        ) from error
    if not rows:
        raise UserError(f"{KEY}: {name} has no rows: it must have a heading and a row an image, as file,label")
    splits, assumed = split_columns.find()
    if remarks is not None:
        assert columns is not None
        remarks += _describe_columns(name, names if is_heading else None, columns)
        if likely != "," and not declared:
            remarks.append(f"{name}: its columns are separated by {likely!r}")
        remarks += [f"{name}: {note}" for note in assumed]
    return rows if splits is None else [_in_split(row, word) for row, word in zip(rows, splits, strict=True)]


def _names(heading: Sequence[str]) -> list[str]:
    return [" ".join(cell.split()).lower().replace(" ", "_") for cell in heading]


def _find_columns(name: str, heading: Sequence[str]) -> tuple[int, int]:
    """Return the indices of the columns of file and label."""
    names = _names(heading)
    file, label = (next((names.index(known) for known in all_known if known in names), None)
                   for all_known in (FILE_COLUMNS, LABEL_COLUMNS))  # fmt: skip
    if file is None and label is None and is_image(heading[0].strip()) and len(heading) in (2, 3):
        return 0, 1
    if any(is_image(cell.strip()) for cell in heading):
        row = ", ".join(repr(cell.strip()[:LONGEST_CELL]) for cell in heading[:LISTED])
        raise UserError(
            f"{KEY}: {name} has no heading: its first line is a row ({row})",
            f"write a line above it that names its {plural(len(heading), 'column')}, as file,label,...",
        )
    for index, what, known in ((file, "files", "file"), (label, "classes", "label")):
        if index is not None and names.count(names[index]) > 1:
            raise UserError(f"{KEY}: {name} has two columns {heading[index].strip()!r}", "rename the one not meant")
        if index is None:
            columns = ", ".join(repr(cell.strip()[:LONGEST_CELL]) for cell in heading[: 2 * LISTED])
            raise UserError(f"{KEY}: {name} has no column of {what} (its columns: {columns}): name one {known!r}")
    assert file is not None and label is not None
    return file, label


def _describe_columns(name: str, heading: Sequence[str] | None, columns: tuple[int, int]) -> list[str]:
    """Say which columns are those of file and label, where they are not called so; *heading*: None without one."""
    if heading is None:
        return [f"{name} has no heading: files are read from its first column, classes from its second"]
    file, label = (heading[index].strip() for index in columns)
    if (file, label) == ("file", "label"):
        return []
    return [f"{name}: files are read from the column {file!r}, classes from {label!r}"]


def _in_split(row: Row, word: str) -> Row:
    if word and word not in WORDS:
        raise UserError(f"{KEY}: {row}: {word!r} is no split of a data set: write train, val or test")
    return replace(row, split=word)


# --- which row is which image's -------------------------------------------------------------------------------------


def place_images(
    rows: Sequence[Row], paths: Sequence[Components], name: str
) -> tuple[list[Components | str], list[str]]:
    """Return where each image goes, ([split,] class, ..., file), or why not, as the rows say; and what to tell.

    A row's path and an image's agree where one ends with the other, so that shared top folders may be missing
    in either. Where no name agrees, upper and lower case and the suffix may differ. Folders that all labelled images
    share are stripped; where the rows name no splits, folders called train, val or test do.

    Parameters
    ----------
    paths : folders and file name of each image, as they lie in the archive.
    name : of the file of labels, for messages.

    Raises
    ------
    UserError : no row names an image; a row may mean several; two rows contradict each other.
    """
    row_of: list[Row | None] = [None] * len(paths)
    unknown, twice = [], 0
    find = _Finder(paths)
    for row in rows:
        index = find(row)
        if index is None:
            unknown.append(row)
            continue
        other = row_of[index]
        if other is None:
            row_of[index] = row
        elif (other.label, other.split) == (row.label, row.split):
            twice += 1
        else:
            what = [f"{each.label!r}" + (f" in {each.split}" if each.split else "") for each in (other, row)]
            raise UserError(
                f"{KEY}: {'/'.join(paths[index])!r} is {what[0]} ({other}) and {what[1]} ({row}):"
                " an image has one class and one split: correct one of the lines"
            )
    if len(unknown) == len(rows):
        image = f"{'/'.join(paths[0])!r}" if paths else "there is none"
        words = rows[0].file.split()
        has_more = len(words) > 1 and any(find(replace(rows[0], file=word)) is not None for word in words)
        raise UserError(
            f"{KEY}: none of {plural(len(rows), 'row')} of {name} names one of {plural(len(paths), 'image')}"
            f" (its first names {rows[0].file!r}; the first image: {image})",
            "its lines have more columns than path and label: leave these two" if has_more
            else "check its column of files",
        )  # fmt: skip
    remarks = _describe_rows(rows, unknown, twice, find.inexact, name)
    remarks += _describe_renamed({row.label for row in row_of if row and row.label}, name)
    targets, remark = _targets(row_of, paths, name)
    return targets, [*remarks, *filter(None, [remark])]


def _describe_rows(
    rows: Sequence[Row], unknown: Sequence[Row], twice: int, inexact: Sequence[tuple[str, str]], name: str
) -> list[str]:
    """Say which rows name no image, which say the same again, and which name one otherwise than it is called."""
    remarks = []
    if unknown:
        first = ", ".join(f"{row.file!r} ({row})" for row in unknown[:LISTED])
        more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
        say = "names" if len(unknown) == 1 else "name"
        remarks.append(f"{len(unknown)} of {plural(len(rows), 'row')} of {name} {say} no image: {first}{more}")
    if twice:
        say = "says" if twice == 1 else "say"
        remarks.append(f"{plural(twice, 'row')} of {name} {say} again what another one says")
    if inexact:
        file, path = inexact[0]
        count = plural(len(inexact), "row")
        remarks.append(
            f"{count} of {name} with an image's name in other case or without its suffix: {file!r} is {path!r}"
        )
    return remarks


def _describe_renamed(labels: Collection[str], name: str) -> list[str]:
    """Say which classes have another name here, since no folder can have theirs."""
    renamed = sorted(label for label in labels if class_folder(label) != label)
    if not renamed:
        return []
    first = renamed[0]
    return [f"names of {name} that no folder can have, {len(renamed)} in all: {first!r} is {class_folder(first)!r}"]


def _targets(
    row_of: Sequence[Row | None], paths: Sequence[Components], name: str
) -> tuple[list[Components | str], str]:
    labelled = [path for path, row in zip(paths, row_of, strict=True) if row and row.label]
    depth = len(shared_folders(labelled))
    has_splits = any(row and row.split for row in row_of)
    split_of, are_splits = folder_splits({path[depth:-1] for path in labelled})
    from_folders = are_splits and not has_splits
    remark = ""
    if split_of and not has_splits:
        shown = ", ".join(f"{folder!r} as {split}" for folder, split in sorted(split_of.items())[:LISTED])
        remark = f"folders are read as splits by their names: {shown}" if are_splits else (
            f"{name} names no splits, and folders are called so ({shown}), but not all that images are in: they are"
            " ignored; to use them, write a column split, with train, val or test in it"
        )  # fmt: skip
    targets: list[Components | str] = []
    for path, row in zip(paths, row_of, strict=True):
        if row is None:
            targets.append(f"no row in {name}")
        elif not row.label:
            targets.append(f"no class in {name}")
        elif has_splits and not row.split:
            targets.append(f"neither train, val nor test in {name}")
        else:
            rest = path[depth:]
            split = split_of[rest[0]] if from_folders else row.split
            if len(rest) > 1 and split and split_of.get(rest[0]) == split:
                rest = rest[1:]
            if len(rest) > 1 and rest[0] == row.label:
                rest = rest[1:]
            targets.append((*((split,) if split else ()), class_folder(row.label), *rest))
    return targets, remark


def shared_folders(paths: Sequence[Components]) -> Components:
    """Return the leading folders that all of *paths* share."""
    if not paths:
        return ()
    first, last = min(path[:-1] for path in paths), max(path[:-1] for path in paths)
    return posixpath.commonprefix([first, last])  # type: ignore[return-value,type-var]


def class_folder(label: str) -> str:
    """Return a class as one folder that is neither hidden nor junk: its slashes are encoded as %2F."""
    name = safe_component(label).replace("/", "%2F")
    if is_junk([name]):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return name


class _Finder:
    """Finds the image that a row means."""

    def __init__(self, paths: Sequence[Components]) -> None:
        self.paths = paths
        self.depth = len(shared_folders(paths))
        self.indices: dict[int, dict[str, list[int]]] = {}
        #: Of rows whose name is not exactly an image's: it, and the image's path.
        self.inexact: list[tuple[str, str]] = []
        # Most tables name images by whole paths: then no folders need to be compared. -1: several are called so.
        self.whole: dict[str, int] = {}
        for index, path in enumerate(paths):
            for name in {_composed("/".join(path)), _composed("/".join(path[self.depth :]))}:
                self.whole[name] = -1 if name in self.whole else index

    def __call__(self, row: Row) -> int | None:
        """Return the index of the image; None: there is none.

        Raises
        ------
        UserError : there are several.
        """
        file = row.file if "/" in row.file else row.file.replace("\\", "/")
        wanted = tuple(name for name in file.split("/") if name not in ("", "."))
        if not wanted:
            return None
        whole = self.whole.get(_composed("/".join(wanted)), -1)
        if whole >= 0:
            return whole
        forms: tuple[Callable[[str], str], ...] = (_composed, _folded, _stem)
        for level, form in enumerate(forms):
            candidates = self._index(level, form).get(form(wanted[-1]), [])
            if level == 2:  # the row has no suffix, but may have a point in its name
                candidates = self._index(level, form).get(_folded(wanted[-1]), [])
            agreeing = self._agreeing(candidates, wanted, _composed if level == 0 else _folded)
            if agreeing:
                index = self._only(agreeing, wanted, row)
                if level > 0:
                    self.inexact.append((row.file, "/".join(self.paths[index])))
                return index
        return None

    def _index(self, level: int, form: Callable[[str], str]) -> dict[str, list[int]]:
        if level not in self.indices:
            index: dict[str, list[int]] = defaultdict(list)
            for number, path in enumerate(self.paths):
                index[form(path[-1])].append(number)
            self.indices[level] = dict(index)
        return self.indices[level]

    def _agreeing(self, candidates: Sequence[int], wanted: Components, form: Callable[[str], str]) -> list[int]:
        """Return those of *candidates* whose folders are the row's as far as both have some: the most of them."""
        best: list[int] = []
        overlap = -1
        folders = [form(folder) for folder in wanted[-2::-1]]
        for index in candidates:
            image_folders = [form(folder) for folder in self.paths[index][-2::-1]]
            shared = min(len(image_folders), len(folders))
            if image_folders[:shared] == folders[:shared] and shared >= overlap:
                best = [*best, index] if shared == overlap else [index]
                overlap = shared
        return best

    def _only(self, candidates: list[int], wanted: Components, row: Row) -> int:
        """Return the one of *candidates* that is meant, by ever weaker reasons."""
        reasons: tuple[Callable[[Components], bool], ...] = (
            lambda path: all(name == other for name, other in zip(path[::-1], wanted[::-1], strict=False)),
            lambda path: len(path) == self.depth + len(wanted),
            lambda path: bool(row.split) and row.split in {n.split for n in map(read_split_name, path[:-1]) if n},
        )
        for reason in reasons:
            if len(candidates) > 1:
                candidates = [index for index in candidates if reason(self.paths[index])] or candidates
        if len(candidates) > 1:
            first = " or ".join(repr("/".join(self.paths[index])) for index in candidates[:2])
            raise UserError(f"{KEY}: {row}: {row.file!r} may mean {first}: write the folders, too, or the suffix")
        return candidates[0]


def _composed(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


@lru_cache(maxsize=4096)  # of the same folders again and again
def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _stem(name: str) -> str:
    return _folded(posixpath.splitext(name)[0])
