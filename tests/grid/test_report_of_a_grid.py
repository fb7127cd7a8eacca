"""The report of a grid as our users have them: 30 classes with Chinese names, two experiments, two seeds, a browser.

Four runs take minutes, so that only `make test-grid` does this. MIMFLOW_PICTURES names a folder for what the windows
showed, since some faults only an eye sees; MIMFLOW_GRID one in which the runs stay, and are not repeated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from browser import CHROMIUM, Page, chromium
from dag import ROOT, snakemake
from PIL import Image
from report_page_reader import use_every_control
from report_reader import ask_the_map, check_quiet, look_at, look_at_everything, open_category

from scripts.lib.data.sample.looks import CLASSES
from scripts.lib.data.sample.render import encode_jpeg, render_image
from scripts.lib.workflow.report_menu import ORDER, label

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

#: The classes of the tutorial's experiment.
NAMES = [
    *(
        "哈密瓜",
        "圣女果",
        "山竹",
        "杨梅",
        "柚子",
        "柠檬",
        "桂圆",
        "梨",
        "椰子",
        "榴莲",
        "火龙果",
        "猕猴桃",
        "石榴",
        "砂糖橘",
        "胡萝卜",
    ),
    *(
        "脐橙",
        "芒果",
        "苦瓜",
        "苹果-红",
        "苹果-青",
        "草莓",
        "荔枝",
        "菠萝",
        "葡萄-白",
        "葡萄-红",
        "西瓜",
        "西红柿",
        "车厘子",
        "香蕉",
        "黄瓜",
    ),
]
PER_CLASS, SIZE = 20, 96
#: Degrees by which the colours of a rendered fruit are turned: each kind makes three classes, easily confused.
TURNS = (0, 25, 140)
SMALL: dict[str, Any] = {"image_size": 64, "batch_size": 32, "epochs": 2, "device": "cpu"}
DEMO = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text(encoding="utf-8"))
PRETRAINED = DEMO["experiments"]["mobilenet-v2"]["checkpoint"]
GRID: dict[str, Any] = {
    "dataset": {"name": "grid", "source": {"path": "grid.zip"}, "split": {"val": 0.1, "test": 0.3}},
    "experiments": {
        "mobilenet-fast": {"base_config": "mobilenet-v2_8xb32_in1k", "checkpoint": PRETRAINED, **SMALL},
        "resnet18-scratch": {"base_config": "resnet18_8xb32_in1k", "checkpoint": "none", **SMALL},
    },
    "seeds": [0, 1],
}


def write_images(path: Path) -> None:
    """Write a zip of rendered fruits, a folder a class."""
    kinds = [(kind, turn) for kind in CLASSES for turn in TURNS]
    with zipfile.ZipFile(path, "w") as archive:
        for name, (kind, turn) in zip(NAMES, kinds, strict=True):
            turned_values = [(value + round(turn * 256 / 360)) % 256 for value in range(256)]
            for index in range(1, PER_CLASS + 1):
                hue, *others = Image.fromarray(render_image(kind, index, seed=turn, size=SIZE)).convert("HSV").split()
                picture = Image.merge("HSV", (hue.point(turned_values), *others)).convert("RGB")
                archive.writestr(f"fruit30/{name}/{index:03}.jpg", encode_jpeg(np.asarray(picture)))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of results of the finished grid."""
    assert CHROMIUM, "no Chromium on this machine: apt-get install chromium"
    folder = Path(os.environ.get("MIMFLOW_GRID") or tmp_path_factory.mktemp("grid"))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "grid.zip").is_file():
        write_images(folder / "grid.zip")
    result = snakemake(folder, GRID, seconds=3000)
    assert result.returncode == 0, result.stdout
    return folder / "results/grid"


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as opened:
        yield opened


def pictures(name: str) -> Path | None:
    """Return a folder for pictures where the user wants them."""
    if wanted := os.environ.get("MIMFLOW_PICTURES"):
        (folder := Path(wanted, name)).mkdir(parents=True, exist_ok=True)
        return folder
    return None


@pytest.fixture(scope="module", params=["en", "zh"])
def settings(request: pytest.FixtureRequest, grid: Path) -> Path:
    """The settings of the grid in a language, whose report is written."""
    values = {**GRID, "report": {"language": request.param}}
    command = [sys.executable, "-m", "scripts.report.write_report"]
    command += ["--settings", json.dumps(values), "--dataset", "results/grid"]
    subprocess.run(command, cwd=grid.parent.parent, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return grid / "settings.yaml"


def test_a_reader_uses_every_control_of_the_report(page: Page, settings: Path) -> None:
    report = settings.with_name("report.html")
    use_every_control(page, report.as_uri())
    check_quiet(page)
    assert report.stat().st_size < 15_000_000
    if folder := pictures(settings.parent.name):
        page.screenshot(folder / "report.png")


def test_a_reader_sees_every_figure_of_every_run_in_snakemakes_report(page: Page, grid: Path, settings: Path) -> None:
    command = [sys.executable, "-m", "scripts.snakemake_report", "--config", "results/grid/settings.yaml"]
    subprocess.run(command, cwd=grid.parent.parent, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    language = yaml.safe_load(settings.read_text(encoding="utf-8")).get("report", {}).get("language", "en")
    report = (grid / "snakemake_report.html").as_uri()
    first, second, runs = (label(name, language) for name in ("Data", "Leaderboard", "Runs"))
    places = [(first, ""), (second, ""), *((runs, experiment) for experiment in GRID["experiments"])]
    seen = look_at_everything(page, report, places, pictures(language))
    # Tables, comparisons.csv and per_class.csv, are handed out as files.
    assert [len(words) for words in seen] == [2, 2, *[2 * (len(ORDER) - 1)] * len(GRID["experiments"])]

    page.open(report)
    map_of_images = label("map of the test images", language)
    rows = open_category(page, runs, "mobilenet-fast")
    assert look_at(page, next(number for number, words in enumerate(rows) if map_of_images in words))
    ask_the_map(page)
    check_quiet(page)
