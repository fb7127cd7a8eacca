"""The model card: numbers of the files only, in words that are right, the same as Markdown and as a page."""

from __future__ import annotations

import copy
import json
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from chinese import english_in
from markdown_it import MarkdownIt
from simulated_predictions import predictions_of, simulate, write_csv
from tiny_run import CLASSES, TinyRun, make_run

from scripts.evaluate import describe_model, evaluate_model, predict_images
from scripts.lib.base.files import sha256_of
from scripts.lib.base.language import speaking
from scripts.lib.base.problems import UserError
from scripts.lib.data.findings import CONTAMINATED, TRAIN_COPY
from scripts.lib.metrics.errors import ConfusedPair, most_confused
from scripts.lib.metrics.metrics import wilson_interval
from scripts.lib.pages import markdown
from scripts.lib.pages.model_card import CardInputs, images_of, to_markdown
from scripts.lib.runs.run_folder import RunFolder
from scripts.report import record_provenance, write_model_card

HOSTILE = [
    "<script>alert(1)</script>",
    "a|b",
    "*x* _y_ `z`",
    "1. one",
    "- two",
    "$a$ &amp; ![p](q)",
    "\\",
    "# h",
    "&lt;",
]


class Text(HTMLParser):
    """The texts of a page's body, and the names of its elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: set[str] = set()
        self._skip = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.add(tag)
        self._skip = tag in ("style", "title")

    def handle_endtag(self, tag: str) -> None:
        self._skip = False

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self.words += data.split()


def words_of(text: str) -> list[str]:
    """The words that a reader of some Markdown sees; HTML in it is an error."""
    words: list[str] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        assert token.type != "html_block", token.content
        if token.type in ("fence", "code_block"):
            words += token.content.split()
        for child in token.children or []:
            assert child.type in ("text", "softbreak", "text_special", "code_inline"), (child.type, child.content)
            words += child.content.split() if child.type != "softbreak" else []
    return words


def finish(run: TinyRun) -> Namespace:
    """Make what the rules before the model card make, and return its options."""
    folder, dataset = run.folder, run.images.parent
    (dataset / "splits").mkdir()
    lines = run.split.read_text(encoding="utf-8")
    (dataset / "splits" / "test.txt").write_text(lines, encoding="utf-8")
    (dataset / "splits" / "train.txt").write_text(3 * lines, encoding="utf-8")
    (dataset / "splits" / "val.txt").write_text(lines.split("\n")[0] + "\n", encoding="utf-8")
    (dataset / "archive.zip").write_bytes(b"an archive")
    predict_images.main(predict_images.build_parser().parse_args(run.options(folder / "predictions.csv")))
    options = ["--predictions", folder / "predictions.csv", "--dataset", "demo", "--experiment", "tiny", "--seed", "0"]
    options += ["--metrics", folder / "metrics.json", "--per-class", folder / "per_class.csv"]
    evaluate_model.main(evaluate_model.build_parser().parse_args(list(map(str, options))))
    settings = {"dataset": {"name": "demo"}, "experiments": {"tiny": {"base_config": "mobilenet-v2_8xb32_in1k"}}}
    options = ["--run", folder, "--archive", dataset / "archive.zip", "--splits", dataset / "splits"]
    options += ["--classes", run.classes, "--config", folder / "config.py", "--checkpoint", folder / "best.pth"]
    options += ["--settings", json.dumps(settings), "--output", folder / "provenance.json"]
    record_provenance.main(record_provenance.build_parser().parse_args(list(map(str, options))))
    options = ["--config", folder / "config.py", "--checkpoint", folder / "best.pth"]
    options += ["--output", folder / "model.html", "--json", folder / "model.json"]
    describe_model.main(describe_model.build_parser().parse_args(list(map(str, options))))
    options = ["--run", folder, "--model", folder / "model.json", "--output", folder / "model_card.md"]
    options += ["--html", folder / "model_card.html"]
    return write_model_card.build_parser().parse_args(list(map(str, options)))


@pytest.fixture(scope="module")
def args(tmp_path_factory: pytest.TempPathFactory) -> Namespace:
    return finish(make_run(tmp_path_factory.mktemp("run")))


def read(args: Namespace, **changes: Any) -> CardInputs:
    options = {"export": None, "val_predictions": None, "costs": None} | vars(args) | changes
    more = {name: options[name] for name in ("export", "val_predictions", "costs", "license")}
    return write_model_card.read_inputs(
        RunFolder(options["run"]), options["model"], audit=options["audit_summary"], **more
    )


@pytest.fixture(scope="module")
def run(args: Namespace) -> CardInputs:
    return read(args)


def section(document: str, title: str) -> str:
    """The part of a document below a heading."""
    return document.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows_of(document: str) -> list[tuple[str, ...]]:
    """The rows of all tables, as a reader sees them."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(document):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and token.level >= 4:  # in a table, a body, a row, a cell
            rows[-1].append(plain(token.content))
    return [tuple(row) for row in rows]


