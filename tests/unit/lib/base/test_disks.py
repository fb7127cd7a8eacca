"""Full and read-only disks, real ones: which disk it is, and what to do, in one line."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from simulated_predictions import simulate, write_csv
from small_disk import fill, small_disk

from scripts.lib.base.console import describe_os_error
from scripts.lib.base.disks import check_folders, check_writable, full_disks
from scripts.lib.base.files import sha256_of
from scripts.lib.base.problems import UserError

ROOT = Path(__file__).resolve().parents[4]


def test_a_full_disk_a_read_only_one_and_a_file_in_the_way_are_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "full") as full:
        check_writable(full / "results" / "new", "results")
        fill(full)
        with pytest.raises(UserError, match=r"results: .*full cannot be written: no space left on the disk of .*free"):
            check_writable(full / "results", "results")
        assert full_disks([full / "a" / "b", full, tmp_path]) == [full]
    with small_disk(tmp_path / "ro", 4, "ro") as read_only, pytest.raises(UserError, match="Read-only"):
        check_writable(read_only, "results")
    with small_disk(tmp_path / "inodes", 4, "nr_inodes=2") as inodes:
        (inodes / "last").touch()
        with pytest.raises(UserError, match="no space left"):
            check_writable(inodes, "results")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, no folder"):
        check_writable(tmp_path / "file" / "d", "results")


@pytest.mark.parametrize("path", ["/proc/self/mem", "/", "/nonexistent"])  # the first is opened, and not read
def test_a_file_that_cannot_be_read_is_named(path: str) -> None:
    with pytest.raises(OSError) as caught:
        sha256_of(path)
    assert f"({path})" in describe_os_error(caught.value)


@pytest.mark.parametrize("statement", ["raise MemoryError", "bytes(1 << 60)", "import numpy; numpy.zeros(1 << 59)"])
def test_memory_that_is_not_to_be_had_is_one_line(tmp_path: Path, statement: str) -> None:
    code = (
        "import argparse; from scripts.lib.base.console import run_cli\n"
        f"def main(args):\n    {statement}\n"
        f"run_cli(argparse.ArgumentParser, main, ['--log', {str(tmp_path / 'log')!r}])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stderr.startswith("error: no memory left: end other programs, or use fewer jobs"), result.stderr


@pytest.mark.parametrize("target", ["/nonexistent/disk", "results", "file/x"])
def test_a_link_to_what_is_not_there_is_named(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "results").symlink_to(target)
    for folder in (tmp_path / "results", tmp_path / "results" / "set"):
        with pytest.raises(UserError, match=rf"results: .*/results is a link to {target}, which is not there: mount"):
            check_writable(folder, "results")
    (tmp_path / "disk").mkdir()
    (tmp_path / "logs").symlink_to("disk")
    check_writable(tmp_path / "logs" / "set", "logs")


@pytest.mark.parametrize("fault", ["full", "ro", "missing", "file"])
def test_a_bad_folder_for_temporary_files_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    check = pytest.raises(UserError, match=r"temporary files.*set TMPDIR to another")
    if fault == "missing":
        with check:
            check_folders(Path("results"))
    elif fault == "file":
        (tmp_path / "t").touch()
        with check:
            check_folders(Path("results"))
    else:
        with small_disk(tmp_path / "t", 4, *(["ro"] if fault == "ro" else [])) as folder:
            if fault == "full":
                fill(folder, 4096)
            with check:
                check_folders(Path("results"))


def run(module: str, *options: str | Path) -> str:
    """Run a script that fails; return its one line."""
    result = subprocess.run(
        [sys.executable, "-m", module, *map(str, options)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert errors == result.stderr.splitlines()[-1:]
    return errors[0]


@pytest.mark.long
def test_a_script_on_a_full_disk_names_the_disk(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/1.jpg", bytes(3_000_000))
    predictions = write_csv(tmp_path / "p.csv", simulate(40, 3))
    (tmp_path / "images").mkdir()
    with small_disk(tmp_path / "small", 2) as small:
        where = f"no space left on the disk of {small}"
        source = f'{{"path": "{tmp_path / "a.zip"}"}}'
        line = run(
            "scripts.data.fetch_archive", "--source", source, "--output", small / "a.zip", "--record", small / "r",
            "--log", small / "logs" / "fetch.log",
        )  # fmt: skip
        assert where in line and "free some space" in line
        fill(small)
        options = ["--dataset", "d", "--experiment", "e", "--seed", "0", "--per-class", small / "c.csv"]
        options += ["--predictions", predictions, "--metrics", small / "m.json", "--log", small / "new" / "e.log"]
        assert where in run("scripts.evaluate.evaluate_model", *options)


def test_settings_of_a_run_that_could_write_nothing_are_refused(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as small:
        fill(small)
        settings = ROOT / "configs" / "demo.yaml"
        result = subprocess.run(
            [sys.executable, "-m", "scripts.check_settings", str(settings)],
            cwd=small, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1
        assert f"no space left on the disk of {small}" in result.stderr
