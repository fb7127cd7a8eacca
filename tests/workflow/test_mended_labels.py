"""The loop: a DAG run finds labels that are wrong, they are mended in a browser, and the next run applies the file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import CHROMIUM, Page, chromium
from dag import QUICK, archive_bytes, jobs_run, settings, snakemake
from mmcls.models import build_classifier

from scripts.lib.base.files import sha256_of

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]
DATA = "results/small"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "data.zip").write_bytes(archive_bytes(["apple", "pear", "plum"], per_class=16))
    torch.manual_seed(0)
    backbone = {"type": "MobileNetV2", "widen_factor": 0.25}
    head = {"type": "LinearClsHead", "num_classes": 1000, "in_channels": 1280}
    model = build_classifier({"type": "ImageClassifier", "backbone": backbone, "head": head})
    torch.save({"state_dict": model.state_dict()}, folder / "weights.pth")
    fast = {**QUICK, "recipe": "fast", "epochs": 1, "checkpoint": {"path": str(folder / "weights.pth")}}
    config = settings({"path": str(folder / "data.zip")}, quick={**fast, "export": False})
    return config | {"report": {"language": "zh"}}


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def add_suspects(folder: Path) -> None:
    """Have three suspects, whatever the network with random weights thinks."""
    images = sorted((folder / DATA / "images/pear").glob("*.jpg"))[:3]
    table = folder / DATA / "label_suspects.csv"
    header = table.read_text(encoding="utf-8").splitlines()[0]
    lines = [f"pear/{path.name},pear,apple,0.9,0.05,0.95,,{sha256_of(path)},pear/003.jpg,,,,," for path in images]
    table.write_text("\n".join([header, *lines, ""]), encoding="utf-8")


ACTIONS = "[...document.querySelectorAll('article')].map(a => a.dataset.action || '').join()"
IS_UNSAVED = "!document.getElementById('unsaved').hidden"


def press(page: Page, key: str, code: str = "") -> None:
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or f"Key{key.upper()}")


def save(page: Page, downloads: Path) -> Path:
    """Save by the key, and return the file."""
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
    press(page, "s")
    for _ in range(100):
        if (downloads / "corrections.csv").is_file():
            break
        page.evaluate("new Promise(done => setTimeout(done, 100))")
    return downloads / "corrections.csv"


def load(page: Page, file: Path) -> str:
    """Load a file of decisions, and return what the page says of it."""
    page.evaluate("document.getElementById('message').textContent = ''")
    node = page.call("DOM.querySelector", nodeId=page.call("DOM.getDocument")["root"]["nodeId"], selector="#file")
    page.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node["nodeId"])
    return str(page.wait_for("document.getElementById('message').textContent"))


def mend(page_file: Path, downloads: Path) -> Path:
    """Decide about three suspects, the first by a click, the others by keys; go away, come back, save, load."""
    with chromium() as page:
        page.open(page_file.as_uri())
        assert page.evaluate(ACTIONS) == ",," and not page.evaluate(IS_UNSAVED)
        page.evaluate("document.querySelector('article').scrollIntoView({block: 'center'})")
        box = page.evaluate(
            "(r => [r.x + r.width / 2, r.y + r.height / 2])"
            "(document.querySelector('[data-do=accept]').getBoundingClientRect())"
        )
        page.move_to(*box, click=True)
        page.wait_for("document.querySelector('article').dataset.action === 'relabel'")
        press(page, "ArrowDown", "ArrowDown")
        press(page, "d")
        assert page.evaluate("[...document.querySelectorAll('article')].indexOf(document.activeElement)") == 2
        press(page, "Process", "KeyK")  # with an input method on, the key has no letter of its own
        assert page.evaluate("document.getElementById('counts').textContent").endswith("未决定 0")
        assert page.evaluate(IS_UNSAVED)
        page.open(page_file.as_uri())
        assert page.questions == ["beforeunload"], "it asks before what is not saved is left"
        page.wait_for(f"{ACTIONS} === 'relabel,drop,keep' && {IS_UNSAVED}")  # the browser keeps them
        saved = save(page, downloads)
        assert not page.evaluate(IS_UNSAVED)
        page.open(page_file.as_uri())
        page.wait_for(f"{ACTIONS} === 'relabel,drop,keep' && !({IS_UNSAVED})")
        assert page.questions == ["beforeunload"]

    # Another browser, or one that has forgotten everything: the saved file brings them back.
    with chromium() as page:
        page.open(page_file.as_uri())
        assert page.evaluate(ACTIONS) == ",,"
        text = saved.read_text(encoding="utf-8")
        excel = downloads / "excel.csv"
        stranger = f'{"f" * 64},"other, ""x"".jpg",pear,plum,relabel'
        excel.write_bytes(f"{text}{stranger}\n".replace("\n", "\r\n").encode("utf-8-sig"))
        assert "3 条，其他图像的决定 1 条" in load(page, excel)
        assert page.evaluate(ACTIONS) == "relabel,drop,keep" and not page.evaluate(IS_UNSAVED)
        again = downloads / "again"
        again.mkdir()
        assert save(page, again).read_text(encoding="utf-8") == f"{text}{stranger}\n", "nothing is lost or altered"
        for number, content in enumerate(
            [b"", "sha256,类别\n".encode("gb18030"), text.replace("drop", "erase").encode(), text.encode()[:-9]]
        ):
            bad = downloads / f"bad{number}.csv"
            bad.write_bytes(content)
            assert f"没有载入 bad{number}.csv" in load(page, bad)
            assert page.evaluate(ACTIONS) == "relabel,drop,keep"
        page.evaluate("document.getElementById('clear').click()")
        assert page.questions == ["confirm"] and page.evaluate(ACTIONS) == ",,"
        assert not page.requests_that_leave() and not page.complaints
    return saved


def test_from_the_first_click_to_the_run_that_applies_it(
    config: dict[str, Any], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    result = snakemake(tmp_path, config, "--until", "describe_label_suspects", "describe_data")
    assert result.returncode == 0, result.stdout
    assert "find_label_suspects" in jobs_run(result.stdout)
    before = {path.name: path.read_text() for path in (tmp_path / DATA / "splits").glob("*.txt")}
    summary = json.loads((tmp_path / DATA / "label_suspects.json").read_text(encoding="utf-8"))
    assert summary["images"] == 48 and summary["reason"] is None
    assert summary["odd_ones_out"] == [], "of fewer than 50 images nothing is said"

    # The page of three suspects, made by the command that the rule runs.
    add_suspects(tmp_path)
    from scripts.data import describe_label_suspects

    page = tmp_path / "page.html"
    files = {"suspects": "label_suspects.csv", "summary": "label_suspects.json", "classes": "classes.txt"}
    options = [f"--{name}={tmp_path / DATA / file}" for name, file in (files | {"images": "images"}).items()]
    parser = describe_label_suspects.build_parser()
    describe_label_suspects.main(parser.parse_args([*options, "--output", str(page), "--language", "zh"]))
    downloads = tmp_path_factory.mktemp("downloads")
    saved = mend(page, downloads)
    assert [(row["path"], row["label"], row["new_label"], row["action"]) for row in rows_of(saved)] == [
        ("pear/000.jpg", "pear", "apple", "relabel"),
        ("pear/001.jpg", "pear", "", "drop"),
        ("pear/002.jpg", "pear", "pear", "keep"),
    ]

    images = {path: sha256_of(path) for path in (tmp_path / DATA / "images").rglob("*.jpg")}
    mended = config | {"dataset": config["dataset"] | {"corrections": str(saved)}}
    result = snakemake(tmp_path, mended)
    assert result.returncode == 0, result.stdout
    assert not {"fetch_archive", "unpack_archive"} & set(jobs_run(result.stdout))
    assert {path: sha256_of(path) for path in images} == images, "images are never altered"
    after = {path.name: path.read_text() for path in (tmp_path / DATA / "splits").glob("*.txt")}
    lines = {line for text in after.values() for line in text.splitlines()}
    assert "pear/000.jpg 0" in lines and "pear/002.jpg 1" in lines
    assert not any(line.startswith("pear/001.jpg") for line in lines)
    split_of = {line.rpartition(" ")[0]: name for name, text in before.items() for line in text.splitlines()}
    pairs = [(name, line.rpartition(" ")[0]) for name, text in after.items() for line in text.splitlines()]
    assert not [path for name, path in pairs if split_of[path] != name], "every image stays in its split"
    findings = {row["file"]: (row["finding"], row["detail"]) for row in rows_of(tmp_path / DATA / "audit.csv")}
    assert findings["pear/000.jpg"] == ("relabelled", "'pear' became 'apple' by corrections.csv")
    assert findings["pear/001.jpg"] == ("dropped", "dropped by corrections.csv")
    provenance = json.loads((tmp_path / DATA / "quick/seed0/provenance.json").read_text(encoding="utf-8"))
    assert provenance["inputs"]["files"]["corrections.csv"]["sha256"] == sha256_of(saved)
    assert provenance["inputs"]["settings"]["dataset"]["corrections"] == str(saved)

    # A decision that changes nothing is no reason to train again: the finished training is recognised.
    attempts = {path: path.read_bytes() for path in (tmp_path / DATA / "quick/seed0/work").glob("*/attempts.jsonl")}
    assert len(attempts) == 1
    saved.write_text(saved.read_text(encoding="utf-8") + f"{sha256_of(next(iter(images)))},,,,keep\n", encoding="utf-8")
    result = snakemake(tmp_path, mended)
    assert result.returncode == 0 and "audit_images" in jobs_run(result.stdout), result.stdout
    works = (tmp_path / DATA / "quick/seed0/work").glob("*/attempts.jsonl")
    assert {path: path.read_bytes() for path in works} == attempts
    assert len(rows_of(tmp_path / DATA / "corrected.csv")) == 4
