"""The model card of a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.lib.base.console import one_line
from scripts.lib.base.files import read_lines, sha256_of
from scripts.lib.base.units import human, percent
from scripts.lib.data import audit_summary
from scripts.lib.metrics.calibration import calibrate
from scripts.lib.metrics.confusion import most_confused
from scripts.lib.pages import html
from scripts.lib.runs.onnx_example import PACKAGES, example
from scripts.lib.runs.onnx_model import Preprocessing
from scripts.lib.runs.predictions import Predictions
from scripts.lib.runs.provenance import ARCHIVE
from scripts.lib.runs.run_folder import dataset_folder
from scripts.lib.runs.train_log import kept_epoch
from scripts.lib.settings.schema import Experiment

#: Where a number is in no file.
UNKNOWN = "not on record"


#: More class names than these are in classes.txt alone.
NAMED_CLASSES = 40


#: A class with fewer test images than this has an interval of 20 points or more, unless (nearly) all are right.
FEW_IMAGES = 30


METRICS = {
    "accuracy_top1": "accuracy (top-1)",
    "accuracy_top5": "accuracy (top-5)",
    "f1_macro": "F1, mean over the classes",
    "precision_macro": "precision, mean over the classes",
    "accuracy_balanced": "balanced accuracy: recall, mean over the classes",
    "accuracy_majority": "accuracy of always answering the most frequent class",
}


OTHERS = {"ece": "expected calibration error, 0 to 1"}


#: The same number as another, by its other name.
TWICE = ("recall_macro",)


BALANCE = {
    "sampler": "sampler: an epoch draws the classes equally often",
    "loss": "loss: an image counts inversely to the images of its class",
}


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Items:
    """Lines of a list."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of texts; the columns at the places ``numbers`` are set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()


@dataclass(frozen=True)
class Code:
    """Lines to type or to copy."""

    text: str
    language: str = "sh"


Block = Heading | Paragraph | Items | Table | Code


def markdown(text: str) -> str:
    """Return *text* as one line of Markdown that says just that: nothing in it is markup, HTML or a formula.

    >>> markdown("a*b <i> | 1_000")
    'a\\\\*b &lt;i&gt; \\\\| 1\\\\_000'
    """
    line = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", line)
    # What starts a list, or is the rule below a heading, where it starts a line.
    return re.sub(r"^(\d+(?=[.)](?: |$))|)([-+=]|(?<=\d)[.)])", r"\1\\\2", line)


def to_markdown(title: str, blocks: Iterable[Block]) -> str:
    """Return a card as Markdown (CommonMark with the tables of GitHub)."""
    parts = [f"# {markdown(title)}", *(_block_to_markdown(block) for block in blocks)]
    return "\n\n".join(parts) + "\n"


def _block_to_markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {markdown(text)}"
        case Paragraph(text):
            return markdown(text)
        case Items(lines):
            return "\n".join(f"- {markdown(line)}" for line in lines)
        case Code(text, language):
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
            return f"{fence}{language}\n{text}\n{fence}"
        case Table(header, rows, numbers):
            rule = ["--:" if place in numbers else "---" for place in range(len(header))]
            cells = [[markdown(cell) for cell in row] for row in (header, *rows)]
            return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:]))


def to_html(title: str, blocks: Iterable[Block]) -> str:
    """Return the same card as a page."""
    return html.page(title, [_block_to_html(block) for block in blocks])


def _block_to_html(block: Block) -> str:
    match block:
        case Heading(text):
            return html.section(text)
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Items(lines):
            return "<ul>\n" + "\n".join(f"<li>{escape(line)}</li>" for line in lines) + "\n</ul>"
        case Code(text):
            return html.preformatted(text)
        case Table(header, rows, numbers):
            return html.table(header if any(header) else (), rows, numbers)