def facts_of(document: str) -> dict[str, str]:
    """The first two cells of the rows of all tables."""
    return {row[0]: row[1] for row in rows_of(document)}


def plain(text: str) -> str:
    """What a reader sees of a line of Markdown, as words."""
    return " ".join(words_of(text))


def text_of(document: str) -> str:
    """The paragraphs and the lines of lists of a document, each in one line."""
    tokens = MarkdownIt("commonmark").enable("table").parse(document)
    pairs = pairwise(tokens)
    return "".join(f"{plain(token.content)}\n" for before, token in pairs if before.type == "paragraph_open")


def with_predictions(run: CardInputs, predictions: Any, root: Path) -> CardInputs:
    """The same run with other predictions, and the metrics of these."""
    options = ["--predictions", write_csv(root / "p.csv", predictions), "--dataset", "demo", "--experiment", "tiny"]
    options += ["--seed", "0", "--metrics", root / "metrics.json", "--per-class", root / "per_class.csv"]
    evaluate_model.main(evaluate_model.build_parser().parse_args(list(map(str, options))))
    metrics = json.loads((root / "metrics.json").read_text())
    return replace(run, predictions=predictions, metrics=metrics, per_class=pd.read_csv(root / "per_class.csv"))


def test_the_origin_and_the_license_of_the_weights_are_said(run: CardInputs) -> None:
    assert "License of the pretrained weights: not stated" in text_of(to_markdown(run))
    provenance = copy.deepcopy(dict(run.provenance))
    origin = {"source": "timm's convnextv2_atto", "sha256": "12ab", "license": "cc-by-nc-4.0"}
    provenance["inputs"]["files"]["checkpoint"]["origin"] = origin
    text = text_of(to_markdown(replace(run, provenance=provenance)))
    assert "Their origin: timm's convnextv2_atto, sha256 12ab" in text
    assert "License of the pretrained weights: cc-by-nc-4.0: non-commercial use only" in text


@pytest.mark.long
def test_markdown_and_page_say_the_same_and_are_the_same_again(args: Namespace) -> None:
    write_model_card.main(args)
    document, page = args.output.read_text(encoding="utf-8"), args.html.read_text(encoding="utf-8")
    texts = Text(page)
    card = document.split("---\n\n", 1)[1]  # without the metadata for hubs
    assert words_of(card) == texts.words and len(texts.words) > 300
    assert "script" not in texts.elements and not re.search(r"\b(nan|None|inf)\b", document)
    for name in CLASSES:
        assert " ".join(name.split()) in " ".join(texts.words)
    write_model_card.main(args)
    assert (args.output.read_text(encoding="utf-8"), args.html.read_text(encoding="utf-8")) == (document, page)


