"""What a user sees on a terminal: how a run goes, how it fails, how it is stopped. The terminals are real ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from chinese import english_in
from dag import QUICK, ROOT, archive_bytes, photograph, settings
from http_server import refused_url
from set_up import copy_project
from terminal import CTRL_C, Terminal

from scripts.lib.workflow.machine_check import TorchBuild, built_torch

STOPPED = "stopped; the same command goes on"
START = [sys.executable, "-m", "scripts.lib.workflow.start", "--snakefile", str(ROOT / "Snakefile")]
START += ["--profile", str(ROOT / "profiles" / "local"), "--directory", "."]


def run(folder: Path, config: dict[str, object], *options: str) -> Terminal:
    """Start the workflow in a folder as `make run` does."""
    (folder / "settings.yaml").write_text(yaml.safe_dump(config, allow_unicode=True))
    return Terminal([*START, "--configfile", "settings.yaml", *options], folder, {"PYTHONPATH": str(ROOT)})


def is_calm(terminal: Terminal) -> bool:
    """Tell whether nothing looks like an accident: no traceback, no red."""
    return "Traceback" not in terminal.output and "\x1b[31m" not in terminal.output


def ends_calmly(terminal: Terminal, folder: Path) -> None:
    """Wait for the end of a run that was interrupted."""
    assert terminal.end(300) == 130
    assert is_calm(terminal), terminal.output
    assert terminal.lines()[-1] == STOPPED and terminal.output.count(STOPPED) == 1, terminal.output
    assert not any((folder / ".snakemake" / "locks").glob("*"))


#: The end of Snakemake's first line. It is written in two pieces, between which a busy machine may hold it.
PROFILE = "command line arguments.\r\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("shown", "seconds", "keys"),
    [
        ("", 0.5, CTRL_C),  # while Snakemake is being loaded
        (PROFILE, 0.0, CTRL_C),  # while the settings are read
        (PROFILE, 1.5, CTRL_C),  # while it plans, on most machines
        ("steps to do", 0.0, CTRL_C),  # when it has planned
        ("rendering", 0.0, CTRL_C),  # in a step
        ("rendering", 0.0, CTRL_C + CTRL_C),
    ],
)
def test_ctrl_c_ends_in_one_calm_line(shown: str, seconds: float, keys: bytes, tmp_path: Path) -> None:
    source = {"sample": {"images_per_class": 100, "size": 320, "seed": 0}}
    terminal = run(tmp_path, settings(source))
    terminal.wait_for(shown, 300)
    time.sleep(seconds)
    for key in keys:
        terminal.press(bytes([key]))
        time.sleep(0.3)
    ends_calmly(terminal, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_ctrl_c_in_a_step_that_is_or_will_be_a_fork_ends_in_one_calm_line(seconds: float, tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(archive_bytes(["a", "b"], 6))
    terminal = run(tmp_path, settings({"path": "data.zip"}))
    terminal.wait_for("writing the config", 300)
    time.sleep(seconds)
    terminal.press(CTRL_C)
    ends_calmly(terminal, tmp_path)


@pytest.mark.long
def test_the_reason_of_a_failure_is_the_last_line_and_stands_there_once(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(archive_bytes(["a"], 4))
    terminal = run(tmp_path, settings({"path": "data.zip"}), "--until", "split_dataset")
    assert terminal.end(300) == 1
    last = terminal.lines()[-1]
    assert last.startswith("error: ") and "class" in last and is_calm(terminal), terminal.output
    assert sum(last in line for line in terminal.lines()) == 1
    assert len(terminal.lines()) < 15 and "Error in rule" not in terminal.output


def with_bad_picture() -> bytes:
    """Return an archive one of whose pictures is cut short."""
    stream = BytesIO(archive_bytes(["a", "b"]))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("data/a/bad.jpg", photograph(0, 99)[:300])
    return stream.getvalue()


#: What fails: the content of data.zip, settings of the data set, of the experiment, the last step, words of the line.
FAILURES: dict[str, tuple[bytes, dict[str, Any], dict[str, Any], str, str]] = {
    "a bad picture": (with_bad_picture(), {"on_bad_image": "fail"}, {}, "audit_images", "on_bad_image"),
    "a damaged archive": (archive_bytes(["a", "b"])[:900], {}, {}, "unpack_archive", "damaged or truncated"),
    "a wrong setting": (b"", {}, {"epochs": "many"}, "unpack_archive", "experiments.quick.epochs"),
    "two settings that contradict": (b"", {"classes": ["a", "a"]}, {}, "unpack_archive", "dataset.classes"),
    "a download": (b"", {"source": {"url": refused_url()}}, {}, "fetch_archive", "127.0.0.1"),
    "weights": (
        archive_bytes(["a", "b"]),
        {},
        {"checkpoint": {"url": refused_url("w.pth")}},
        "fetch_checkpoint",
        "w.pth",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("what", FAILURES)
def test_the_reason_of_each_kind_of_failure_is_the_last_line_and_stands_there_once(what: str, tmp_path: Path) -> None:
    content, dataset, experiment, until, words = FAILURES[what]
    (tmp_path / "data.zip").write_bytes(content)
    config = settings({"path": "data.zip"}, quick={**QUICK, **experiment})
    config["dataset"] |= dataset
    terminal = run(tmp_path, config, "--until", until)
    assert terminal.end(300) == 1 and is_calm(terminal), terminal.output
    last = terminal.lines()[-1]
    assert last.startswith("error: ") and words in last and terminal.output.count(last) == 1, terminal.output
    assert "Error in rule" not in terminal.output


@pytest.mark.long
def test_a_job_that_is_killed_is_named_in_the_last_line(tmp_path: Path) -> None:
    terminal = run(tmp_path, settings({"sample": {"images_per_class": 100, "size": 320, "seed": 0}}))
    terminal.wait_for("rendering", 300)
    jobs: list[int] = []
    while not jobs:
        jobs = [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if is_job(entry, tmp_path)]
    # With its workers and at once, as when a container's memory is full: of two that live on, one tells of the other.
    parents = [psutil.Process(job) for job in jobs]
    for parent in parents:
        parent.suspend()  # it starts no more
    workers = {worker for parent in parents for worker in parent.children(True)}
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for process in workers.union(parents):
            act(process)
    assert terminal.end(300) == 1 and is_calm(terminal), terminal.output
    last = terminal.lines()[-1]
    told = "error: fetching results/small/archive.zip was killed by a person or a program"
    assert last.startswith(told) and terminal.output.count(last) == 1, terminal.output


def is_job(process: Path, folder: Path) -> bool:
    """Tell whether a process of /proc is fetch_archive's in this folder, not the shell that started it."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        return b"scripts.data.fetch_archive" in words and (process / "cwd").resolve() == folder
    except OSError:
        return False


