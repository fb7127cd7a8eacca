"""Every kind of file under results/, damaged in every way, before every command: none lets it pass without a word.

TABLE says what each command does about a kind of file; where it does nothing, REASONS says why nothing is needed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dag import Finished, jobs_run, snakemake

from scripts import bundle, repeat, watch
from scripts.lib.base.problems import UserError
from scripts.lib.model.photos import check_run, open_onnx
from scripts.lib.settings.load import load_settings
from scripts.lib.settings.schema import Settings
from scripts.lib.workflow import quick, renewal
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.progress import Watcher

pytestmark = pytest.mark.long

RESULTS, RUN = Path("results"), Path("results/small/quick/seed0")
AGAIN, REFUSED, NOTHING = "made again", "refused", "nothing"
#: Of a kind of file, what `run`, `report`, `predict`, `verify`, `bundle` and `watch` do about it, in this order.
IN_BUNDLE = (AGAIN, REFUSED, NOTHING, REFUSED, REFUSED, NOTHING)
OUTSIDE = (AGAIN, REFUSED, NOTHING, REFUSED, NOTHING, NOTHING)
MODEL = (AGAIN, REFUSED, REFUSED, REFUSED, REFUSED, NOTHING)
SHOWN = (AGAIN, REFUSED, NOTHING, REFUSED, REFUSED, REFUSED)
BOARD = (AGAIN, REFUSED, NOTHING, REFUSED, NOTHING, REFUSED)
ANEW = (NOTHING, NOTHING, NOTHING, REFUSED, NOTHING, NOTHING)
UNUSED = (NOTHING,) * 6
COMMANDS = ("run", "report", "predict", "verify", "bundle", "watch")
TABLE: dict[str, tuple[str, ...]] = {
    # With the images: without them, a bundle does not need the archive.
    "small/archive.zip": IN_BUNDLE, "small/archive.sha256": IN_BUNDLE,
    "small/unpacked.json": OUTSIDE, "small/images/*/000*.jpg": OUTSIDE,
    "small/audit.csv": IN_BUNDLE, "small/audit.json": IN_BUNDLE, "small/audit.html": OUTSIDE,
    "small/audit.cache": UNUSED,
    "small/classes.txt": IN_BUNDLE, "small/splits/train.txt": IN_BUNDLE, "small/splits/val.txt": IN_BUNDLE,
    "small/splits/test.txt": IN_BUNDLE,
    "small/quick/seed0/config.py": MODEL, "small/quick/seed0/best.pth": MODEL, "small/quick/seed0/last.pth": IN_BUNDLE,
    "small/quick/seed0/train_log.csv": SHOWN,
    "small/quick/seed0/work/*/best.pth": ANEW, "small/quick/seed0/work/*/last.pth": ANEW,
    "small/quick/seed0/work/*/train_log.csv": ANEW, "small/quick/seed0/work/*/attempts.jsonl": UNUSED,
    "small/quick/seed0/work/*/identity.json": UNUSED, "small/quick/seed0/work/*/output.log": UNUSED,
    "small/quick/seed0/predictions.csv": IN_BUNDLE, "small/quick/seed0/val_predictions.csv": IN_BUNDLE,
    "small/quick/seed0/known.npy": MODEL, "small/quick/seed0/certainty.json": MODEL,
    "small/quick/seed0/features.npy": OUTSIDE, "small/quick/seed0/metrics.json": IN_BUNDLE,
    "small/quick/seed0/per_class.csv": IN_BUNDLE, "small/quick/seed0/figures/confusion_matrix.svg": IN_BUNDLE,
    "small/quick/seed0/figures/gradcam.html": IN_BUNDLE, "small/quick/seed0/model.onnx": MODEL,
    "small/quick/seed0/export.json": IN_BUNDLE, "small/quick/seed0/model.json": IN_BUNDLE,
    "small/quick/seed0/provenance.json": IN_BUNDLE, "small/quick/seed0/provenance.html": IN_BUNDLE,
    "small/quick/seed0/model_card.md": IN_BUNDLE,
    "small/leaderboard.csv": BOARD, "small/leaderboard.html": OUTSIDE, "small/costs.csv": OUTSIDE,
    "small/comparisons.csv": OUTSIDE, "small/figures/leaderboard.svg": OUTSIDE,
    "small/ro-crate-metadata.json": OUTSIDE,
    "small/report.html": (NOTHING, NOTHING, NOTHING, REFUSED, REFUSED, NOTHING), "small/settings.yaml": ANEW,
}  # fmt: skip
#: Why nothing is done, by command, and by the file where that is another reason.
REASONS = {
    "run": {
        "audit.cache": "each entry has a checksum, and an image whose entry is gone or wrong is decoded again",
        "attempts.jsonl": "times of attempts, from which costs.csv was made; no result depends on them",
        "identity.json": "says in a message which file changed; the folder's name is what the training depends on",
        "output.log": "is for people",
        "report.html": "is written anew whenever the workflow runs",
        "settings.yaml": "is written anew whenever the workflow runs",
        "best.pth": "train_model compares it with its hash before it publishes it, and else trains again",
        "last.pth": "train_model compares it with its hash before it publishes it, and else trains again",
        "train_log.csv": "train_model compares it with its hash before it publishes it, and else trains again",
    },
    "report": {"": "does not show it, or writes it anew"},
    "predict": {"": "reads config.py, best.pth, known.npy and certainty.json, or model.onnx, and nothing else"},
    "verify": {
        "audit.cache": "checksums of its own", "attempts.jsonl": "no result depends on it",
        "identity.json": "no result depends on it", "output.log": "is for people",
    },
    "bundle": {"": "does not put it in"},
    "watch": {"": "shows numbers of train_log.csv and leaderboard.csv only"},
}  # fmt: skip
#: Whose absence is no damage: it was removed to save space, and is made again when a step needs it.
SPARE = ("small/archive.zip", "small/quick/seed0/last.pth")


def flip(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


def flip_in_secret(path: Path) -> None:
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    path.unlink()
    path.write_text('{"accuracy_top1": 0.99}\n')


def back_date(path: Path) -> None:
    os.utime(path, (946_684_800, 946_684_800))


@pytest.fixture(scope="module")
def copied(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    """Return a copy of the finished run in another place, with other times, and its settings."""
    folder = tmp_path_factory.mktemp("copied")
    shutil.copytree(finished[0] / "results", folder / "results", copy_function=shutil.copyfile)
    return folder, load_settings(finished[1], [])


@pytest.fixture
def there(copied: tuple[Path, Settings], monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(copied[0])
    return copied[1]


@pytest.fixture
def damaged(there: Settings, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a file of the copy that is damaged for the time of one test."""
    pattern, fault = request.param
    path = sorted(RESULTS.glob(pattern))[0]
    kept = tmp_path / "kept"
    shutil.copyfile(path, kept)
    fault(path)
    yield path
    shutil.copyfile(kept, path)


