"""verify, bundle and repeat on a real finished run, whose server is gone: what is the same, and what differs first."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import bundle, repeat, verify
from scripts.lib.base.files import sha256_of

pytestmark = pytest.mark.long

Finished = tuple[Path, dict[str, Any], str]
RUN = "results/small/quick/seed0"


def outcome(script: Any, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    """Return the exit status of a script and what it printed on stdout."""
    status = 0
    try:
        script.main(script.build_parser().parse_args(list(options)))
    except SystemExit as end:
        status = int(str(end.code))
    return status, capsys.readouterr().out


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    """The results of the finished run without images, to tamper with."""
    shutil.copytree(
        finished[0] / "results", tmp_path / "results", ignore=shutil.ignore_patterns("images", "report.html")
    )
    return tmp_path


def test_a_run_is_verified_without_a_network_and_nothing_is_left(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished[0] / "results").rglob("*") if path.is_file()}
    assert outcome(verify, capsys, "--run", str(finished[0] / RUN)) == (0, "identical\n")
    after = {path: path.stat().st_mtime_ns for path in (finished[0] / "results").rglob("*") if path.is_file()}
    assert after == before and not (finished[0] / "results" / ".scratch").exists()


def change_weights(run: Path) -> None:
    content = torch.load(run / "best.pth", weights_only=True)
    weights = content["state_dict"]["head.fc.bias"]
    weights[0] = torch.nextafter(weights[0], torch.tensor(9.0))
    torch.save(content, run / "best.pth")


def cut_weights_short(run: Path) -> None:
    (run / "best.pth").write_bytes((run / "best.pth").read_bytes()[:1000])


def change_split(run: Path) -> None:
    path = run.parents[1] / "splits" / "train.txt"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))


def change_config(run: Path) -> None:
    path = run / "config.py"
    path.write_text(path.read_text().replace("'momentum': 0.9", "'momentum': 0.8"))


def remove_archive(run: Path) -> None:
    (run.parents[1] / "archive.zip").unlink()


@pytest.mark.parametrize(
    ("tamper", "stage"),
    [
        (change_weights, r"weights \(best\.pth\)"),
        (cut_weights_short, r"weights \(best\.pth\)"),
        (change_split, r"splits \(splits/train\.txt\)"),
        (change_config, r"config \(config\.py\)"),
        (remove_archive, r"archive \(archive\)\nlikely cause: archive is gone"),
    ],
)
def test_what_was_changed_after_the_run_is_named_and_not_run_again(
    copy: Path, capsys: pytest.CaptureFixture[str], tamper: Callable[[Path], None], stage: str
) -> None:
    tamper(copy / RUN)
    status, output = outcome(verify, capsys, "--run", str(copy / RUN))
    assert status == 1 and re.match(f"differs: {stage}", output)
    assert not (copy / "results" / ".scratch").exists()


def test_a_run_that_comes_out_differently_is_told_before_it_is_trained_again(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_config(copy / RUN)
    path = copy / RUN / "provenance.json"
    provenance = json.loads(path.read_text())
    provenance["inputs"]["files"]["config.py"]["sha256"] = sha256_of(copy / RUN / "config.py")
    provenance["inputs"]["code"] |= {"sha256": "0" * 64, "commit": "abc", "dirty": False}
    path.write_text(json.dumps(provenance))
    status, output = outcome(verify, capsys, "--run", str(copy / RUN))
    assert status == 1 and output.startswith("differs: config (config.py)\nlikely cause: other code: abc then, ")
    assert "what differs in config.py: optimizer.momentum\n" in output
    kept = Path(output.splitlines()[-1].removeprefix("the repeated run is kept: "))
    assert (kept / RUN / "config.py").is_file() and not (kept / RUN / "work").exists()


def test_a_bundle_is_repeated_elsewhere_and_comes_out_identical(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = [tmp_path / "one.tar", tmp_path / "two.tar", tmp_path / "with images.tar"]
    for path, more in zip(bundles, ([], [], ["--images"]), strict=True):
        assert outcome(bundle, capsys, "--run", str(finished[0] / RUN), "--output", str(path), *more)[0] == 0
    assert bundles[0].read_bytes() == bundles[1].read_bytes()
    archive = finished[0] / "results" / "small" / "archive.zip"
    with tarfile.open(bundles[0]) as without, tarfile.open(bundles[2]) as more:
        assert set(more.getnames()) - set(without.getnames()) == {"results/small/archive.zip"}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    # Without the images: they are to be given, since the server is gone.
    assert outcome(repeat, capsys, "--archive", str(bundles[0]), "--images", str(archive)) == (0, "identical\n")
    assert not (tmp_path / "elsewhere" / "results" / ".scratch").exists()


def test_a_changed_run_is_not_bundled(copy: Path) -> None:
    change_split(copy / RUN)
    with pytest.raises(bundle.UserError, match=r"splits/train.txt was changed after the run"):
        bundle.main(bundle.build_parser().parse_args(["--run", str(copy / RUN)]))
    assert not list(copy.rglob("*.tar"))