@dataclass(frozen=True)
class Run:
    """The files of a run, read.

    Attributes
    ----------
    folder : its name as the user gave it.
    provenance, metrics, model : of the JSON files of these names.
    config : the values of config.py.
    per_class : per_class.csv.
    predictions : predictions.csv.
    log : train_log.csv.
    export : of export.json; None without an exported model.
    val : predictions of the val images; None where they were not given.
    costs : the row of this run in costs.csv, or what its own files say.
    licence : of the images; empty where it is not stated.
    audit : of audit.json; None where it was not given.
    """

    folder: Path
    provenance: Mapping[str, Any]
    metrics: Mapping[str, Any]
    model: Mapping[str, Any]
    config: Mapping[str, Any]
    per_class: pd.DataFrame
    predictions: Predictions
    log: pd.DataFrame
    export: Mapping[str, Any] | None
    val: Predictions | None
    costs: pd.DataFrame
    licence: str
    audit: Mapping[str, Any] | None = None

    @property
    def dataset(self) -> str:
        return str(self.provenance["run"]["dataset"])

    @property
    def experiment(self) -> str:
        return str(self.provenance["run"]["experiment"])

    @property
    def seed(self) -> Any:
        return self.provenance["inputs"]["training"].get("seed")

    @property
    def fold(self) -> int | None:
        """Which part of the images is its test; None without cross-validation."""
        return fold_of(self.provenance)

    @property
    def which(self) -> str:
        """Which of the experiment's runs it is."""
        return f"seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")


def fold_of(provenance: Mapping[str, Any]) -> int | None:
    """Return the fold of a run."""
    name = provenance["run"].get("fold")
    return None if name is None else int(name.removeprefix("fold"))


def title_of(run: Run) -> str:
    return f"Model card: {run.experiment} on {run.dataset}, {run.which}"


def card(run: Run) -> list[Block]:
    """Return the card of a run."""
    introduction = (
        "Written by mimflow from the files of the run: every number stands in one of them. The sections are those of"
        " Mitchell et al. (2019), Model Cards for Model Reporting, https://doi.org/10.1145/3287560.3287596."
    )
    return [
        *in_short(run),
        Paragraph(introduction),
        *model_details(run),
        *intended_use(run),
        *data(run),
        *recipe(run),
        *results(run),
        *limits(run),
        *origin(run),
        *price(run),
    ]


def in_short(run: Run) -> Iterator[Block]:
    """What most readers came for."""
    lines = [f"It says which of {len(run.predictions.classes)} classes an image shows."]
    if interval := run.metrics.get("accuracy_top1_ci95"):
        low, high = map(percent, interval)
        lines.append(
            f"Expect {percent(run.metrics['accuracy_top1'])} right answers on new images like its own: 95 % interval"
            f" {low} to {high}, from {n_test(run):,} test images. Quote these for this model; for the recipe, which"
            " other seeds would give other models of, quote the leaderboard's."
        )
    lines.append(_confused(run))
    if most_confused(run.predictions):
        lines.append(
            "Why these two: figures/gradcam.html (in the report: what the model looks at) shows the errors beside the"
            " images that the network finds most like them."
        )
    if run.export is not None:
        lines.append(
            "To use it, one file is enough: model.onnx holds the weights, the preprocessing and the names of the"
            f" classes. It is in {one_line(run.folder)}, on the machine of whoever made this card; below is a program"
            " for it."
        )
    if _is_drawn(run):
        lines.append("The images are drawn by a program: all this says nothing of real photographs.")
    yield Heading("In short")
    yield Items(lines)


def model_details(run: Run) -> Iterator[Block]:
    """What it is."""
    classes, course = run.predictions.classes, run.provenance["circumstances"]["training"]
    size = " × ".join(map(str, reversed(run.model.get("input", [])[1:])))
    named = ", ".join(classes[:NAMED_CLASSES]) + (", ... (all in classes.txt)" if len(classes) > NAMED_CLASSES else "")
    yield Heading("Model details")
    yield Items(
        [
            f"What it does: it says which of {len(classes)} classes an image shows, with a probability for each.",
            f"Classes: {named}",
            f"Network: {'; '.join(map(str, run.model.get('model', {}).values())) or UNKNOWN}",
            f"Size: {run.model['parameters']:,} parameters; {human(run.model['multiply_adds'])} multiply-adds for an"
            f" image of {size} pixels; {run.model['checkpoint_bytes'] / 1e6:.1f} MB on disk",
            f"Pretrained weights: {_pretrained(run)}",
            f"Trained: {course.get('ended') or UNKNOWN}, {run.which}",
            "Files: best.pth (weights), config.py (all settings), classes.txt (names in the order of the outputs)"
            + (", the exported model (ONNX)" if run.export is not None else ""),
        ]
    )


