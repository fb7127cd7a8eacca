"""Before anything is called finished: the products of a configuration compared with what their jobs recorded.

Snakemake goes by names and times. What is gone or changed here is made again, with all that was made of it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.lib.base import products
from scripts.lib.base.products import GONE, Change
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.workflow.layout import Layout

#: What people may have edited: a copy is kept beside the file that is made again.
EDITED = frozenset({".csv", ".json", ".md", ".py", ".txt", ".yaml"})
#: Of changes that are told one by one; a damaged disk may have thousands.
MOST = 8
NEWER = "has other content now than when it was fetched"


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
    return [*(change for change in changes if _matters(change, layout)), *_other_sources(layout)]


def _matters(change: Change, layout: Layout) -> bool:
    """Tell whether it is missed: pixels, archives and weights to start from may be removed to save space."""
    is_spare = change.product in map(Path, [layout.images, *layout.downloads()])
    is_spare |= change.product.parent == Path(layout.pixel_cache).parent or change.product.name == str(RunFolder.init)
    return change.how != GONE or not is_spare or change.path != change.product


def _other_sources(layout: Layout) -> Iterator[Change]:
    for product, source in layout.local_sources():
        if products.source_changed(Path(product), source):
            yield Change(Path(product), source, NEWER)


def renew(workflow: Any, layout: Layout, is_real: bool) -> list[str]:
    """Have Snakemake make again what is gone or changed, and return a line for each.

    Parameters
    ----------
    workflow : Snakemake's, with all its rules.
    is_real : jobs are about to run; else nothing is written.
    """
    made = [
        change
        for change in find_changes(layout, keep=is_real)
        if any(rule.is_producer(str(change.product)) for rule in workflow.rules)
    ]
    _force(workflow, {str(change.product) for change in made})
    return list(_tell(made, is_real))


def _force(workflow: Any, paths: set[str]) -> None:
    """Do as --forcerun does with *paths*; what the user gave is known only after the Snakefile was read."""
    prepare = workflow._prepare_dag

    def with_forced(*args: Any, **options: Any) -> None:
        workflow.dag_settings.forcerun = frozenset(workflow.dag_settings.forcerun) | paths
        prepare(*args, **options)

    if paths:
        workflow._prepare_dag = with_forced


def _tell(changes: Iterable[Change], is_real: bool) -> Iterator[str]:
    for number, change in enumerate(changes):
        kept = ""
        if is_real and change.path == change.product and change.path.suffix in EDITED and change.path.is_file():
            copy = change.path.with_name(f"{change.path.name}.changed")
            with suppress(OSError):
                shutil.copyfile(change.path, copy)
                kept = f" (as it was: {copy})"
        again = "it is" if change.path == change.product else f"{change.product} is"
        if number < MOST:
            yield f"{change}: {again} made again{kept}"
        elif number == MOST:
            yield "and more files that are gone or changed: they are made again"


def in_red(line: str) -> str:
    """Return a line for stderr: red where that is a terminal."""
    return f"\033[31m{line}\033[0m" if sys.stderr.isatty() else line