def test_names_from_outside_are_text_in_every_place() -> None:
    template = """
# {{ title }}

{% for name in names %}
{{ name }}

## {{ name }}

{% endfor %}
{% for name in names %}
- {{ name }}
{% endfor %}

| {{ header[0] }} | {{ header[1] }} |
| --- | --: |
{% for name in names %}
| {{ name }} | x |
{% endfor %}

{{ code | fenced }}
"""
    values = {"title": "# <b>title</b> #", "names": HOSTILE, "header": ["<i>", "b|c"], "code": "a ``` b\n````"}
    document = markdown.MARKDOWN["en"].from_string(template).render(values)
    texts = Text(markdown.to_html(document))
    both = [name for name in HOSTILE for _ in range(2)]
    expected = ["# <b>title</b> #", *both, *HOSTILE, "<i> b|c", *(f"{name} x" for name in HOSTILE), "a ``` b ````"]
    assert words_of(document) == texts.words == " ".join(expected).split()
    kinds = [token.type for token in MarkdownIt("commonmark").enable("table").parse(document)]
    assert kinds.count("heading_open") == 1 + len(HOSTILE) and kinds.count("bullet_list_open") == 1
    assert kinds.count("tr_open") == 1 + len(HOSTILE) and kinds.count("td_open") == 2 * len(HOSTILE)
    assert "ordered_list_open" not in kinds and not {"script", "i", "b"} & texts.elements


@pytest.mark.long
def test_what_went_in_is_what_the_files_say(run: CardInputs) -> None:
    facts = facts_of(to_markdown(run))
    assert facts["train images (the weights)"] == "63" and facts["val images (the best epoch)"] == "1"
    assert facts["test images (the numbers here)"] == "21" and facts["classes"] == "7"
    inputs = run.provenance["inputs"]
    assert facts["sha256 of the archive"] == inputs["files"]["archive"]["sha256"]
    assert facts["sha256 of the weights alone"] == run.provenance["outputs"]["best.pth"]["weights_sha256"]
    assert facts["mimflow, commit"].startswith(inputs["code"]["commit"] or "not on record")
    assert facts["base config"] == "mobilenet-v2_8xb32_in1k" and facts["recipe"] == "fast"
    assert facts["license of the images"] == "not stated"
    assert facts_of(to_markdown(replace(run, license="CC BY 4.0")))["license of the images"] == "CC BY 4.0"
    text = text_of(to_markdown(run))
    assert f"{run.model['parameters']:,} parameters" in text and "32 × 32 pixels" in text


def test_the_images_of_a_split_that_has_changed_are_not_on_record(
    args: Namespace, run: CardInputs, tmp_path: Path
) -> None:
    entry = {"path": str(tmp_path / "train.txt"), "sha256": "0" * 64}
    (tmp_path / "train.txt").write_text("a.png 0\n")
    assert images_of(entry, run) == "not on record"
    entry = dict(run.provenance["inputs"]["files"]["splits/train.txt"], path="elsewhere/splits/train.txt")
    assert images_of(entry, run) == "63", "of a folder that was moved"
    assert images_of(None, run) == "not on record"


@pytest.mark.long
def test_the_model_card_of_a_fold_says_which_images_its_numbers_are_about(run: CardInputs) -> None:
    provenance = {**run.provenance, "run": run.provenance["run"] | {"fold": "fold1"}}
    of_fold = replace(run, provenance=provenance)
    assert of_fold.title == "Model card: tiny on demo, seed 0, fold 1"
    assert "this is the model of fold 1" in text_of(to_markdown(of_fold))
    assert "fold" not in run.title and "Cross-validation" not in text_of(to_markdown(run))
    splits = run.folder.parents[1] / "splits"
    of_fold = replace(of_fold, folder=run.folder / "fold1")
    (splits / "fold1").mkdir()
    (splits / "fold1" / "train.txt").write_text("a.png 0\nb.png 1\n")
    entry = {"path": "elsewhere/splits/fold1/train.txt", "sha256": sha256_of(splits / "fold1" / "train.txt")}
    assert images_of(entry, of_fold) == "2", "of a folder that was moved"