def _pretrained(run: Run) -> str:
    checkpoint = run.provenance["inputs"]["files"].get("checkpoint")
    return Path(checkpoint["path"]).name if checkpoint else "none, trained from scratch"


def intended_use(run: Run) -> Iterator[Block]:
    """How to use it, and for what."""
    yield Heading("Intended use")
    yield Paragraph(
        "For new images of the same kind as those that it was trained on: taken in the same way, of one of the classes"
        " each."
    )
    if run.export is not None:
        yield from _exported(run.export)
    yield Paragraph("With mimflow, to predict one image or a folder of them, with a table and drawings:")
    yield Code(get_mimflow(run))
    yield Paragraph(
        "and there, with the folder of the run in its place"
        + (", or `--onnx model.onnx` for `--run`, which does without PyTorch:" if run.export is not None else ":")
    )
    yield Code(f"python -m scripts.predict --run {shlex.quote(one_line(run.folder))} --images PHOTO-OR-FOLDER")
    yield Paragraph(
        "Not for images of anything else: the model always answers with one of its classes, also where an image shows"
        " none of them or several. Not as the only ground of a decision that matters to someone."
    )


def _exported(export: Mapping[str, Any]) -> Iterator[Block]:
    model, parity = export.get("model", {}), export.get("parity", {})
    rows = [(name, str(model[name])) for name in ("file", "sha256", "opset", "input", "output") if name in model]
    if "bytes" in model:
        rows.insert(1, ("size", f"{model['bytes'] / 1e6:.1f} MB"))
    if "same_prediction" in parity:
        rows.append(("predictions that are the checkpoint's", f"{parity['same_prediction']} of {parity['images']}"))
    if "largest_difference" in parity:
        rows.append(("largest difference of a probability", f"{parity['largest_difference']:.1e}"))
    yield Paragraph(
        "The exported model needs neither PyTorch nor mmcls nor mimflow, only a runtime for ONNX; its metadata say how"
        " an image is to be resized and normalised:"
    )
    if "preprocessing" in model:
        yield Code(f"pip install {' '.join(PACKAGES)}\npython onnx_example.py {model.get('file', 'model.onnx')} PHOTO")
        yield Paragraph("onnx_example.py lies beside the model; in another language the same steps do:")
        yield Code(example(Preprocessing(**model["preprocessing"])).rstrip(), "python")
    yield Table(("", ""), rows)


def get_mimflow(run: Run) -> str:
    """Return the commands that get the code that made the run."""
    repository = run.provenance["circumstances"].get("repository") or "ADDRESS-OF-MIMFLOW"
    commit = run.provenance["inputs"]["code"].get("commit")
    checkout = f" && git checkout -q {commit}" if commit else ""
    return f"git clone {shlex.quote(one_line(repository))} mimflow && cd mimflow{checkout} && make setup"


def data(run: Run) -> Iterator[Block]:
    """Training and evaluation data."""
    files = run.provenance["inputs"]["files"]
    archives = [files[name] for name in files if ARCHIVE.fullmatch(name)]
    sources = ", ".join(dict.fromkeys(_source(str(archive.get("source") or UNKNOWN)) for archive in archives))
    hashes = ", ".join(str(archive.get("sha256") or UNKNOWN) for archive in archives)
    yield Heading("Training and evaluation data")
    yield Table(
        ("", ""),
        [
            ("data set", run.dataset),
            ("classes", str(len(run.predictions.classes))),
            *(
                (f"{name} images ({purpose})", images_of(files.get(f"splits/{name}.txt"), run))
                for name, purpose in (("train", "the weights"), ("val", "the best epoch"), ("test", "the numbers here"))
            ),
            ("licence of the images", run.licence or "not stated"),
            ("source", sources or UNKNOWN),
            ("sha256 of the archive", hashes or UNKNOWN),
        ],
    )
    if run.audit is not None:
        yield Paragraph(f"The images were audited before the training. {audit_summary.verdict(run.audit)}")


