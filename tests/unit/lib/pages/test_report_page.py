"""report.html: what it says, that it holds each picture once, and that no name of a class or file becomes markup."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chinese import english_on
from PIL import Image
from report_folder import compare, write_page, write_results

from scripts import serve
from scripts.lib.base.language import speaking
from scripts.lib.base.problems import UserError
from scripts.lib.data.label_suspects import LabelSuspect, write_suspects
from scripts.lib.metrics import paired
from scripts.lib.pages import (
    embedding_page,
    explanation_page,
    report_answer,
    report_maps,
    report_page,
    report_pictures,
    templates,
)
from scripts.lib.pages.report_run import Images, RunReport, describe_run, rank_of_pair
from scripts.lib.pages.report_words import words
from scripts.lib.runs.predictions import Predictions, read_predictions

HOSTILE = [
    "</script><script>alert(1)</script>",
    'it\'s "quoted"',
    "草莓 水果",
    "<img src=x onerror=alert(2)>",
    "{{ 1 }}",
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """Two experiments of three seeds over classes with hostile names."""
    dataset = tmp_path_factory.mktemp("p") / "results" / "simulated"
    dataset.mkdir(parents=True)
    return dataset, write_results(dataset, HOSTILE, {"good": 4.0, "bad": 1.0}, seeds=3, per_class=12)


@pytest.fixture(scope="module")
def page(results: tuple[Path, list[Path]]) -> str:
    return write_page(*results)


def data_of(page: str, name: str = "data") -> Any:
    match = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert match
    return json.loads(match[1])


def test_hostile_names_come_through_whole_and_become_no_markup(page: str) -> None:
    assert data_of(page)["classes"] == HOSTILE
    assert "<script>alert" not in page and "<img src=x" not in page
    # Two of data, two libraries, mimflow's own: one more would be a name's.
    assert len(re.findall(r"<script", page)) == 5 + page.count('"<script') == 5


def test_only_the_scripts_of_the_page_may_run(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and policy[1].startswith("default-src 'none'") and "unsafe-inline'; img-src data:" in policy[1]
    assert len(re.findall("'sha256-", policy[1])) == 3 and "unsafe-eval" not in policy[1]


def test_each_picture_is_there_once(page: str) -> None:
    pictures, data = data_of(page, "pictures"), data_of(page)
    assert len(set(pictures)) == len(pictures) == len(HOSTILE) * 12
    assert all(page.count(picture[:400]) == 1 for picture in pictures[:5])
    assert sorted(data["pictureOf"]) == list(range(len(data["files"])))


def test_equal_pictures_share_one(tmp_path: Path) -> None:
    runs = write_results(tmp_path, ["a", "b"], {"x": 1.0}, per_class=3)
    for index in range(3):
        (tmp_path / f"images/c1/{index + 3}.jpg").write_bytes((tmp_path / "images/c0/0.jpg").read_bytes())
    images = Images()
    report = describe_run(runs[0], tmp_path, images)
    pictures = report_pictures.collect(tmp_path / "images", images, [report])
    assert len(pictures.data) == 3 and len(set(pictures.of_image)) == 3


def test_the_report_keeps_within_its_room(tmp_path: Path) -> None:
    runs = write_results(tmp_path, ["a", "b"], {"x": 1.0}, per_class=8, size=200)
    images = Images()
    report = describe_run(runs[0], tmp_path, images)
    few = report_pictures.collect(tmp_path / "images", images, [report], room=30_000)
    assert sum(map(len, few.data)) <= 30_000 and few.left_out == 0
    none = report_pictures.collect(tmp_path / "images", images, [report], room=100)
    assert none.data == [] and none.left_out == 16


def test_what_is_looked_at_first_has_its_picture_first(tmp_path: Path) -> None:
    runs = write_results(tmp_path, ["a", "b", "c"], {"x": 0.5}, per_class=8)
    images = Images()
    report = describe_run(runs[0], tmp_path, images)
    assert report.pair
    first = report.pair.examples[0]
    order = report_pictures.wanted(images, [report])
    assert order[0] == first.image and order[1] in first.like and sorted(order) == list(range(24))
    assert report_pictures.wanted(images, [report], most=4) == order[:4]


def test_the_numbers_of_a_run_are_those_of_its_files(results: tuple[Path, list[Path]]) -> None:
    dataset, runs = results
    images = Images()
    report = describe_run(runs[0], dataset, images)
    table = pd.read_csv(runs[0] / "predictions.csv", keep_default_na=False)
    wrong = table["label"] != table["prediction"]
    assert report.n_errors == wrong.sum() == len(report.errors) and report.tested == len(table)
    assert sum(n for *_, n in report.matrix) == len(table)
    assert sum(n for label, predicted, n in report.matrix if label != predicted) == report.n_errors
    metrics = json.loads((runs[0] / "metrics.json").read_text())
    assert report.metrics["accuracy_top1"][0] == pytest.approx(metrics["accuracy_top1"], abs=1e-4)
    confidences = [confidence for _, _, confidence, _ in report.errors]
    assert confidences == sorted(confidences, reverse=True)
    image, predicted, confidence, of_label = report.errors[0]
    row = table[table["file"] == images.files[image]].iloc[0]
    assert row["prediction"] == HOSTILE[predicted] and row["label"] == HOSTILE[images.labels[image]]
    assert confidence == pytest.approx(float(row[f"prob:{row['prediction']}"]), abs=1e-4)
    assert of_label == pytest.approx(float(row[f"prob:{row['label']}"]), abs=1e-4)


def test_folds_share_the_images_and_say_which_they_tested(tmp_path: Path) -> None:
    runs = write_results(tmp_path, ["a", "b"], {"x": 1.0}, per_class=6, folds=3)
    data = data_of(write_page(tmp_path, runs))
    assert [run["fold"] for run in data["runs"]] == [0, 1, 2] and len(data["files"]) == 12
    tested = [image for run in data["runs"] for image in run["images"]]
    assert sorted(tested) == list(range(12))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_opens_in_its_language_and_holds_both(results: tuple[Path, list[Path]], language: str) -> None:
    page = write_page(*results, language=language)
    views = re.findall(r'<div class="view" lang="(\w+)" data-language="\w+"( hidden)?>', page)
    assert views == [(language, ""), ("zh" if language == "en" else "en", " hidden")]
    chinese = page.split('data-language="zh"')[1].split('data-language="en"')[0].split("<script")[0]
    assert not english_on(re.sub(r"<pre.*?</pre>|<bdi>.*?</bdi>", "", chinese, flags=re.DOTALL).replace("English", ""))


def test_the_words_of_the_script_are_there_in_both_languages() -> None:
    code = "".join(templates.source(name) for name in (*report_page.SCRIPTS, "report_view.html"))
    english = words()
    with speaking("zh"):
        chinese = words()
    assert english.keys() == chinese.keys()
    for name, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", chinese[name])), name
        assert re.search("[\u4e00-\u9fff]", chinese[name]) or name == "f1", name
        assert f'"{name}"' in code or f"{name}:" in code, f"no script writes {name}"
    assert {name for name in re.findall(r'word\("(\w+)"', code)} <= english.keys()


def test_the_libraries_are_the_ones_that_are_recorded() -> None:
    table = (templates.VENDOR / "README.md").read_text(encoding="utf-8")
    for name in templates.PLOT_LIBRARIES:
        digest = hashlib.sha256((templates.VENDOR / name).read_bytes()).hexdigest()
        assert re.search(rf"`{re.escape(name)}` .*`{digest}`", table), name


# --- the answer -------------------------------------------------------------------------------------------------------


def board(*verdicts: str, **columns: Any) -> pd.DataFrame:
    rows = [
        {
            "experiment": f"e{index}",
            "accuracy_top1_mean": 0.9 - 0.1 * index,
            "accuracy_top1_ci95_low": 0.8,
            "accuracy_top1_ci95_high": 0.95,
            "interval": "recipe",
            "accuracy_majority": 0.25,
            "n_test": "40",
            "train_seconds_mean": 30.0 - index,
            "against_best": verdict,
            "remark": "",
        }
        for index, verdict in enumerate(("best", *verdicts))
    ]
    return pd.DataFrame(rows).assign(**columns)


def test_the_best_is_certain_only_where_the_tests_tell_it_from_every_other() -> None:
    certain = report_answer.answer(board(paired.WORSE, paired.WORSE), 3)
    assert certain.certain and certain.best == "e0" and certain.fastest_equal == ""
    for verdict in (paired.NOT_TOLD_APART, paired.TOO_FEW_SEEDS, paired.NOT_COMPARABLE, paired.BETTER):
        assert not report_answer.answer(board(paired.WORSE, verdict), 3).certain, verdict
    assert report_answer.answer(board(paired.NOT_TOLD_APART), 2).fastest_equal == "e1"


def test_too_few_seeds_leave_it_certain_which_models_are_best() -> None:
    assert report_answer.answer(board(paired.TOO_FEW_SEEDS, paired.WORSE), 3).certain_of_models
    for verdict in (paired.WORSE, paired.NOT_TOLD_APART, paired.NOT_COMPARABLE):
        answer = report_answer.answer(board(*{verdict, paired.WORSE}), 3)
        assert not answer.certain_of_models, verdict
    assert not report_answer.answer(board(paired.TOO_FEW_SEEDS, paired.NOT_TOLD_APART), 3).certain_of_models


def test_the_answer_says_what_to_do_about_the_data_first(page: str) -> None:
    answer = page.partition('data-section="answer"')[2].partition("</section>")[0]
    assert 1 <= answer.count('class="advice"') <= report_page.FIRST_STEPS
    assert "Fetch or export the file again" in answer  # of the audit
    assert "more test images narrow the intervals" in answer  # of the classes


def test_what_the_report_links_to_is_served_beside_it(page: str) -> None:
    assert set(re.findall(r'href="([^"#]+)"', page)) <= set(serve.PAGES)


def test_contaminated_images_are_in_the_answer() -> None:
    contaminated = report_answer.answer(board(accuracy_without_leaked=0.7, n_leaked="6"), 1)
    assert (contaminated.contaminated, contaminated.without_contaminated) == (6, 0.7)
    assert report_answer.answer(board(), 1).contaminated == 0


def run_with(suspects: Sequence[tuple[int, int]], images: Sequence[int] = range(5), **more: Any) -> RunReport:
    empty: dict[str, Any] = {name: {} for name in ("metrics", "calibration", "curve")}
    values = {"experiment": "e", "seed": 0, "fold": None, "folder": "e/seed0", "tested": 5, "images": list(images)}
    values |= {"matrix": [], "errors": [], "n_errors": 0, "unlisted": [], "classes": [], "kept": None, "pair": None}
    rows = [[image, label, 0.1, 0.8] for image, label in suspects]
    return RunReport(**{**empty, **values, "suspects": rows, **more})  # type: ignore[arg-type]


def test_a_label_is_to_be_checked_where_half_of_the_runs_agree() -> None:
    runs = [run_with([(0, 1), (1, 2)]), run_with([(0, 1)]), run_with([(0, 1), (2, 0)]), run_with([(0, 2), (2, 0)])]
    agreed = report_answer.common_suspects(runs)
    assert [(suspect.image, suspect.suggested, suspect.of) for suspect in agreed] == [(0, 1, "3/4"), (2, 0, "2/4")]
    assert report_answer.common_suspects([run_with([])]) == []
    of_folds = [run_with([(0, 1)], images=[0, 1]), run_with([], images=[2, 3])]
    assert [suspect.of for suspect in report_answer.common_suspects(of_folds)] == ["1/1"]


def test_weak_and_small_classes_are_named_with_what_to_do() -> None:
    rows = [[40, 90, 0.9, 0.95, 0.8, 1.0, 0.9], [40, 20, 0.9, 0.5, 0.4, 0.6, 0.6], [5, 90, 1, 1, 0.6, 1, 1]]
    lines = report_answer.class_lines(run_with([], classes=rows), ["a", "b", "c"])
    assert [line.what for line in lines] == [
        "classes of unequal size: 20 to 90 training images (4.5 times)",
        "classes that are recognised least: b (50 %)",
        "classes with fewer than 30 test images: 1 of 3",
    ]
    assert all(line.advice for line in lines)


def test_of_many_weak_classes_it_is_said_how_many_more_there_are() -> None:
    rows = [[40, 90, 0.9, recall, 0.8, 1.0, 0.9] for recall in [1.0] * 10 + [0.5] * 8]
    titles = [line.what for line in report_answer.class_lines(run_with([], classes=rows), list("abcdefghijklmnopqr"))]
    named = ", ".join(f"{name} (50 %)" for name in "klmno")
    assert f"classes that are recognised least: {named} and 3 more" in titles


def test_a_finding_that_needs_nothing_advises_nothing() -> None:
    summary = {"findings": {"palette": 1, "duplicate": 2}}
    for language in ("en", "zh"):
        with speaking(language):
            lines = report_answer.findings_of(summary)
            assert [bool(line.advice) for line in lines] == [True, False] and all(line.done for line in lines)


def test_the_rank_of_a_pair_is_that_of_the_distance_of_its_means() -> None:
    features = np.array([[0.0], [0.2], [1.0], [1.2], [9.0]])
    labels = np.array([0, 0, 1, 1, 3])
    assert rank_of_pair(labels, features, (0, 1)) == 1
    assert rank_of_pair(labels, features, (1, 3)) == 2
    assert rank_of_pair(labels, features, (0, 3)) == 3
    assert rank_of_pair(labels, features, (0, 2)) is None


def test_a_run_without_errors_has_no_pair(tmp_path: Path) -> None:
    runs = write_results(tmp_path, ["a", "b"], {"x": 50.0}, per_class=3)
    report = describe_run(runs[0], tmp_path, Images())
    assert report.pair is None and report.errors == [] and replace(report, fold=2).name == "x, seed 0, fold 2"
    assert "classified correctly" in write_page(tmp_path, runs)


def test_errors_beyond_those_that_are_listed_are_still_known_as_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = write_results(tmp_path, ["a", "b", "c"], {"x": 0.2}, per_class=9)
    images = Images()
    whole = describe_run(runs[0], tmp_path, images)
    monkeypatch.setattr("scripts.lib.pages.report_run.MOST_ERRORS", 2)
    cut = describe_run(runs[0], tmp_path, images)
    assert whole.unlisted == [] and len(cut.errors) == 2 and cut.n_errors == whole.n_errors > 2
    assert [*(error[0] for error in cut.errors), *cut.unlisted] == [error[0] for error in whole.errors]


def test_runs_of_other_code_have_the_name_that_the_leaderboard_gives_them(tmp_path: Path) -> None:
    """Else the row of the leaderboard answers no click, and what is confused most is another run's than the best's."""
    runs = write_results(tmp_path, ["a", "b"], {"x": 0.2, "y": 3.0}, seeds=3)
    provenance = json.loads((runs[0] / "provenance.json").read_text())
    provenance["inputs"]["code"]["sha256"] = "other"
    (runs[0] / "provenance.json").write_text(json.dumps(provenance))
    compare(tmp_path, runs)
    sources = report_page.read_sources(tmp_path, runs, "")
    named = {run.folder: run.experiment for run in sources.runs}
    assert named.pop("x/seed0") == "x (other code)" and set(named.values()) == {"x", "y"}
    assert {run.experiment for run in sources.runs} == set(sources.board["experiment"])
    assert [run.experiment for run in sources.runs][:3] == ["y"] * 3, "the best first"


def test_the_map_and_grad_cam_of_a_run_come_from_its_own_pages(tmp_path: Path) -> None:
    runs = write_results(tmp_path, HOSTILE, {"x": 1.0}, per_class=4)
    predictions = read_predictions(runs[0] / "predictions.csv")
    features = np.load(runs[0] / "features.npy")
    image_map = embedding_page.make_map(predictions, features, 0)
    (runs[0] / "figures").mkdir()
    page = embedding_page.render(image_map, [""] * len(predictions.files), len(predictions.files), 0, "t")
    (runs[0] / "figures/embedding.html").write_text(page, encoding="utf-8")
    (runs[0] / "figures/gradcam.html").write_text(explanation_of(predictions), encoding="utf-8")
    (report,) = report_page.read_sources(tmp_path, runs, "").runs
    positions = {predictions.files[i]: image_map.positions[i] for i in range(len(predictions.files))}
    images = report_page.read_sources(tmp_path, runs, "").images
    assert len(report.map) == len(positions)
    assert all(positions[images.files[image]] == pytest.approx((x, y), abs=0.06) for image, x, y in report.map)
    assert report.explained and len(report.explained) <= report_maps.MOST_EXPLAINED
    for image, maps in report.explained:
        row = predictions.files.index(images.files[image])
        wanted = [predictions.predictions[row], predictions.labels[row]]
        assert [label for _, label, _ in maps] == list(dict.fromkeys(wanted))
        assert all(uri.startswith("data:image/jpeg;base64,") for *_, uri in maps)


def explanation_of(predictions: Predictions) -> str:
    """A page of Grad-CAM whose maps are grey."""
    grey = Image.new("RGB", (16, 16))
    choice = explanation_page.choose(predictions, np.zeros((len(predictions.files), 4), np.float32))
    explained = {}
    for row in choice.rows():
        labels = dict.fromkeys((int(predictions.predictions[row]), int(predictions.labels[row])))
        explained[row] = explanation_page.Explained(grey, [explanation_page.Map(k, grey, False) for k in labels])
    explanations = explanation_page.Explanations(explained, "layer", (4, 4), 0.0)
    return explanation_page.explanation_page(predictions, choice, explanations)


def test_maps_that_have_no_room_are_said_to_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = write_results(tmp_path, ["a", "b"], {"x": 0.5}, per_class=4)
    (runs[0] / "figures").mkdir()
    page = explanation_of(read_predictions(runs[0] / "predictions.csv"))
    (runs[0] / "figures/gradcam.html").write_text(page, encoding="utf-8")
    monkeypatch.setattr(report_maps, "ROOM", 10)
    (report,) = report_page.read_sources(tmp_path, runs, "").runs
    assert report.explained == [] and report.explained_elsewhere


def test_label_suspects_of_all_splits_take_the_place_of_those_of_test(tmp_path: Path) -> None:
    runs = write_results(tmp_path, ["a", "b"], {"x": 1.0}, per_class=4)
    (tmp_path / "images/c0/train.jpg").write_bytes((tmp_path / "images/c1/5.jpg").read_bytes())
    first = LabelSuspect("c0/train.jpg", "a", "b", 0.9, 0.1, 0.8, "train", "0" * 64)
    other = LabelSuspect("c0/0.jpg", "a", "no such class", 0.8, 0.2, 0.7, "test", "1" * 64)
    write_suspects(tmp_path / "label_suspects.csv", [first, other])
    page = write_page(tmp_path, runs)
    data = data_of(page)
    assert data["files"][-1] == "c0/train.jpg" and data["tested"] == 8 and data["runs"][0]["images"] is None
    assert data["pictureOf"][-1] == data["pictureOf"][data["files"].index("c1/5.jpg")]
    assert "1 image of all splits" in " ".join(page.split()) and "label_suspects.html" in page
    (tmp_path / "label_suspects.json").write_text('{"is_weak": true}')
    assert "of all splits" not in write_page(tmp_path, runs)
    (tmp_path / "label_suspects.json").write_text('{"is_weak": false}')
    (tmp_path / "label_suspects.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"not a label_suspects\.csv"):
        write_page(tmp_path, runs)


def test_what_the_features_say_is_among_what_to_do(tmp_path: Path) -> None:
    runs = write_results(tmp_path, ["a", "<b>"], {"x": 1.0}, per_class=4)
    assert "unlike all others" not in write_page(tmp_path, runs)
    summary = {
        "suspects": 3, "is_weak": False, "odd_ones_out": ["a/1.jpg"],
        "pairs": [{"first": "a", "second": "<b>", "are_one": True}, {"first": "a", "second": "c", "are_one": False}],
        "two_groups": [{"class": "<b>"}],
    }  # fmt: skip
    (tmp_path / "label_suspects.json").write_text(json.dumps(summary))
    page = write_page(tmp_path, runs)
    for line in (
        "labels that may be wrong: 3 images", "images unlike all others: 1 image", "a / &lt;b&gt;<",
        "classes that look like two: &lt;b&gt;", "标签可能有误：3 张图像", "与其他图像都不相似：1 张图像",
        "无法区分的类别：a / &lt;b&gt;", "看起来像两个类别的类别：&lt;b&gt;",
    ):  # fmt: skip
        assert line in page, line
    weak = report_answer.feature_lines(summary | {"is_weak": True})
    assert len(weak) == 3 and not any("wrong" in line.what for line in weak)
    older = {"suspects": 3, "pairs": [{"first": "a", "second": "b"}]}  # of a version without are_one and two_groups
    assert len(report_answer.feature_lines(older)) == 1
    assert report_answer.feature_lines({}) == [] == report_answer.feature_lines({"reason": "no weights", "suspects": 0})
