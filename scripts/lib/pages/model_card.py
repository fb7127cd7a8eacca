"""The model card of a run: what its files say, for the words in templates/model_card.md."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.lib.base.console import one_line
from scripts.lib.base.files import read_lines, sha256_of
from scripts.lib.base.language import tr
from scripts.lib.base.units import percent
from scripts.lib.data.findings import verdict
from scripts.lib.data.splits import SPLITS
from scripts.lib.metrics.calibration import calibrate
from scripts.lib.metrics.errors import most_confused
from scripts.lib.model.fast_recipe import chosen_recipe
from scripts.lib.pages import data_summary, markdown, templates
from scripts.lib.pages.report_answer import classes_alike, classes_divided, listed
from scripts.lib.runs.certainty import Certainty
from scripts.lib.runs.few_steps import too_few_steps
from scripts.lib.runs.onnx_example import PACKAGES, example
from scripts.lib.runs.onnx_model import Preprocessing
from scripts.lib.runs.predictions import Predictions
from scripts.lib.runs.provenance import ARCHIVE, files_of_run
from scripts.lib.runs.run_folder import dataset_folder
from scripts.lib.runs.train_log import kept_epoch
from scripts.lib.runs.weight_license import restriction

#: Where a number is in no file.
UNKNOWN = "not on record"
#: How the source of images begins that mimflow rendered.
RENDERED = "drawn by mimflow itself"
#: A class with fewer test images than this has an interval of 20 points or more, unless (nearly) all are right.
FEW_IMAGES = 30
#: Shares in metrics.json, in the order of the model card.
SHARES = {
    "accuracy_top1": "accuracy (top-1)",
    "accuracy_top5": "accuracy (top-5)",
    "f1_macro": "F1, mean over the classes",
    "precision_macro": "precision, mean over the classes",
    "accuracy_balanced": "balanced accuracy: recall, mean over the classes",
    "accuracy_majority": "accuracy of always answering the most frequent class",
}
#: Other numbers whose name is not clear; all that metrics.json has are shown.
NUMBERS = {"ece": "expected calibration error, 0 to 1"}
#: The same number as another, by its other name.
DUPLICATES = ("recall_macro",)
HASHED = ("config.py", "best.pth", "predictions.csv", "metrics.json", "checkpoint")


@dataclass(frozen=True)
class CardInputs:
    """What a model card is written from: the files of a run, read."""

    folder: Path  # as the user named it
    provenance: Mapping[str, Any]  # provenance.json
    metrics: Mapping[str, Any]  # metrics.json
    model: Mapping[str, Any]  # model.json
    config: Mapping[str, Any]  # the values of config.py
    per_class: pd.DataFrame  # per_class.csv
    predictions: Predictions  # predictions.csv
    log: pd.DataFrame  # train_log.csv
    export: Mapping[str, Any] | None  # export.json; None without an exported model
    val: Predictions | None  # predictions of the val images; None where they were not given
    costs: pd.DataFrame  # the row of this run in costs.csv, or what its own files say
    license: str  # of the images; empty where it is not stated
    audit: Mapping[str, Any] | None = None  # audit.json; None where it was not given
    label_suspects: Mapping[str, Any] | None = None  # label_suspects.json; None where no experiment could judge

    @property
    def files(self) -> Mapping[str, Any]:
        """Of provenance.json: the files that the run was made from, by what they are."""
        return self.provenance["inputs"]["files"]  # type: ignore[no-any-return]

    @property
    def which_run(self) -> str:
        """Which of the experiment's runs it is."""
        seed, fold = self.provenance["inputs"]["training"].get("seed"), fold_of(self.provenance)
        return tr(f"seed {seed}" + ("" if fold is None else f", fold {fold}"))

    @property
    def title(self) -> str:
        run = self.provenance["run"]
        return tr(f"Model card: {run['experiment']} on {run['dataset']}") + f", {self.which_run}"


def fold_of(provenance: Mapping[str, Any]) -> int | None:
    """Return which fold of the images a run is tested on; None without cross-validation."""
    name = provenance["run"].get("fold")
    return None if name is None else int(name.removeprefix("fold"))


def to_markdown(inputs: CardInputs) -> str:
    """Return the model card as Markdown."""
    return markdown.render("model_card.md", **card_values(inputs)).rstrip() + "\n"


def to_html(inputs: CardInputs) -> str:
    """Return the model card as a page."""
    _, body = to_markdown(inputs).split("\n\n", 1)  # the page has its own heading
    return templates.page("model_card.html", inputs.title, style="model_card.css", model_card=markdown.to_html(body))