def _is_drawn(run: Run) -> bool:
    """Tell whether the images are those that mimflow renders."""
    files = run.provenance["inputs"]["files"]
    sources = (str(files[name].get("source") or "") for name in files if ARCHIVE.fullmatch(name))
    return any(_is_sample(source) for source in sources)


def _is_sample(record: str) -> bool:
    """Tell whether an archive's record says that mimflow rendered it: "sample", and the generator's options."""
    return record.partition(" ")[0] == "sample"


def _source(record: str) -> str:
    """Return where an archive came from.

    >>> _source("sample {}"), _source('sample {"images_per_class": 20}')
    ('drawn by mimflow itself', 'drawn by mimflow itself {"images_per_class": 20}')
    """
    options = record.partition(" ")[2]
    return f"drawn by mimflow itself {options.replace('{}', '')}".strip() if _is_sample(record) else record


def images_of(entry: Mapping[str, Any] | None, run: Run) -> str:
    """Return how many images a split names; only from the very file that the run was made with."""
    if entry is None:
        return UNKNOWN
    recorded = Path(entry["path"])
    moved = dataset_folder(run.folder.resolve()) / "splits" / run.provenance["run"].get("fold", "") / recorded.name
    for path in (recorded, moved):
        if path.is_file() and sha256_of(path) == entry["sha256"]:
            return f"{len(read_lines(path)):,}"
    return UNKNOWN


def recipe(run: Run) -> Iterator[Block]:
    """How it was trained."""
    config, settings = run.config, run.provenance["inputs"]["settings"]
    experiment = settings.get("experiments", {}).get(run.experiment, {})
    runner, optimizer = config.get("runner", {}), config.get("optimizer", {})
    loader = config.get("data", {})
    steps = [step.get("type", "") for step in loader.get("train", {}).get("pipeline", [])]
    best = kept_epoch(run.log)
    rows = [
        ("base config of mmcls", experiment.get("base_config")),
        ("recipe", _chosen_recipe(experiment)),
        ("starts from", config.get("load_from") and Path(config["load_from"]).name),
        ("epochs", runner.get("max_epochs")),
        ("epoch 0", "the start, as it is on the validation images" if (run.log["epoch"] == 0).any() else None),
        (
            "kept epoch",
            None
            if best is None
            else f"{best['epoch']:.0f}, validation accuracy {percent(float(best['val_accuracy']))}",
        ),
        ("images a step", loader.get("samples_per_gpu") and loader["samples_per_gpu"] * runner.get("gpus", 1)),
        ("optimizer", ", ".join(f"{key} {value}" for key, value in optimizer.items()).removeprefix("type ")),
        ("learning rate schedule", config.get("lr_config", {}).get("policy")),
        ("balance", BALANCE.get(experiment.get("balance", ""))),
        ("loss", config.get("model", {}).get("head", {}).get("loss", {}).get("type")),
        ("augmentation", ", ".join(step for step in steps if step.startswith("Random") or "Aug" in step)),
        ("device, threads", ", ".join(str(runner[key]) for key in ("device", "threads") if key in runner)),
        ("deterministic", runner.get("deterministic")),
    ]
    yield Heading("Training")
    yield Table(("", ""), [(name, str(value)) for name, value in rows if value not in (None, "")])
    yield Paragraph("All other values stand in config.py; its first line is the command that trains it again.")


def n_test(run: Run) -> int:
    return int(run.metrics.get("n_test", len(run.predictions.labels)))


def results(run: Run) -> Iterator[Block]:
    """Metrics and what they are on: the model's worth in words and numbers."""
    metrics, n = run.metrics, n_test(run)
    yield Heading("Results")
    if interval := metrics.get("accuracy_top1_ci95"):
        low, high = interval
        yield Paragraph(
            f"On new images like these expect {percent(metrics['accuracy_top1'])} right answers, between {percent(low)}"
            f" and {percent(high)}: that is the 95 % interval, from {n:,} test images that took no part in training."
        )
    rows = [_metric(name, words, metrics) for name, words in METRICS.items() if metrics.get(name) is not None]
    others = [name for name, value in metrics.items() if isinstance(value, float) and name not in (*METRICS, *TWICE)]
    rows += [
        (OTHERS.get(name, name), f"{metrics[name]:.3f}", _interval(metrics, name, "{:.3f}".format)) for name in others
    ]
    yield Table(("on the test images", "value", "95 % interval"), rows, numbers=(1, 2))
    yield from _of_classes(run)
    yield from _of_confidence(run)


