"""Whether a run can be what another starts from (`checkpoint: {run: ...}`): it exists or is made first, no circle."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.runs.run_folder import RunFolder

#: A name of a data set or an experiment.
NAME = "[A-Za-z0-9_][A-Za-z0-9._-]*"
#: A run's folder, as `checkpoint.run` names it.
RUN = rf"^results/(?P<dataset>{NAME})/(?P<experiment>{NAME})/seed(?P<seed>0|[1-9][0-9]*)(/fold(?P<fold>[0-9]+))?$"


@dataclass(frozen=True)
class StartingRuns:
    """What experiments of a configuration start from.

    Attributes
    ----------
    dataset, seeds, folds : of the configuration; *folds* is None without cross-validation.
    bases : the base config of each experiment.
    runs : the run that an experiment starts from; None where it starts from other weights, or from none.
    """

    dataset: str
    seeds: Sequence[int]
    folds: int | None
    bases: Mapping[str, str]
    runs: Mapping[str, str | None]

    def problem(self, name: str) -> str:
        """Return why the experiment *name* cannot start from the run that it names; "" where it can, or names none."""
        run = self._run_of(name)
        if run is None:
            return ""
        if run["dataset"] != self.dataset:
            best = RunFolder(Path(run[0])).best
            return "" if best.is_file() else f"there is no {best}: train that run first, or correct the folder"
        if self.folds:
            return f"{run[0]} has seen images that other folds test on: start from a run of another data set"
        other = run["experiment"]
        if other not in self.bases or int(run["seed"]) not in self.seeds or run["fold"] is not None:
            return f"{run[0]} is no run of this configuration: add its experiment and seed, so that it has this split"
        if self.bases[other] != self.bases[name]:
            return f"{run[0]} has base_config {self.bases[other]}: give this experiment the same"
        way = [name]
        for step in self._way_back(name):
            way.append(step)
            if step in way[:-1]:
                return f"it starts from itself ({' <- '.join(way)}): name a run outside this circle"
        return ""

    def _way_back(self, name: str) -> Iterator[str]:
        """Yield the experiments of this configuration that one starts from, one after the other."""
        while name in self.runs and (run := self._run_of(name)) and run["dataset"] == self.dataset:
            name = run["experiment"]
            yield name

    def _run_of(self, name: str) -> re.Match[str] | None:
        """Return the run that an experiment starts from, by its parts."""
        run = self.runs[name]
        return re.fullmatch(RUN, run) if run else None
