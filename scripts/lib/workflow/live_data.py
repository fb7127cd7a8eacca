"""What the page of `make serve` shows: what `make watch` knows of the runs, and their curves, as its script reads it.

Nothing runs by itself: files are looked at when a page asks, and read again only when they have changed.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from scripts.lib.base.language import LANGUAGES, speaking, tr_line
from scripts.lib.base.problems import UserError
from scripts.lib.workflow.progress import TROUBLED, WAITING, Overview, RunProgress, State, Watcher, check_unedited
from scripts.lib.workflow.run_reader import stat_of
from scripts.lib.workflow.run_table import cells, reasons_of

#: Seconds for which a look at the runs counts, however many pages ask.
FRESH_SECONDS = 1.0
#: Seconds without a question after which all is looked at as for the first time.
AWAY_SECONDS = 20.0
#: Of the cells of `make watch`: those from the best accuracy on val on.
FIRST_NUMBER = 4


class LiveData:
    """The runs below a folder of results, for pages that ask again and again, also several at a time.

    Parameters
    ----------
    results : the folder.
    dataset : the one to show; None: the one that wrote last.
    """

    def __init__(self, results: Path, dataset: str | None = None) -> None:
        self._results = Path(os.path.abspath(results))
        self._watcher = Watcher(results)
        self._dataset = dataset
        self._lock = threading.RLock()
        self._looks: dict[str | None, tuple[float, Overview]] = {}

    def datasets(self) -> list[str]:
        """Return the data sets that have runs."""
        with self._lock:
            return list(dict.fromkeys(run.dataset for run in self._look(None).runs))

    def known(self) -> list[str]:
        """Return the data sets that may be asked for: those that have runs, and the one to show."""
        names = self.datasets()
        return names if self._dataset in (None, *names) else [*names, self._dataset or ""]

    def choose(self) -> str:
        """Return the data set to show; "" where there is none."""
        with self._lock:
            newest = min(
                self._look(None).runs,
                key=lambda run: math.inf if run.silent_seconds is None else run.silent_seconds,
                default=None,
            )
        return self._dataset or (newest.dataset if newest else "")

    def now(self, dataset: str) -> dict[str, Any]:
        """Return how far the runs of a data set are."""
        with self._lock:
            overview = self._look(dataset)
            runs = [self._describe(run) for run in overview.runs]
            return {
                "dataset": dataset,
                "datasets": self.datasets(),
                "time": time.strftime("%H:%M:%S", time.localtime(overview.time)),
                "controller": overview.controller,
                "complete": overview.complete,
                "final": self.final_report(dataset) is not None,
                "report": self.page(dataset) is not None,
                "counts": Counter(str(run.state) for run in overview.runs),
                "problems": list(map(in_languages, [*reasons_of(overview), *self._edited(overview)])),
                "runs": runs,
                "board": rank(runs),
                "curves": f"{zlib.crc32(repr(self.curves(dataset)).encode()):08x}",  # changes with them
            }

    def curves(self, dataset: str) -> list[dict[str, Any]]:
        """Return the curves of the runs that have ended an epoch: train_log.csv by columns."""
        with self._lock:
            read = [
                (run, self._watcher.reader.curve(str(run.folder(self._results).path)))
                for run in self._look(dataset).runs
            ]
        return [
            {
                "experiment": run.experiment,
                "seed": run.seed,
                "fold": run.fold,
                "is_training": run.state == State.TRAINING,
                "kept": curve["kept"],
                "curve": curve,
            }
            for run, curve in read
            if curve is not None
        ]

    def page(self, dataset: str, name: str = "report.html") -> Path | None:
        """Return a page of the data set's last whole workflow, if there is one."""
        path = self._results / dataset / name
        return path if dataset in self.datasets() and path.is_file() else None

    def final_report(self, dataset: str) -> Path | None:
        """Return the report if all runs are done, it was made after them, and nobody changed what it shows."""
        path = self.page(dataset)
        with self._lock:
            overview = self._look(dataset)
            if path is None or not overview.complete or self._edited(overview):
                return None
            measured = [stat_of(str(run.folder(self._results).metrics)) for run in overview.runs]
        newest = max((stat.st_mtime for stat in measured if stat), default=math.inf)
        return path if path.stat().st_mtime >= newest else None

    def _look(self, dataset: str | None) -> Overview:
        now = time.monotonic()
        if now - max((at for at, _ in self._looks.values()), default=now) > AWAY_SECONDS:
            # A file that has changed since the last look counts as changed just now, which was long ago.
            self._watcher, self._looks = Watcher(self._results), {}
        before = self._looks.get(dataset)
        if before is None or now - before[0] > FRESH_SECONDS:
            self._looks[dataset] = before = (now, self._watcher.look(dataset))
        return before[1]

    def _edited(self, overview: Overview) -> list[str]:
        """Return a line for each file with numbers of finished runs that was changed since it was made."""
        folders = [run.folder(self._results) for run in overview.runs if run.state == State.DONE]
        files = [path for folder in folders for path in (folder.train_log, folder.metrics)]
        files += [self._results / name / "report.html" for name in {run.dataset for run in overview.runs}]
        cached = self._watcher.reader.cached
        lines = [cached(f"{path} as made", stat_of(str(path)), partial(_change_of, path), "") for path in files]
        return list(filter(None, lines))

    def _describe(self, run: RunProgress) -> dict[str, Any]:
        path = run.folder(self._results).metrics
        stat = stat_of(str(path)) if run.state == State.DONE else None
        is_training = run.state == State.TRAINING and run.max_epochs
        kind = "trouble" if run.state in TROUBLED else "waiting" if run.state in WAITING else str(run.state)
        return {
            "key": " ".join(run.key[1:]),
            "experiment": run.experiment,
            "which": run.which,
            "state": str(run.state),
            "kind": "running" if run.is_running else kind,
            "epochs": [run.epochs_done or 0, run.max_epochs] if is_training else None,
            "fraction": run.fraction,
            "val": run.best_val_accuracy,
            "test": self._watcher.reader.cached(str(path), stat, partial(_test_accuracy, path), None),
            "numbers": cells(run, 0)[FIRST_NUMBER:],
        }


def in_languages(line: str) -> dict[str, str]:
    """Return a line in each language that the page speaks: its reader may change it."""
    lines = {}
    for name in LANGUAGES:
        with speaking(name):
            lines[name] = tr_line(line)
    return lines


def _change_of(path: Path) -> str:
    try:
        check_unedited(path)
    except UserError as error:
        return str(error)
    return ""


def _test_accuracy(path: Path) -> float:
    return float(json.loads(path.read_text(encoding="utf-8"))["accuracy_top1"])


def rank(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each experiment, the highest mean accuracy on val first; those without one last."""
    rows = []
    for name in dict.fromkeys(run["experiment"] for run in runs):
        of_it = [run for run in runs if run["experiment"] == name]
        means = {
            key: fmean(values) if (values := [run[key] for run in of_it if run[key] is not None]) else None
            for key in ("val", "test")
        }
        done = sum(run["state"] == State.DONE for run in of_it)
        rows.append({"experiment": name, "runs": len(of_it), "done": done, **means})
    return sorted(rows, key=lambda row: (row["val"] is None, -(row["val"] or 0)))