@pytest.mark.long
def test_the_accuracy_is_said_with_its_interval(run: CardInputs, tmp_path: Path) -> None:
    changed = with_predictions(run, simulate(400, 8), tmp_path)
    right = int((changed.predictions.labels == changed.predictions.predictions).sum())
    low, high = wilson_interval(right, 400)
    document = to_markdown(changed)
    sentence = f"expect {right / 4:.1f} % right answers, between {100 * low:.1f} % and {100 * high:.1f} %"
    assert sentence in text_of(document) and "from 400 test images" in text_of(document)
    rows = rows_of(section(document, "Results"))
    assert ("accuracy (top-1)", f"{right / 4:.1f} %", f"{100 * low:.1f} % to {100 * high:.1f} %") in rows
    assert len(rows) - 1 >= 6


def known_predictions() -> Any:
    """Of 10 images of a class: a has 10 right, b 6 (3 called c, 1 a), c 8 (2 called b), d no image."""
    predicted = [0] * 10 + [1] * 6 + [2] * 3 + [0] + [2] * 8 + [1] * 2
    probabilities = np.full((30, 4), 0.1)
    probabilities[np.arange(30), predicted] = 0.7
    return predictions_of(probabilities, np.repeat([0, 1, 2], 10), ["<a>", "b|b", "c", "d"])


@pytest.mark.long
def test_the_data_section_says_what_the_audit_found(args: Namespace, run: CardInputs, tmp_path: Path) -> None:
    assert "audited" not in text_of(to_markdown(run))
    summary = {"images": 1000, "set_aside": 2, "left_out": 7, "classes": {"a": {"train": 1}}}
    (tmp_path / "audit.json").write_text(json.dumps(summary | {"findings": {CONTAMINATED: 5, TRAIN_COPY: 7}}))
    audited = read(args, audit_summary=tmp_path / "audit.json")
    text = text_of(to_markdown(audited))
    assert "Contaminated: 5 given val or test images" in text and "2 of 1,000 images were set aside" in text
    told = [
        "2 images of 16 bits",
        "folders are read as splits by their names: 'seg_train' as train",
        "left out 3: not an image",
    ]
    (tmp_path / "audit.json").write_text(json.dumps(summary | {"findings": {}, "notes": told}))
    data = section(to_markdown(read(args, audit_summary=tmp_path / "audit.json")), "Training and evaluation data")
    assert all(f"- {note}".replace("_", r"\_") in data for note in told)
    judged = {"reason": None, "suspects": 3, "images": 90, "odd_ones_out": [], "two_groups": [{"class": "a*c"}]}
    judged["pairs"] = [{"first": "a*c", "second": "b", "are_one": True}, {"first": "b", "second": "d"}]
    judged_run = replace(audited, label_suspects=judged)
    for language, alike, divided in (
        ("en", "classes that cannot be told apart: a*c / b.", "classes that look like two: a*c."),
        ("zh", "无法区分的类别：a*c / b。", "看起来像两个类别的类别：a*c。"),
    ):
        with speaking(language):
            assert alike in (text := text_of(to_markdown(judged_run))) and divided in text
            nothing = text_of(to_markdown(replace(audited, label_suspects=judged | {"pairs": [], "two_groups": []})))
        assert not any(re.split("[:：]", line)[0] in nothing for line in (alike, divided))
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(UserError, match=r"audit\.json: not the summary"):
        read(args, audit_summary=tmp_path / "audit.json")


def test_of_pairs_that_are_confused_equally_often_the_one_of_the_most_confident_error_is_named() -> None:
    probabilities = np.array([[0.3, 0.6, 0.1], [0.1, 0.2, 0.7], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1]])
    predictions = predictions_of(probabilities, np.array([0, 1, 2, 0]))
    assert most_confused(predictions) == ConfusedPair(1, 2, there=1, back=0, equal=1)