def answer_of(command: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a command says of a damaged file: one line; "" for nothing."""
    capsys.readouterr()
    try:
        command()
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    except SystemExit as ended:
        return capsys.readouterr().out if ended.code else ""
    return ""


def commands(settings: Settings, output: Path, damaged: Path = RUN / "model.onnx") -> dict[str, Callable[[], Any]]:
    def run() -> None:
        changes = renewal.find_changes(Layout(settings), keep=False)
        # What no rule makes is no job's to make again.
        if changes := [change for change in changes if change.product.name not in ("report.html", "settings.yaml")]:
            raise UserError(changes[0])

    def predict() -> None:
        check_run(RUN)
        if damaged.suffix == ".onnx":  # which is opened where there is no torch; a fifth of a second
            open_onnx(RUN / "model.onnx", [], 1, 1)

    dataset = RESULTS / "small"
    return {
        "run": run,
        "report": lambda: renewal.check_unchanged(
            Layout(settings), [dataset / "settings.yaml", dataset / "report.html"]
        ),
        "predict": predict,
        "verify": lambda: quick.verify(RESULTS),
        "bundle": lambda: bundle.main(
            bundle.build_parser().parse_args(["--run", str(RUN), "--images", "--output", str(output)])
        ),
        "watch": lambda: watch.check_shown(Watcher(RESULTS).look(), RESULTS),
    }


@pytest.mark.parametrize(
    "damaged",
    [(name, fault) for name in TABLE for fault in (flip_in_secret, truncate, replace, Path.unlink)],
    indirect=True,
    ids=lambda pair: f"{pair[0]}-{pair[1].__name__}",
)
def test_no_damage_passes_without_a_word(
    damaged: Path, there: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    pattern, fault = request.node.callspec.params["damaged"]
    for command, call, expected in zip(
        COMMANDS, commands(there, tmp_path / "b.tar", damaged).values(), TABLE[pattern], strict=True
    ):
        line = answer_of(call, capsys)
        if fault is Path.unlink and expected != NOTHING and is_spare(pattern, command):
            continue
        if expected == NOTHING:
            assert not line and (REASONS[command].get(damaged.name) or REASONS[command][""]), command
        else:
            assert damaged.stem.partition(".")[0] in line, (command, line)


def is_spare(pattern: str, command: str) -> bool:
    """Tell whether a file may be absent for a command: whoever needs it makes it again, or says that it is gone."""
    return (pattern in SPARE and command in ("run", "report")) or command in ("watch", "bundle") or "work" in pattern


def test_back_dated_and_copied_files_are_the_same(
    there: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in RESULTS.rglob("*"):
        back_date(path)
    for command, call in commands(there, tmp_path / "b.tar").items():
        assert answer_of(call, capsys) == "", command


@pytest.mark.parametrize("position", [0.01, 0.3, 0.6, 0.9])
def test_a_damaged_bundle_is_refused(
    there: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], position: float
) -> None:
    path = tmp_path / "b.tar"
    assert answer_of(commands(there, path)["bundle"], capsys) == ""
    with open(path, "r+b") as file:
        file.seek(int(position * path.stat().st_size) // 512 * 512 + 20)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    line = answer_of(lambda: repeat.main(repeat.build_parser().parse_args(["--archive", str(path)])), capsys)
    assert str(path) in line
    os.truncate(path, int(position * path.stat().st_size))
    assert answer_of(lambda: repeat.main(repeat.build_parser().parse_args(["--archive", str(path)])), capsys)


def test_snakemake_makes_again_what_is_gone_or_changed(finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path / "p", symlinks=True)
    run = tmp_path / "p" / RUN
    (run / "best.pth").unlink()
    truncate(run.parents[1] / "leaderboard.csv")
    result = snakemake(tmp_path / "p", finished[1], "-n")
    assert f"{RUN}/best.pth is gone: it is made again" in result.stdout
    assert "leaderboard.csv is not what was made" in result.stdout
    assert "scripts.train.train_model" in result.stdout and "scripts.data.unpack_archive" not in result.stdout
    assert result.returncode == 0 and not jobs_run(result.stdout)


@pytest.mark.parametrize(
    ("gone", "rule"),
    [
        (["quick/seed0/config.py"], "patch_config"),
        (["quick/seed0/best.pth", "quick/seed0/last.pth", "quick/seed0/train_log.csv"], "train_model"),
        (["quick/seed0/metrics.json", "quick/seed0/per_class.csv"], "evaluate_model"),
        (["quick/seed0/model.html", "quick/seed0/model.json"], "describe_model"),
        (["audit.csv", "audit.json"], "audit_images"),
        (["splits", "classes.txt"], "split_dataset"),
        (["archive.zip", "images", "quick/seed0/last.pth"], ""),
    ],
)
def test_a_step_of_which_nothing_is_left_is_done_again_unless_that_saves_room(
    finished: Finished, tmp_path: Path, gone: list[str], rule: str
) -> None:
    folder = tmp_path / "p" / "results" / "small"
    shutil.copytree(finished[0], tmp_path / "p", symlinks=True)
    for path in (folder / name for name in gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    result = snakemake(tmp_path / "p", finished[1], "-n")
    assert result.returncode == 0, result.stdout
    planned = dict(line.split() for line in result.stdout.splitlines() if re.fullmatch(r"[a-z_]+ +\d+", line))
    if rule:
        assert rule in planned and "write_report" in planned, result.stdout
    else:
        assert "Nothing to be done" in result.stdout and not planned