def _metric(name: str, words: str, metrics: Mapping[str, Any]) -> tuple[str, str, str]:
    return words, percent(metrics[name]), _interval(metrics, name, percent)


def _interval(metrics: Mapping[str, Any], name: str, written: Callable[[float], str]) -> str:
    interval = metrics.get(f"{name}_ci95")
    return f"{written(interval[0])} to {written(interval[1])}" if interval else "-"


def _of_classes(run: Run) -> Iterator[Block]:
    """The best and the worst class, and the two that are most confused."""
    table = run.per_class[run.per_class["n"] > 0].sort_values("recall", ascending=False, kind="stable")
    lines = []
    if len(table) > 1:
        for words, row, same in (
            ("Best", table.iloc[0], (table["recall"] == table["recall"].iloc[0]).sum() - 1),
            ("Worst", table.iloc[-1], (table["recall"] == table["recall"].iloc[-1]).sum() - 1),
        ):
            others = f"; {same} more classes likewise" if same > 1 else "; one more class likewise" if same else ""
            lines.append(
                f"{words} class: {row['class']}, of whose {row['n']} images {percent(row['recall'])} were found (95 %"
                f" interval {percent(row['recall_ci95_low'])} to {percent(row['recall_ci95_high'])}){others}"
            )
    yield Items([*lines, _confused(run)])


def _confused(run: Run) -> str:
    """Return which two classes are taken for each other most often."""
    if confused := most_confused(run.predictions):
        first, second = (run.predictions.classes[label] for label in (confused.first, confused.second))
        there, back = confused.there, confused.back
        if there < back:
            first, second, there, back = second, first, back, there
        more = f"; {confused.equal} more {'pairs' if confused.equal > 1 else 'pair'} as often" if confused.equal else ""
        return (
            f"Most confused classes: {first} and {second}; {there} of {first} {_were(there)} taken for {second},"
            f" {back} of {second} for {first}{more}"
        )
    return "Most confused classes: none; no test image was predicted wrongly"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _of_confidence(run: Run) -> Iterator[Block]:
    """How far the probabilities can be believed."""
    predictions = run.predictions
    confidence = float(predictions.probabilities.max(axis=1).mean())
    accuracy = float((predictions.labels == predictions.predictions).mean())
    side = "surer than it is right" if confidence > accuracy else "more modest than it need be"
    text = (
        f"Confidence: {percent(confidence)} on average, where {percent(accuracy)} of the answers are right: the model"
        f" is {side}."
    )
    if (ece := run.metrics.get("ece")) is not None:
        text += f" The expected calibration error (ECE) is {ece:.3f}; 0 would be perfect."
    if run.val is not None and run.val.classes == predictions.classes:
        found = calibrate(predictions.probabilities, predictions.labels, run.val.probabilities, run.val.labels)
        if found.after is not None and found.temperature is not None:
            text += (
                f" With all scores divided by {found.temperature:.2f}, a temperature fitted on the validation images,"
                f" it is {found.after.ece:.3f}."
            )
    yield Paragraph(text)


def _together(run: Run) -> str:
    """What kept images together that belong together."""
    pattern = run.provenance["inputs"]["settings"]["dataset"].get("split", {}).get("group_by")
    if pattern is None:
        return (
            "Images of one object, scene, patient or film both in training and in the test make the numbers too good:"
            " see that what belongs together was kept together when the images were divided (dataset.split.group_by)."
        )
    return (
        f"Images for which {pattern} finds the same in the path (one patient, one film) were kept on one side of the"
        " split. The intervals take each test image for independent all the same: with few groups in the test they are"
        " too narrow."
    )