@pytest.mark.long
def test_best_and_worst_class_and_the_confused_pair(run: CardInputs, tmp_path: Path) -> None:
    assert most_confused(known_predictions()) == ConfusedPair(1, 2, there=3, back=2, equal=0)
    turned = [0, 2, 1, 3]
    other = replace(known_predictions(), classes=["<a>", "c", "b|b", "d"], labels=np.repeat([0, 2, 1], 10))
    other = replace(other, predictions=np.array(turned)[known_predictions().predictions])
    assert most_confused(other) == ConfusedPair(1, 2, there=2, back=3, equal=0), "in whatever order the classes are"
    assert "b|b and c; 3 of b|b were predicted as c, 2 of c as b|b" in text_of(
        to_markdown(replace(run, predictions=other))
    )
    changed = with_predictions(run, known_predictions(), tmp_path)
    text = text_of(to_markdown(changed))
    assert "Best class: <a>, of whose 10 images 100.0 % were found (95 % interval 72.2 % to 100.0 %)" in text
    assert "Worst class: b|b, of whose 10 images 60.0 % were found (95 % interval 31.3 % to 83.2 %)" in text
    assert "3 of b|b were predicted as c, 2 of c as b|b\n" in text
    assert "Nothing is known of d: no test image." in text
    assert "10 of the smallest class; every class has fewer than 30" in text
    assert "Confidence: 70.0 % on average, where 80.0 % of the answers are right: the model is underconfident" in text
    perfect = predictions_of(np.eye(3)[[0, 1, 2]], np.arange(3))
    assert most_confused(perfect) is None
    assert "none; no test image was misclassified" in text_of(to_markdown(replace(run, predictions=perfect)))


@pytest.mark.long
def test_the_model_card_says_where_to_see_why_and_how_to_use_the_model_with_one_file(
    run: CardInputs, tmp_path: Path
) -> None:
    short = text_of(to_markdown(with_predictions(run, known_predictions(), tmp_path)))
    assert "Why these two: figures/gradcam.html" in short
    perfect = replace(run, predictions=predictions_of(np.eye(3)[[0, 1, 2]], np.arange(3)))
    assert "Why these two" not in text_of(to_markdown(perfect))
    steps = {"steps": [], "mean": [0.0], "std": [1.0], "channel_order": "RGB", "normalisation": "outside"}
    model = {"file": "model.onnx", "bytes": 8_900_000, "sha256": "ab12", "preprocessing": steps}
    used = to_markdown(replace(run, export={"model": model}))
    assert "pip install onnxruntime pillow numpy\npython onnx_example.py model.onnx PHOTO\n" in used
    assert "onnxruntime.InferenceSession(sys.argv[1])" in used
    assert "8.9 MB" in used and "ab12" in used, "so that a reader to whom it is sent can tell that it is the one"


@pytest.mark.long
def test_the_model_card_says_what_kept_images_together(run: CardInputs) -> None:
    assert "see that what belongs together was kept together" in text_of(to_markdown(run))
    provenance = copy.deepcopy(run.provenance)
    provenance["inputs"]["settings"]["dataset"]["split"] = {"group_by": "p[0-9]+"}
    text = text_of(to_markdown(replace(run, provenance=provenance)))
    assert "Images for which p[0-9]+ finds the same" in text and "too narrow" in text


@pytest.mark.long
def test_drawn_images_are_not_called_photographs(run: CardInputs) -> None:
    warning = "nothing of real photographs"
    assert warning not in text_of(to_markdown(run))
    provenance = copy.deepcopy(run.provenance)
    provenance["inputs"]["files"]["archive"]["source"] = "samples/photos.zip"
    assert warning not in text_of(to_markdown(replace(run, provenance=provenance)))
    provenance["inputs"]["files"]["archive"]["source"] = 'sample {"images_per_class": 20}'
    assert warning in text_of(to_markdown(replace(run, provenance=provenance)))


def test_many_images_are_not_called_few(run: CardInputs, tmp_path: Path) -> None:
    text = text_of(to_markdown(with_predictions(run, simulate(600, 3), tmp_path)))
    assert "Few images" not in text and "Nothing is known" not in text and "One seed, 0" in text


