"""Compare every file below a folder of results with its recorded hash, and train nothing: `make verify QUICK=yes`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from scripts.lib.base import products
from scripts.lib.base.console import one_line, say
from scripts.lib.base.files import sha256_of
from scripts.lib.base.problems import UserError
from scripts.lib.base.products import CHANGED, GONE
from scripts.lib.base.units import megabytes
from scripts.lib.data import shards
from scripts.lib.data.archives import read_record, record_path
from scripts.lib.data.folders import check_folder
from scripts.lib.runs.provenance import files_of_run
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.workflow.repetition import MANIFEST_SUFFIX, FinishedRun


@dataclass(frozen=True)
class Expected:
    """A file, its recorded sha256, and which record says so."""

    path: Path
    sha256: str
    by: str

    def difference(self) -> str:
        """Return a line of how the file differs; "" where it does not."""
        if not self.path.is_file():
            return f"{self.path} {GONE} ({self.by} names it)"
        return f"{self.path} {CHANGED} ({self.by} has another sha256)" if sha256_of(self.path) != self.sha256 else ""


def verify(folder: Path) -> None:
    """Print one line for each file that differs and end with status 1, or say how much is as it was made.

    Parameters
    ----------
    folder : of a run, whose data and weights are compared too; or any folder above runs, up to results/.

    Raises
    ------
    UserError : nothing there is on record.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder: give a finished run, results/.../seed0, or a folder of runs")
    records, lines = _records(folder)
    expected = list(dict.fromkeys(records))
    if not expected and not lines:
        raise UserError(f"{folder}: nothing in it is on record: give a finished run, results/.../seed0, or results/")
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing lets other threads run
        lines += filter(None, pool.map(Expected.difference, expected))
    if lines := list(dict.fromkeys(lines)):
        say("\n".join(map(one_line, lines)))
        sys.exit(1)
    size = sum(entry.path.stat().st_size for entry in {entry.path: entry for entry in expected}.values())
    say(f"{len({entry.path for entry in expected})} files, {megabytes(size)}: all as recorded")


def _records(folder: Path) -> tuple[list[Expected], list[str]]:
    """Return all files on record in and for a folder, and a line for each record that cannot be read."""
    expected: list[Expected] = []
    lines: list[str] = []
    folders = [Path(parent) for parent, _, _ in os.walk(folder)]
    # A work folder keeps the first provenance of its training: a copy of the run's.
    runs = (
        path for path in folders if (path / RunFolder.provenance).is_file() and path.parent.name != RunFolder.work.name
    )
    for run in runs:
        try:
            finished = FinishedRun.read(run)
            expected += _of_provenance(finished, run)
            lines += _read_in_place(finished)
        except UserError as error:
            lines.append(str(error))
            continue
        # What one run was made of lies above it.
        folders += [finished.dataset, finished.dataset / "splits", finished.file("splits/test.txt").parent]
    for path in dict.fromkeys(os.path.realpath(path) for path in folders):
        expected += _of_folder(Path(path))
        lines += _damaged_records(Path(path))
    return expected, lines


def _of_provenance(run: FinishedRun, folder: Path) -> Iterator[Expected]:
    by = str(folder / RunFolder.provenance)
    for name, entry in chain(files_of_run(run.provenance).items(), run.provenance["circumstances"]["files"].items()):
        yield Expected(run.file(name), entry["sha256"], by)


def _read_in_place(run: FinishedRun) -> Iterator[str]:
    for name, source in zip(run.archives, run.sources(), strict=True):
        if source.get("in_place") and run.file(name).suffix == MANIFEST_SUFFIX:
            try:
                check_folder(run.file(name), run.dataset.parents[1] / Path(source["path"]).expanduser())
            except (UserError, OSError) as error:
                yield str(error)


def _of_folder(folder: Path) -> Iterator[Expected]:
    for path in products.recorded(folder):
        if shards.is_product(path.name) and not path.exists():
            continue  # it was removed when all shards had been put together
        yield from (Expected(file, sha256, str(by)) for file, sha256, by in products.recorded_hashes(path))
    for file in folder.glob("*.*.sha256"):  # of a work folder
        if (path := file.with_suffix("")).is_file():
            yield Expected(path, file.read_text(encoding="utf-8", errors="replace").strip(), str(file))
    for file in folder.glob("*.sha256"):
        with suppress(OSError):
            if record := read_record(file):
                name = file.read_text(encoding="utf-8").partition("  ")[2].partition("\n")[0]
                if record_path(str(folder / name)) == str(file):
                    yield Expected(folder / name, record.sha256, str(file))


def _damaged_records(folder: Path) -> Iterator[str]:
    for file in products.records_in(folder / products.RECORDS):
        if not products.is_record(file):
            yield f"{file} is damaged: nobody knows any more what its files were: {products.AGAIN}"
