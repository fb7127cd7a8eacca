"""report.html: one page of a data set's runs, which needs no network and begins with the answer."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.lib.base.console import one_line
from scripts.lib.base.files import find_json, read_lines
from scripts.lib.base.language import LANGUAGES, speaking, tr
from scripts.lib.base.problems import UserError
from scripts.lib.data.findings import verdict
from scripts.lib.data.reading import WHITE
from scripts.lib.metrics import cost, leaderboard, likeness, paired
from scripts.lib.pages import data_summary, report_answer, report_maps, report_pictures, templates
from scripts.lib.pages.model_card import use_commands
from scripts.lib.pages.report_run import Images, RunReport, describe_run
from scripts.lib.pages.report_words import words
from scripts.lib.runs.provenance import files_of_run, read_provenance
from scripts.lib.runs.run_folder import RunFolder

SCRIPTS = ("report_core.js", "report_plots.js", "report_sections.js", "report.js")
STYLES = ("report.css", "report_print.css")
#: Advice on the data that is in the answer already.
FIRST_STEPS = 3
#: Labels to check that the page lists.
LISTED_SUSPECTS = 24
#: Figures of the first run, for readers without JavaScript, and those that only stand there.
STATIC = ("confusion_matrix", "classes", "reliability", "training_curves", "selective", "curves")
#: Names of a run's files that provenance.json has hashes of, in the order in which they are shown.
HASHED = ("archive", "config.py", "checkpoint", "best.pth", "predictions.csv", "metrics.json")


@dataclass(frozen=True)
class Sources:
    """What the page is made from: the files of results/<dataset>."""

    dataset: Path
    runs: Sequence[RunReport]  # in the order in which the page lists them: the best experiment first
    images: Images
    classes: Sequence[str]
    board: pd.DataFrame
    comparisons: pd.DataFrame
    costs: pd.DataFrame
    audit: Mapping[str, Any]
    settings: str  # settings.yaml
    tested: int  # test images; those after them in ``images`` are of label_suspects.csv
    judged: Sequence[report_answer.Suspect] | None  # label_suspects.csv; None where there is none
    features: Mapping[str, Any]  # label_suspects.json; empty where there is none


def read_sources(dataset: Path, folders: Sequence[Path], settings: str) -> Sources:
    """Read everything that the page shows of finished runs.

    Parameters
    ----------
    folders : of the runs, below *dataset*.
    settings : the whole configuration, as YAML.

    Raises
    ------
    UserError : a file is missing, or not what it should be.
    """
    board = leaderboard.read_leaderboard(dataset / "leaderboard.csv")
    ranks = {name: rank for rank, name in enumerate(board["experiment"])}
    images = Images()
    runs = [describe_run(folder, dataset, images) for folder in folders]
    made = pd.DataFrame({"experiment": [run.experiment for run in runs], "folder": list(folders)})
    names, _ = likeness.set_apart(made)  # as in the leaderboard
    runs = [replace(run, experiment=name) for run, name in zip(runs, names["experiment"], strict=True)]
    runs.sort(key=lambda run: (ranks.get(run.experiment, len(ranks)), run.experiment, run.seed, run.fold or 0))
    classes = read_lines(dataset / "classes.txt")
    tested = len(images.files)
    judged = report_answer.judged_suspects(dataset / "label_suspects.csv", images, classes)
    comparisons = _read_table(dataset / "comparisons.csv")
    whole = [name for name in ("seeds", "n_images", "only_a_right", "only_b_right") if name in comparisons]
    return Sources(
        dataset=dataset,
        runs=report_maps.with_maps(runs, dataset, images, classes),
        images=images,
        classes=classes,
        board=board,
        comparisons=comparisons.astype(dict.fromkeys(whole, "Int64")),
        costs=_read_table(dataset / "costs.csv"),
        audit=find_json(dataset / "audit.json"),
        settings=settings,
        tested=tested,
        judged=judged,
        features=find_json(dataset / "label_suspects.json"),
    )


def _read_table(path: Path) -> pd.DataFrame:
    """Read a table of runs or of pairs of experiments; an experiment may be called NA.

    Raises
    ------
    UserError : it is missing, or no table.
    """
    texts = ("experiment", "experiment_a", "experiment_b", "verdict", "interval", "currency", "source", "energy_of")
    try:
        return pd.read_csv(path, encoding="utf-8", converters=dict.fromkeys(texts, str))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not the table that compare_runs writes ({one_line(error)[:200]})", "make it again"
        ) from error


def render(sources: Sources, language: str, background: tuple[int, int, int] = WHITE) -> str:
    """Return the page, which opens in *language* and holds the other one too.

    Parameters
    ----------
    background : of transparent images.
    """
    suspects = sources.judged
    suspects = report_answer.common_suspects(sources.runs) if suspects is None else suspects
    first = [suspect.image for suspect in suspects[:LISTED_SUSPECTS]]
    pictures = report_pictures.collect(sources.dataset / "images", sources.images, sources.runs, first, background)
    data = _data(sources, pictures)
    shared = _shared(sources, pictures)
    views = {}  # the language that it opens in first
    for name in sorted(LANGUAGES, key=lambda name: name != language):
        with speaking(name):
            views[name] = templates.render("report_view.html", l=name, **shared, **_view(sources, suspects))
            data["words"][name] = words()
    title = f"{sources.dataset.name}: mimflow"
    page, _ = templates.page_of_views(title, views, data, styles=STYLES, scripts=SCRIPTS, pictures=pictures.data)
    return page


def _data(sources: Sources, pictures: report_pictures.Pictures) -> dict[str, Any]:
    """Return what the script reads."""
    every = list(range(sources.tested))
    runs = [run.as_data() for run in sources.runs]
    for run in runs:
        if run["images"] == every:
            run["images"] = None
    columns = ("experiment", "accuracy_top1_mean", "accuracy_top1_ci95_low", "accuracy_top1_ci95_high")
    floors = sources.board["accuracy_majority"].dropna().round(9)
    return {
        "classes": list(sources.classes),
        "files": sources.images.files,
        "labels": sources.images.labels,
        "tested": sources.tested,
        "pictureOf": pictures.of_image,
        "runs": runs,
        "board": [
            dict(zip(("experiment", "mean", "low", "high"), values, strict=True))
            for values in sources.board[list(columns)].itertuples(index=False, name=None)
        ],
        "floor": float(floors.iloc[0]) if floors.nunique() == 1 else None,
        "words": {},
    }


def _shared(sources: Sources, pictures: report_pictures.Pictures) -> dict[str, Any]:
    """Return what the page shows in the same way in each language."""
    first = sources.runs[0]
    folder = sources.dataset / first.folder
    figures = {"leaderboard": sources.dataset / "figures" / "leaderboard.svg"}
    figures |= {name: RunFolder(folder).figures / f"{name}.svg" for name in STATIC}
    provenances = [read_provenance(RunFolder(sources.dataset / run.folder).provenance) for run in sources.runs]
    return {
        "dataset": sources.dataset.name,
        "first": first,
        "runs": sources.runs,
        "classes": sources.classes,
        "n_images": sources.tested,
        "without_picture": pictures.left_out,
        "figures": {name: _uri(path) if path.is_file() else "" for name, path in figures.items()},
        "settings": sources.settings,
        "provenance": provenances[0],
        "trained": max(provenance["circumstances"]["recorded"] for provenance in provenances)[:10],
        "origins": [_origin(run, provenance) for run, provenance in zip(sources.runs, provenances, strict=True)],
        "export": find_json(RunFolder(folder).export) or None,
        "has_try_page": (sources.dataset / "try.html").is_file(),
        "commands": use_commands(folder, provenances[0], find_json(RunFolder(folder).export) or None),
    }


def _uri(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()


def _origin(run: RunReport, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return where the numbers of a run come from."""
    files = files_of_run(provenance)
    code, environment = provenance["inputs"]["code"], provenance["inputs"]["environment"]
    circumstances = provenance["circumstances"]
    return {
        "run": run,
        "hashes": [(name, files[name]["sha256"]) for name in HASHED if name in files],
        "weights": provenance["outputs"].get("best.pth", {}).get("weights_sha256"),
        "commit": code.get("commit"),
        "dirty": code.get("dirty"),
        "environment": environment.get("name"),
        "lock": environment.get("lock_sha256"),
        "versions": provenance["inputs"]["versions"],
        "machine": circumstances["machine"],
        "recorded": circumstances["recorded"],
        "command": circumstances["training"].get("command"),
    }


