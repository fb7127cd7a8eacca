"""Before anything is called finished: the products of a configuration compared with what their jobs recorded.

Snakemake goes by names and times. What is gone or changed here is made again, with all that was made of it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from scripts.lib.base import products
from scripts.lib.base.language import tr_line
from scripts.lib.base.problems import UserError
from scripts.lib.base.products import GONE, Change
from scripts.lib.data import shards
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.workflow.layout import Layout

#: What people may have edited: a copy is kept beside the file that is made again.
EDITED = frozenset({".csv", ".json", ".md", ".py", ".txt", ".yaml"})
#: Of changes that are told one by one; a damaged disk may have thousands.
MOST = 8
#: What a user may delete to save room: nothing is made of a run's weights but best.pth; images are unpacked again.
MAY_BE_GONE = frozenset({str(RunFolder.init), str(RunFolder.last), "images"})


def find_changes(layout: Layout, keep: bool = True) -> list[Change]:
    """Return what is gone or changed of the data set, the weights and the runs of a configuration.

    Parameters
    ----------
    keep : note the times of files that turned out to be the same.
    """
    dataset = Path(layout.dataset)
    folders = [dataset, dataset / "splits", *dict.fromkeys(Path(path).parent for path in layout.splits("train"))]
    folders += [dataset / "figures", Path(layout.pixel_cache).parent]
    for run in map(RunFolder, map(Path, layout.runs(layout.run.path))):
        folders += [run.path, run.figures]
    paths = [path for folder in dict.fromkeys(folders) for path in products.recorded(folder)]
    paths += [Path(path) for path in layout.downloads() if Path(path).parent != dataset]
    # fetch_archive writes the record of a file beside it, not as an output.
    fetched = dict(zip(map(Path, layout.records()), map(Path, layout.all_fetched()), strict=True))
    changes = [
        replace(change, product=fetched.get(path, path))
        for path in paths
        for change in products.changes(path, thorough=False, keep=keep)
    ]
    return [change for change in changes if matters(layout, change)]


def check_unchanged(layout: Layout, without: Sequence[Path]) -> None:
    """Refuse to show what is not what its job made: an edited number looks like a measured one.

    Parameters
    ----------
    without : what is written anew.

    Raises
    ------
    UserError : a file is gone or changed.
    """
    if changes := [change for change in find_changes(layout) if change.product not in without]:
        more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
        raise UserError(f"no report is made: {changes[0]}{more}", "run the same command again: it is made again")


def matters(layout: Layout, change: Change) -> bool:
    """Tell whether it is missed: pixels, archives and weights that nothing is made of may be removed to save space."""
    is_spare = change.product.name in MAY_BE_GONE or change.product in map(Path, layout.downloads())
    is_spare |= change.product.parent == Path(layout.pixel_cache).parent or shards.is_product(change.product.name)
    return change.how != GONE or not is_spare or change.path != change.product


class Told:
    """Tells of each product that is gone or changed, in red, and keeps a copy of what somebody may have edited.

    Parameters
    ----------
    images : the folder of images.
    is_real : jobs are about to run; else nothing is written.
    """

    def __init__(self, images: Path, is_real: bool) -> None:
        self.images, self.is_real = images, is_real
        self.number = 0

    def __call__(self, change: Change) -> None:
        """Tell of one."""
        if is_edited(change, self.images):
            if not self.is_real:  # else the run ends with it
                tell_in_red(edited_images(self.images))
            return
        kept = self._keep(change)
        again = "it is" if change.path == change.product else f"{change.product} is"
        if self.number < MOST:
            tell_in_red(f"{change}: {again} made again{kept}")
        elif self.number == MOST:
            tell_in_red("and more files that are gone or changed: they are made again")
        self.number += 1

    def _keep(self, change: Change) -> str:
        if self.is_real and change.path == change.product and change.path.suffix in EDITED and change.path.is_file():
            copy = change.path.with_name(f"{change.path.name}.changed")
            with suppress(OSError):
                shutil.copyfile(change.path, copy)
                return f" (as it was: {copy})"
        return ""


def is_edited(change: Change, images: Path) -> bool:
    """Tell whether somebody changed the images in results/; links and shards are the user's own to change."""
    return change.product == images and not change.path.is_symlink() and change.path.is_relative_to(images)


def edited_images(images: Path) -> str:
    """Return why no run goes on with images that somebody has changed in results/, and both ways out."""
    return (
        f"{images}: its images are not those that were unpacked: some were changed, added or removed: copy it"
        f" elsewhere and name that copy as dataset.source.path, or delete {images} for the first ones"
    )


def tell_in_red(line: str) -> None:
    """Print a line on stderr, in red where that is a terminal."""
    line = tr_line(line)
    print(f"\033[31m{line}\033[0m" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)