@pytest.mark.long
def test_a_temperature_comes_from_the_images_of_val(run: CardInputs, tmp_path: Path) -> None:
    test = simulate(500, 5, strength=1.0)
    sharp = test.probabilities**3 / (test.probabilities**3).sum(axis=1, keepdims=True)
    half = slice(0, 250)
    parts = [predictions_of(sharp[rows], test.labels[rows]) for rows in (half, slice(250, 500))]
    changed = replace(with_predictions(run, parts[0], tmp_path), val=parts[1])
    text = text_of(to_markdown(changed))
    numbers = re.search(r"\(ECE\) is ([\d.]+);.* divided by ([\d.]+), .* it is ([\d.]+)\.", text)
    assert numbers and 1.5 < float(numbers[2]) < 6
    assert float(numbers[3]) < float(numbers[1]) == round(changed.metrics["ece"], 3)
    assert "is overconfident" in text
    assert "divided by" not in text_of(to_markdown(replace(changed, val=None)))


@pytest.mark.long
def test_energy_and_cost_are_of_this_run(args: Namespace, run: CardInputs, tmp_path: Path) -> None:
    facts = facts_of(to_markdown(run))
    assert facts["time"] == "64 s" and facts["energy"] == "not measured" and "cost" not in facts
    row = {"experiment": "tiny", "seed": 0, "wall_seconds": 1234.0, "gpu_seconds": 2468.0, "energy_kwh": 0.123456}
    row |= {"energy_of": "GPUs", "cost": 1.5, "currency": "CNY"}
    pd.DataFrame([row, row | {"seed": 1, "cost": 9}]).to_csv(tmp_path / "costs.csv", index=False)
    facts = facts_of(to_markdown(read(args, costs=tmp_path / "costs.csv")))
    assert facts["time"] == "1,234 s" and facts["GPU-seconds"] == "2,468"
    assert facts["energy"] == "0.1235 kWh (GPUs)" and facts["cost"] == "1.50 CNY"


@pytest.mark.long
def test_an_exported_model_is_told_of(run: CardInputs) -> None:
    assert "ONNX" not in text_of(to_markdown(run))
    export: Mapping[str, Any] = {
        "model": {"file": "model.onnx", "opset": 17, "input": "images: float"},
        "parity": {"images": 200, "same_prediction": 200, "largest_difference": 1.2e-7},
    }
    document = to_markdown(replace(run, export=export))
    facts = facts_of(document)
    assert facts["predictions that are the checkpoint's"] == "200 of 200" and facts["opset"] == "17"
    assert facts["largest difference of a probability"] == "1.2e-07" and "ONNX" in text_of(document)
    to_markdown(replace(run, export={}))


@pytest.mark.parametrize("kind", ["few", "many", "exported", "audited"])
def test_the_chinese_model_card_is_chinese_and_has_the_same_numbers(
    run: CardInputs, args: Namespace, tmp_path: Path, kind: str
) -> None:
    if kind == "many":
        run = replace(with_predictions(run, simulate(600, 3), tmp_path), val=simulate(300, 3))
    if kind == "exported":
        parity = {"images": 200, "same_prediction": 200, "largest_difference": 1.2e-7}
        run = replace(run, export={"model": {"input": "images: float of shape (1, 2)"}, "parity": parity})
    if kind == "audited":
        summary = {"images": 1000, "set_aside": 2, "left_out": 7, "classes": {}, "findings": {CONTAMINATED: 5}}
        run = replace(run, audit=summary | {"left_out_files": ["left out 3: not an image, such as 'a.txt'"]})
    english = to_markdown(run)
    with speaking("zh"):
        chinese = to_markdown(run)
    outside = re.sub(r"(?s)```.*?```", "", chinese)
    for name in run.predictions.classes:
        outside = outside.replace(str(markdown.escape(name)), "")
    assert not english_in(re.sub(r"(?m)^\| command.*|^\| 命令.*", "", outside))
    # Counts of which nothing is said in one language are 0, or 1 (one class likewise).
    assert numbers_in(chinese) == numbers_in(english)