def _view(sources: Sources, suspects: Sequence[report_answer.Suspect]) -> dict[str, Any]:
    """Return what the page shows in the language that is spoken."""
    board, first = sources.board, sources.runs[0]
    answer = report_answer.answer(board, len(sources.runs))
    compared = len(sources.comparisons) > 0
    findings = report_answer.findings_of(sources.audit) if sources.audit else []
    of_features = report_answer.feature_lines(sources.features)
    of_classes = report_answer.class_lines(first, sources.classes)
    in_order = (*findings[:1], *of_features, *of_classes, *findings[1:])
    return {
        "answer": answer,
        "listed": report_answer.listed,
        "pair": None if first.pair is None else asdict(first.pair),
        "board": leaderboard.cells(board),
        "board_notes": leaderboard.remarks(board),
        "comparisons": paired.cells(sources.comparisons) if compared else None,
        "comparison_notes": paired.remarks(sources.comparisons) if compared else [],
        "verdict": verdict(sources.audit) if sources.audit else tr("not on record"),
        "findings": findings,
        "first_steps": [line for line in in_order if line.advice][:FIRST_STEPS],
        "assumptions": data_summary.assumptions(sources.audit, sources.classes) if sources.audit else [],
        "feature_lines": of_features,
        "class_lines": of_classes,
        "are_judged": sources.judged is not None,
        "n_suspects": len(suspects),
        "suspects": suspects[:LISTED_SUSPECTS],
        "suspect_table": report_answer.suspect_rows(suspects[:LISTED_SUSPECTS], sources.images, sources.classes),
        "costs": cost.cells(sources.costs),
        "cost_notes": cost.remarks(sources.costs),
    }