def limits(run: Run) -> Iterator[Block]:
    """What the numbers do not say."""
    table = run.per_class
    n = n_test(run)
    few = table[(table["n"] > 0) & (table["n"] < FEW_IMAGES)]
    none = table[table["n"] == 0]
    lines = [
        "The test images come from the same collection as the training images. Another camera, light, place, season or"
        " population may do worse, and no number here says how much: measure on images from where it is to work.",
        _together(run),
        f"One seed, {run.seed}: another one trains another model, whose accuracy differs. The intervals above are over"
        " test images, not over seeds; leaderboard.csv has those, where there are several.",
        "The labels are taken as right. A wrong label counts as an error of the model, or hides one.",
        "The classes are as frequent in the test as in the data set. Where they are more or less frequent in use, the"
        " accuracy is another one: start from the values of each class, in per_class.csv.",
        "What the images show of people, and whom an error would hurt, is not in the files: whoever uses the model has"
        " to ask. Pretrained weights bring the habits of the images that they were trained on.",
    ]
    if run.fold is not None:
        lines.append(
            f"Cross-validation: this is the model of fold {run.fold}, and its numbers are about the images of that fold"
            " alone. leaderboard.csv has the mean over all folds; no model was trained on all images."
        )
    if len(few):
        whole = "every class has" if len(few) == len(table) - len(none) else f"{len(few)} of {len(table)} classes have"
        lines.insert(
            0,
            f"Few images: {n:,} in the test, {int(few['n'].min())} of the smallest class; {whole} fewer than"
            f" {FEW_IMAGES}. Their intervals are so wide that most differences between classes mean nothing.",
        )
    if len(none):
        lines.insert(0, f"Nothing is known of {', '.join(none['class'])}: no test image.")
    yield Heading("Limits, and what to check")
    yield Items(lines)


def origin(run: Run) -> Iterator[Block]:
    """Where the numbers come from."""
    inputs, outputs = run.provenance["inputs"], run.provenance["outputs"]
    code, versions = inputs["code"], inputs["versions"]
    changed = " (with changes that are not committed)" if code.get("dirty") else ""
    rows = [
        ("mimflow, commit", f"{code['commit']}{changed}" if code.get("commit") else UNKNOWN),
        ("sha256 of the code", str(code.get("sha256") or UNKNOWN)),
        ("environment", str(inputs["environment"].get("name") or UNKNOWN)),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    hashed = {**inputs["files"], **outputs}
    rows += [
        (f"sha256 of {name}", str(hashed[name]["sha256"]))
        for name in ("config.py", "best.pth", "predictions.csv", "metrics.json", "checkpoint")
        if name in hashed
    ]
    if weights := outputs.get("best.pth", {}).get("weights_sha256"):
        rows.append(("sha256 of the weights alone", str(weights)))
    if command := run.provenance["circumstances"]["training"].get("command"):
        rows.append(("command", str(command)))
    yield Heading("Provenance")
    yield Table(("", ""), rows)
    yield Paragraph("provenance.json has the hashes of all files, the machine and the course of the training.")


def price(run: Run) -> Iterator[Block]:
    """What the training cost."""
    machine, row = run.provenance["circumstances"]["machine"], run.costs.iloc[0]
    gpus = ", ".join(str(gpu.get("name")) for gpu in machine.get("gpus") or [])
    energy = f"{row['energy_kwh']:.4g} kWh ({row['energy_of']})" if pd.notna(row["energy_kwh"]) else "not measured"
    rows = [
        ("machine", gpus or f"{machine.get('cpu') or UNKNOWN}, {machine.get('cores')} cores, no GPU"),
        ("time", f"{row['wall_seconds']:,.0f} s" if pd.notna(row["wall_seconds"]) else UNKNOWN),
        ("GPU-seconds", f"{row['gpu_seconds']:,.0f}" if pd.notna(row["gpu_seconds"]) else UNKNOWN),
        ("energy", energy),
    ]
    if pd.notna(row["cost"]):
        rows.append(("cost", f"{row['cost']:.2f} {row['currency']}".strip()))
    yield Heading("Energy and cost of the training")
    yield Table(("", ""), rows)


def _chosen_recipe(experiment: Mapping[str, Any]) -> str | None:
    """Return the recipe of an experiment's settings, ``auto`` resolved."""
    if "recipe" not in experiment or "checkpoint" not in experiment:
        return experiment.get("recipe")
    known = {key: experiment[key] for key in ("recipe", "checkpoint")}
    return Experiment.model_construct(**known).chosen_recipe()