@pytest.mark.long
@pytest.mark.skipif((built_torch() or TorchBuild()).cuda is not None, reason="needs a CPU build of torch")
def test_a_run_that_wants_a_gpu_is_refused_before_its_first_job(tmp_path: Path) -> None:
    config = settings({"path": "data.zip"}, a={**QUICK, "device": "cuda"}, b=QUICK)
    (tmp_path / "data.zip").write_bytes(archive_bytes(["a", "b"], 4))
    terminal = run(tmp_path, config)
    assert terminal.end(300) == 1 and is_calm(terminal)
    last = terminal.lines()[-1]
    assert last.startswith("error: experiments.a.device: cuda") and "set device: auto" in last
    assert not (tmp_path / "logs").exists()
    assert run(tmp_path, config, "--until", "fetch_archive").end(300) == 0  # on a machine that only fetches


@pytest.mark.long
def test_a_second_start_says_why_steps_run_again_and_a_third_that_there_is_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(archive_bytes(["a", "b"], 10))
    source = {"path": "data.zip"}
    assert run(tmp_path, settings(source), "--until", "patch_config").end(300) == 0
    again = run(tmp_path, settings(source, quick={**QUICK, "epochs": 3}), "--until", "patch_config")
    assert again.end(300) == 0
    assert "because quick: epochs 1 -> 3" in again.lines()
    nothing = run(tmp_path, settings(source, quick={**QUICK, "epochs": 3}), "--until", "patch_config")
    assert nothing.end(300) == 0 and nothing.lines()[-1].startswith("nothing to do")


@pytest.mark.long
def test_a_run_in_chinese_speaks_chinese_to_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(archive_bytes(["猫", "b"], 10))
    config = settings({"path": "data.zip"}, quick={**QUICK, "epochs": 40}) | {"report": {"language": "zh"}}
    terminal = run(tmp_path, config)
    terminal.wait_for("训练 quick，随机种子 0", 300)
    terminal.wait_for("轮", 300)
    terminal.press(CTRL_C)
    assert terminal.end(300) == 130 and terminal.lines()[-1] == "已停止；再运行同一命令即可继续"
    config["experiments"]["quick"]["epochs"] = 1
    again = run(tmp_path, config)
    assert again.end(300) == 0, again.output
    lines = [*terminal.lines()[1:], *again.lines()[1:]]  # the first of each is Snakemake's
    assert any(line.startswith("重做的原因：quick：epochs 40 -> 1") for line in lines), lines
    assert not [line for line in lines if english_in(line)]
    for broken in ({"source": {"path": "nowhere.zip"}}, {"on_bad_image": "yes"}, {"classes": ["x", "y"]}):
        refused = run(tmp_path, config | {"dataset": config["dataset"] | broken})
        assert refused.end(300) == 1 and refused.lines()[-1].startswith("错误："), refused.output
        assert not english_in(refused.lines()[-1]), refused.lines()[-1]


