"""Whether a run can be what another one starts from (`checkpoint: {run: ...}`): it exists or is made first, no circle."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.lib.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from scripts.lib.settings.schema import Experiment, Settings

_NAME = "[A-Za-z0-9_][A-Za-z0-9._-]*"
#: A run's folder, as `checkpoint.run` names it.
RUN = rf"^results/(?P<dataset>{_NAME})/(?P<experiment>{_NAME})/seed(?P<seed>0|[1-9][0-9]*)(/fold(?P<fold>[0-9]+))?$"


def problem(name: str, settings: Settings) -> str:
    """Return why the experiment *name* cannot start from the run that it names; "" where it can, or names none."""
    run = _run_of(settings.experiments[name])
    if run is None:
        return ""
    folder = run[0]
    if run["dataset"] != settings.dataset.name:
        best = RunFolder(Path(folder)).best
        return "" if best.is_file() else f"there is no {best}: train that run first, or correct the folder"
    if settings.dataset.split.folds:
        return f"{folder} has seen images that other folds test on: start from a run of another data set"
    other = settings.experiments.get(run["experiment"])
    if other is None or int(run["seed"]) not in settings.seeds or run["fold"] is not None:
        return f"{folder} is no run of this configuration: add its experiment and seed, so that it has the same split"
    if other.base_config != settings.experiments[name].base_config:
        return f"{folder} has base_config {other.base_config}: give this experiment the same"
    way = [name]
    for step in _way_back(name, settings):
        if step in way:
            return f"it starts from itself ({' <- '.join([*way, step])}): name a run outside this circle"
        way.append(step)
    return ""


def _way_back(name: str, settings: Settings) -> Iterator[str]:
    """Yield the experiments of this configuration that one starts from, one after the other."""
    while (run := _run_of(settings.experiments[name])) and run["dataset"] == settings.dataset.name:
        name = run["experiment"]
        yield name
        if name not in settings.experiments:
            return


def _run_of(experiment: Experiment) -> re.Match[str] | None:
    """Return the run that an experiment starts from, by its parts."""
    run = (experiment.checkpoint_request() or {}).get("run")
    return re.fullmatch(RUN, run) if run else None