def numbers_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w.])\d+(?:[.,]\d+)*", text)) - {"0", "1"}


def test_a_missing_file_is_one_line(args: Namespace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        read(args, model=tmp_path / "none.json")
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(UserError, match=r"half\.json: not JSON"):
        read(args, model=tmp_path / "half.json")
    with pytest.raises(UserError, match=r"provenance\.json: no such file"):
        read(args, run=tmp_path)


@pytest.mark.long
def test_balanced_classes_are_named_and_balanced_accuracy_stands_once(run: CardInputs) -> None:
    rows = facts_of(to_markdown(run))
    assert "balance" not in rows
    provenance = copy.deepcopy(run.provenance)
    provenance["inputs"]["settings"]["experiments"]["tiny"]["balance"] = "sampler"
    rows = facts_of(to_markdown(replace(run, provenance=provenance)))
    assert rows["balance"] == "sampler: an epoch draws the classes equally often"
    rows = facts_of(to_markdown(run))
    assert rows["balanced accuracy: recall, mean over the classes"] == f"{100 * run.metrics['recall_macro']:.1f} %"
    assert not [name for name in rows if name == "recall_macro"]


def test_when_to_rely_on_it_is_said_with_what_it_does_on_the_test_images(run: CardInputs) -> None:
    unsure = {
        "min_accuracy": 0.95, "val_images": 1200, "confidence": 0.654, "coverage_val": 0.5, "best_accuracy_val": 0.97,
        "coverage": 0.47, "confident_images": 470, "confident_accuracy": 0.941, "confident_ci95": [0.91, 0.96],
        "far_distance": 0.25, "far_share": 0.0125, "sure_share": 0.46, "sure_images": 460, "sure_accuracy": 0.944,
        "sure_ci95": [0.915, 0.962],
    }  # fmt: skip
    document = to_markdown(replace(run, metrics={**run.metrics, "unsure": unsure}))
    text = text_of(section(document, "Results"))
    for words in (
        "1,200 of them", "Confidence of at least 65.4 %", "accuracy of 95.0 %", "There 50.0 % have it",
        "of the test images 47.0 %, of which 94.1 % are right (95 % interval 91.0 % to 96.0 %)",
        "than 0.250", "Of the test images 1.2 % are farther",
        "Both: 46.0 % of the test images, of which 94.4 % are right (95 % interval 91.5 % to 96.2 %)",
    ):  # fmt: skip
        assert words in text, (words, text)
    unsure |= {"confidence": None, "confident_images": 0, "sure_images": 0, "far_share": None}
    document = to_markdown(replace(run, metrics={**run.metrics, "unsure": unsure}))
    text = text_of(section(document, "Results"))
    assert "No confidence keeps an accuracy of 95.0 %" in text and "the best is 97.0 %" in text
    assert "Both:" not in text and "farther" not in text
    with speaking("zh"):
        chinese = to_markdown(replace(run, metrics={**run.metrics, "unsure": unsure}))
    assert english_in(section(chinese, "结果")) == []
    assert "When to rely" not in to_markdown(run)


def test_the_file_begins_with_metadata_for_hubs_of_models(args: Namespace, run: CardInputs) -> None:
    write_model_card.main(args)
    text = Path(args.output).read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    data = yaml.safe_load(head)
    assert body.startswith("\n# Model card: tiny on demo")
    assert (data["license"], data["pipeline_tag"], data["datasets"]) == ("unknown", "image-classification", ["demo"])
    ((result,), name) = (data["model-index"][0]["results"], data["model-index"][0]["name"])
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert name == "tiny-seed0" and result["dataset"]["split"] == "test"
    assert values["accuracy"] == run.metrics["accuracy_top1"] and values["f1"] == run.metrics["f1_macro"]
    assert "---\n" not in write_model_card.to_html(run)[:50]