@pytest.mark.long
def test_after_a_changed_key_and_ctrl_c_nobody_reads_that_weights_are_gone(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(archive_bytes(["a", "b"], 10))
    until = ("--until", "train_model")
    assert run(tmp_path, settings({"path": "data.zip"}), *until).end(300) == 0
    longer = settings({"path": "data.zip"}, quick={**QUICK, "epochs": 3})
    terminal = run(tmp_path, longer, *until)
    terminal.wait_for("epochs 1 -> 3", 300)
    terminal.wait_for("training quick, seed 0:", 300)
    terminal.press(CTRL_C)
    ends_calmly(terminal, tmp_path)
    again = run(tmp_path, longer, *until)
    assert again.end(300) == 0 and is_calm(again), again.output
    assert "because training quick, seed 0: it was interrupted" in again.lines()
    assert " is gone" not in again.output and "another one than before" not in again.output
    by_hand = tmp_path / "results/small/quick/seed0/best.pth"
    by_hand.unlink()  # by somebody: that is said
    assert f"{by_hand.relative_to(tmp_path)} is gone: it is made again" in _shown(run(tmp_path, longer, *until))


def _shown(terminal: Terminal) -> list[str]:
    assert terminal.end(300) == 0
    return terminal.lines()


def test_ctrl_c_during_the_set_up_ends_in_one_calm_line(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    (project / ".venv").unlink()
    environment = {"PIP_NO_INDEX": "1", "MAKEFLAGS": "", "MAKELEVEL": ""}
    terminal = Terminal(["make", "setup", "ENV=cpu", f"PYTHON={sys.executable}"], project, environment)
    terminal.wait_for("setup: creating the environment", 300)
    terminal.press(CTRL_C)
    assert terminal.end(300) != 0
    assert terminal.lines()[-1] == STOPPED and is_calm(terminal), terminal.output


@pytest.mark.parametrize(("command", "has_venv"), [("watch", True), ("demo", True), ("setup", False)])
def test_ctrl_c_while_the_set_up_is_being_loaded_ends_in_one_calm_line(
    tmp_path: Path, command: str, has_venv: bool
) -> None:
    project = copy_project(tmp_path / "project")
    if not has_venv:
        (project / ".venv").unlink()
    module = project / "envs" / "uv_settings.py"
    waits = "import sys, time\nprint('loading', file=sys.stderr)\ntime.sleep(1)\nfrom dataclasses import"
    module.write_text(module.read_text().replace("from dataclasses import", waits, 1))
    environment = {"PIP_NO_INDEX": "1", "MAKEFLAGS": "", "MAKELEVEL": ""}
    terminal = Terminal(["make", command, f"PYTHON={sys.executable}"], project, environment)
    terminal.wait_for("loading", 60)
    terminal.press(CTRL_C)
    assert terminal.end(60) != 0
    assert terminal.lines() == ["loading", STOPPED] and is_calm(terminal), terminal.output


@pytest.mark.long
def test_a_step_of_the_set_up_that_takes_long_is_not_silent(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "envs", tmp_path / "envs")
    child = "[sys.executable, '-c', 'import time; time.sleep(3)']"
    code = "import sys, install; install.SILENCE_SECONDS = install.PIPE_SILENCE_SECONDS = 1;"
    command = [sys.executable, "-c", f"{code} install.run({child}, 'building mmcv', capture=True)"]
    environment = {"PYTHONPATH": str(tmp_path / "envs")}
    terminal = Terminal(command, tmp_path, environment)
    assert terminal.end(300) == 0
    on_a_pipe = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    lines = on_a_pipe.stderr.splitlines()
    assert lines[0] == "setup: building mmcv" and lines[1].startswith("setup: building mmcv, 1 s so far")
    assert lines[1] in terminal.output and "2 s so far" in terminal.output
    assert len(terminal.lines()) == 2, "one line waits, however long"


def test_pip_writes_no_line_for_each_package(tmp_path: Path) -> None:
    code = "import sys, install; install.pip(['install', '--no-index', 'packaging'], 'installing', sys.executable)"
    terminal = Terminal([sys.executable, "-c", code], tmp_path, {"PYTHONPATH": str(ROOT / "envs")})
    assert terminal.end(300) == 0
    assert terminal.lines() == ["setup: installing"], terminal.output