def card_values(inputs: CardInputs) -> dict[str, Any]:
    """Return the values of the template."""
    provenance, metrics = inputs.provenance, inputs.metrics
    facts, circumstances = provenance["inputs"], provenance["circumstances"]
    machine = circumstances["machine"]
    return {
        "title": inputs.title,
        "unknown": tr(UNKNOWN),
        "folder": inputs.folder,
        "run": provenance["run"],
        "which_run": inputs.which_run,
        "seed": facts["training"].get("seed"),
        "fold": fold_of(provenance),
        "classes": inputs.predictions.classes,
        "model": inputs.model,
        "metrics": metrics,
        "interval": metrics.get("accuracy_top1_ci95"),
        "unsure": metrics.get("unsure"),
        "n_test": int(metrics.get("n_test", len(inputs.predictions.labels))),
        "metric_rows": list(_metric_rows(metrics)),
        **_errors(inputs),
        **_calibration(inputs),
        **_uses(inputs),
        **_data(inputs),
        **_recipe(inputs),
        "circumstances": circumstances,
        "code": facts["code"],
        "environment": facts["environment"],
        "versions": ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
        "hashes": _hashes(provenance),
        "machine": machine,
        "gpus": ", ".join(str(gpu.get("name")) for gpu in machine.get("gpus") or []),
        "cost": {name: None if pd.isna(value) else value for name, value in inputs.costs.iloc[0].items()},
    }


def _metric_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, value and ends of the 95 % interval of each metric."""
    shares = [name for name in SHARES if metrics.get(name) is not None]
    others = [name for name, value in metrics.items() if isinstance(value, float) and name not in SHARES]
    for name in (*shares, *(name for name in others if name not in DUPLICATES)):
        written = percent if name in SHARES else "{:.3f}".format
        ends = metrics.get(f"{name}_ci95") or ()
        yield (SHARES | NUMBERS).get(name, name), written(metrics[name]), [written(end) for end in ends]


def _errors(inputs: CardInputs) -> dict[str, Any]:
    """Return where the model fails: the best and the worst class, the two most confused, and what is not known."""
    table, classes = inputs.per_class, inputs.predictions.classes
    known = table[table["n"] > 0].sort_values("recall", ascending=False, kind="stable")
    few = known["n"][known["n"] < FEW_IMAGES]
    values: dict[str, Any] = {
        "best_and_worst": None,
        "without_images": table["class"][table["n"] == 0].tolist(),
        "few": {"classes": len(few), "of": len(known), "smallest": few.min(), "than": FEW_IMAGES} if len(few) else None,
        "confused": None,
    }
    if len(known) > 1:
        values["best_and_worst"] = [
            {**row.to_dict(), "equal": int((known["recall"] == row["recall"]).sum()) - 1}
            for row in (known.iloc[0], known.iloc[-1])
        ]
    if pair := most_confused(inputs.predictions):
        ways = [(pair.there, pair.first, pair.second), (pair.back, pair.second, pair.first)]
        there, first, second = max(ways, key=lambda way: way[0])
        values["confused"] = {"first": classes[first], "second": classes[second], "there": there, "equal": pair.equal}
        values["confused"]["back"] = pair.there + pair.back - there
    return values


def _calibration(inputs: CardInputs) -> dict[str, Any]:
    """Return how far the probabilities can be believed."""
    test, val = inputs.predictions, inputs.val
    values: dict[str, Any] = {
        "confidence": float(test.probabilities.max(axis=1).mean()),
        "accuracy": float((test.labels == test.predictions).mean()),
        "scaled": None,
    }
    if val is not None and val.classes == test.classes:
        result = calibrate(test.probabilities, test.labels, val.probabilities, val.labels)
        if result.after is not None and result.temperature is not None:
            values["scaled"] = {"temperature": result.temperature, "ece": result.after.ece}
    return values


def _uses(inputs: CardInputs) -> dict[str, Any]:
    """Return what a reader types to use the model."""
    onnx = (inputs.export or {}).get("model", {})
    steps = onnx.get("preprocessing")
    return {
        "export": inputs.export,
        "onnx_example": example(Preprocessing(**steps), _certainty(onnx)).rstrip() if steps is not None else None,
        "commands": use_commands(inputs.folder, inputs.provenance, inputs.export),
    }


def use_commands(folder: Path, provenance: Mapping[str, Any], export: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the shell lines by which a run's model is used.

    Parameters
    ----------
    folder : of the run, as the user names it.
    provenance : provenance.json.
    export : export.json; None without an exported model.
    """
    repository = one_line(provenance["circumstances"].get("repository") or "ADDRESS-OF-MIMFLOW")
    commit = provenance["inputs"]["code"].get("commit")
    checkout = f" && git checkout -q {commit}" if commit else ""
    program = f"python onnx_example.py {(export or {}).get('model', {}).get('file', 'model.onnx')} PHOTO"
    return {
        "onnx_example": f"pip install {' '.join(PACKAGES)}\n{program}",
        "get_mimflow": f"git clone {shlex.quote(repository)} mimflow && cd mimflow{checkout} && make setup",
        "predict": f".venv/bin/python -m scripts.predict --run {shlex.quote(one_line(folder))} --images PHOTOS",
    }


