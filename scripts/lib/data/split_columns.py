"""Find the column of a label table that says which split an image is in: ``split``, ``Usage``, ``is_train``, ..."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from scripts.lib.data.split_words import ALSO_CLASSES, SPLIT_OF, WORDS, SplitName, plain, read_split_name

#: How people head a column of splits; of several, the first here is taken.
NAMES = (
    "split", "part", "subset", "set", "partition", "usage", "phase", "mode", "dataset", "data_set", "data_split",
    "split_name", "fold", "folds", "kfold", "划分", "数据集", "用途", "阶段",
)  # fmt: skip
#: What else such a column may be called: fold_id, cv_fold, split 1, set_type, 数据集划分.
LIKE_NAMES = re.compile(
    r"(?:.*_)?(?:[a-z]{0,2}fold|split|subset|partition|cv)s?_?(?:no|nr|id|idx|index|number|type|\d+)?"
    r"|(?:.*_)?(?:set_?type|cross_?val\w*)|.*(?:划分|劃分|数据集|拆分|交叉验证|折数).*"
)
#: Words beside that of the split in the name of a column of yes and no: is_train, use_for_training, test_flag.
SAYS_YES = frozenset(("is", "in", "use", "used", "flag"))
TRUE = frozenset(("1", "1.0", "true", "t", "yes", "y", "是"))
FALSE = frozenset(("0", "0.0", "false", "f", "no", "n", "否"))
#: A column of more different values than these holds no splits.
MOST_VALUES = 64
#: How many values a message lists.
LISTED = 4


class SplitColumns:
    """The columns of a table that may be a split, cell by cell.

    Parameters
    ----------
    heading : the names of the columns, "" where there is none.
    others : indices of the columns that are known to be something else.
    """

    def __init__(self, heading: Sequence[str], others: Sequence[int]) -> None:
        self.heading = [" ".join(name.split()) for name in heading]
        self.plain = [name.lower().replace(" ", "_") for name in self.heading]
        self.cells: dict[int, list[str]] = {index: [] for index in range(len(heading)) if index not in others}
        self.values: dict[int, dict[str, str]] = {index: {} for index in self.cells}

    def add(self, cells: Sequence[str]) -> None:
        """Take the cells of the next row."""
        for index in list(self.cells):
            cell = cells[index].strip() if index < len(cells) else ""
            values = self.values[index]
            self.cells[index].append(values.setdefault(cell, cell))  # each value is held once
            if len(values) > MOST_VALUES:
                del self.cells[index]

    def find(self) -> tuple[list[str] | None, list[str]]:
        """Return the split of each row, in the words of the table where they are none; None: no column says it.

        And notes on what was taken, and on what may be a split and was not.
        """
        by_word = [index for index in self.cells if self._is_by_word(index)]
        rank = {name: number for number, name in enumerate(NAMES)}
        if by_word:
            taken = [min(by_word, key=lambda index: (rank.get(self.plain[index], len(NAMES)), index))]
            words = {cell: _split(cell) or cell for cell in self.values[taken[0]]}
            splits = [words[cell] for cell in self.cells[taken[0]]]
        else:
            flags = self._flags()
            taken = list(flags)
            splits = self._by_flags(flags)
        remarks = []
        if taken and self.plain[taken[0]] != "split":
            counts = ", ".join(f"{split} {splits.count(split)}" for split in WORDS if split in splits)
            remarks.append(f"splits are read from the column {self._shown(taken)}: {counts}")
        if ignored := [index for index in self.values if index not in taken and self._may_be_split(index)]:
            examples = sorted(filter(None, self.values[ignored[0]]))[:LISTED]
            remarks.append(
                f"the column {self._shown(ignored)} ({', '.join(map(repr, examples))}) may be a split and is ignored:"
                " to use it, call it split, and write train, val or test in it"
            )
        return (splits if taken else None), remarks

    def _shown(self, indices: Sequence[int]) -> str:
        return " and ".join(repr(self.heading[index]) for index in indices)

    def _is_by_word(self, index: int) -> bool:
        """Tell whether the cells are words for splits: all, and of two splits; by the column's name, half of them."""
        read = [_split(cell) for cell in self.values[index] if cell]
        if self.plain[index] in NAMES:
            return 0 < len(read) <= 2 * sum(split is not None for split in read)
        return None not in read and "train" in read and len(set(read)) > 1

    def _flags(self) -> dict[int, str]:
        """Return the columns called as a split (``is_train``) that hold yes or no, and both."""
        flags: dict[int, str] = {}
        for index in self.cells:
            name = _flag(self.heading[index])
            if name and name.word not in ALSO_CLASSES and SAYS_YES.issuperset(name.rest):
                cells = {plain(cell) for cell in self.values[index]}
                if cells <= TRUE | FALSE and cells & TRUE and cells & FALSE and name.split not in flags.values():
                    flags[index] = name.split
        return flags

    def _by_flags(self, flags: Mapping[int, str]) -> list[str]:
        """Return the split of each row by flags; a row that says two of them: both words, which are no split."""
        if not flags:
            return []
        # What no flag says: of train alone, the rest is the test; without a flag for train, the rest is train.
        rest = "test" if list(flags.values()) == ["train"] else "" if "train" in flags.values() else "train"
        rows = zip(*(self.cells[index] for index in flags), strict=True)
        flagged = (
            [split for split, cell in zip(flags.values(), cells, strict=True) if plain(cell) in TRUE] for cells in rows
        )
        return [" and ".join(splits) or rest for splits in flagged]

    def _may_be_split(self, index: int) -> bool:
        name = _flag(self.heading[index])
        words = re.split(r"[\W_]+", self.plain[index])
        says_several = len({SPLIT_OF[word] for word in words if word in SPLIT_OF}) > 1
        called = self.plain[index] in NAMES or bool(LIKE_NAMES.fullmatch("_".join(words)))
        read = {_split(cell) for cell in self.values[index]} - {None}  # train and test beside others: `unassigned`
        is_flag = bool(name and SAYS_YES.issuperset(name.rest))
        return any(self.values[index]) and (called or says_several or is_flag or len(read) > 1)


def _flag(heading: str) -> SplitName | None:
    """Return the split that a column of yes and no is called by: ``is_train``, ``isTrain``, ``istrain``, 是否训练."""
    return read_split_name(heading) or read_split_name(heading.lower().removeprefix("is").removeprefix("是否"))


def _split(cell: str) -> str | None:
    name = read_split_name(cell)
    return name.split if name and not name.rest else None