def _certainty(onnx: Mapping[str, Any]) -> Certainty | None:
    """Return the thresholds that the exported model has in it."""
    return Certainty.of_json(onnx["certainty"]) if onnx.get("certainty") else None


def _data(inputs: CardInputs) -> dict[str, Any]:
    """Return what the model was trained and evaluated on."""
    archives = [entry for name, entry in inputs.files.items() if ARCHIVE.fullmatch(name)]
    sources = [_source(str(archive.get("source") or tr(UNKNOWN))) for archive in archives]
    split = inputs.provenance["inputs"]["settings"]["dataset"].get("split", {})
    return {
        "license": inputs.license,
        "rendered_images": any(source.startswith(tr(RENDERED)) for source in sources),
        "sources": list(dict.fromkeys(sources)),
        "archive_hashes": ", ".join(str(archive.get("sha256") or tr(UNKNOWN)) for archive in archives),
        "images": {name: images_of(inputs.files.get(f"splits/{name}.txt"), inputs) for name in SPLITS},
        "group_by": split.get("group_by"),
        "audit": None if inputs.audit is None else verdict(inputs.audit),
        "label_suspects": inputs.label_suspects,
        "alike_classes": listed(classes_alike(inputs.label_suspects or {})),
        "divided_classes": listed(classes_divided(inputs.label_suspects or {})),
        "audit_notes": [] if inputs.audit is None else data_summary.remarks(inputs.audit, inputs.predictions.classes),
    }


def _source(record: str) -> str:
    """Return where an archive came from; a record of "sample", and the generator's options: mimflow rendered it.

    >>> _source("sample {}"), _source('sample {"images_per_class": 20}')
    ('drawn by mimflow itself', 'drawn by mimflow itself {"images_per_class": 20}')
    """
    first, _, options = record.partition(" ")
    return f"{tr(RENDERED)} {options.replace('{}', '')}".strip() if first == "sample" else record


def images_of(entry: Mapping[str, Any] | None, inputs: CardInputs) -> str:
    """Return how many images a split names; only from the very file that the run was made with."""
    if entry is None:
        return tr(UNKNOWN)
    recorded = Path(entry["path"])
    fold = inputs.provenance["run"].get("fold", "")
    moved = dataset_folder(inputs.folder.resolve()) / "splits" / fold / recorded.name
    for path in (recorded, moved):
        if path.is_file() and sha256_of(path) == entry["sha256"]:
            return f"{len(read_lines(path)):,}"
    return tr(UNKNOWN)


def _recipe(inputs: CardInputs) -> dict[str, Any]:
    """Return how the model was trained."""
    config, settings = inputs.config, inputs.provenance["inputs"]["settings"]
    experiment = settings.get("experiments", {}).get(inputs.provenance["run"]["experiment"], {})
    recipe = experiment.get("recipe")
    if "checkpoint" in experiment and recipe is not None:
        recipe = chosen_recipe(recipe, experiment["checkpoint"], experiment["base_config"])
    checkpoint, data, runner = inputs.files.get("checkpoint"), config.get("data", {}), config.get("runner", {})
    origin = (checkpoint or {}).get("origin") or {}
    license = origin.get("license")
    batch = data.get("samples_per_gpu") and data["samples_per_gpu"] * runner.get("gpus", 1) * runner.get("nodes", 1)
    epochs = [int(epoch) for epoch in inputs.log["epoch"]]
    steps = [step.get("type", "") for step in data.get("train", {}).get("pipeline", [])]
    optimizer = ", ".join(f"{key} {value}" for key, value in config.get("optimizer", {}).items())
    return {
        "config": config,
        "experiment": experiment,
        "recipe": recipe,
        "pretrained": checkpoint and Path(checkpoint["path"]).name,
        "pretrained_origin": origin,
        "pretrained_license": license and ": ".join(filter(None, [license, restriction(license)])),
        "start": config.get("load_from") and Path(config["load_from"]).name,
        "runner": runner,
        "has_epoch_0": 0 in epochs,
        "kept": kept_epoch(inputs.log),
        "few_steps": batch and too_few_steps(epochs, inputs.per_class["n_train"].sum(), batch),
        "batch_size": batch,
        "optimizer": optimizer.removeprefix("type "),
        "augmentations": [step for step in steps if step.startswith("Random") or "Aug" in step],
    }


def _hashes(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return the sha256 of the files that a reader may want to compare."""
    files = files_of_run(provenance)
    hashes = {name: str(files[name]["sha256"]) for name in HASHED if name in files}
    if weights := provenance["outputs"].get("best.pth", {}).get("weights_sha256"):
        hashes["the weights alone"] = str(weights)
    return hashes
