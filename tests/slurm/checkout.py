"""A copy of the repository as a user of a cluster has it: with the settings of the site, and commands typed in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from cluster import clean_environment
from dag import ROOT

HERE = Path(__file__).resolve().parent


class Checkout:
    """A copy of the working tree in a folder that the nodes share, with the environment that runs the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.gpus_folder = self.folder / "gpus"
        self.usage = self.folder / "usage.jsonl"  # what each step cost
        self._started: list[subprocess.Popen[str]] = []
        self.gpus_folder.mkdir(parents=True)
        (self.folder / "home").mkdir()
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).exists():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name, follow_symlinks=False)
        # Jobs have the folder of mimflow on their path, and none of the user's.
        for plugin in ("gpu_plugin.py", "waiting_plugin.py"):
            shutil.copy2(HERE / plugin, self.folder)
        (self.folder / ".venv").symlink_to(Path(sys.executable).parent.parent)

    def edit(self, file: str, *changes: tuple[str, str]) -> None:
        """Replace in *file* each first text by the second, as a user edits a profile."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text, f"{file} has no line {old!r} any more"
            text = text.replace(old, new, 1)
        path.write_text(text, encoding="utf-8")

    def write_settings(self, name: str, settings: dict[str, Any]) -> str:
        """Write a configuration; return its path as it is typed."""
        path = self.folder / "configs" / name
        path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
        return f"configs/{name}"

    def environment(self) -> dict[str, str]:
        """Return the environment of a login shell in which .venv is activated."""
        environment = clean_environment()
        # A `make` around the tests would hand its ARGS to each `make` in them, in two ways.
        foreign = ("MIMFLOW_", "SNAKEMAKE_", "PYTEST_", "MAKE", "MFLAGS", "ARGS")
        for name in [name for name in environment if name.startswith(foreign)]:
            del environment[name]
        return environment | {
            "PATH": f"{self.folder}/.venv/bin:{environment['PATH']}",
            # This copy of mimflow, not the one that .venv knows.
            "PYTHONPATH": str(self.folder),
            "MIMFLOW_TEST_GPUS": str(self.gpus_folder),
            "MIMFLOW_USAGE": str(self.usage),
            "HOME": str(self.folder / "home"),
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command in the folder, in a process group of its own; stdout and stderr come together."""
        process = subprocess.Popen(
            words, cwd=self.folder, env=self.environment(), text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._started.append(process)
        return process

    def end(self) -> None:
        """End what was started and still runs, as after a test that was interrupted."""
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def run(self, *words: str, seconds: float = 1200) -> tuple[int, str]:
        """Run a command to its end; return its exit status and what it said."""
        return finish(self.start(*words), seconds)

    def gpus_of_runs(self) -> dict[str, tuple[str, str]]:
        """Return the Slurm job and the GPU of each run's trainer, by `experiment/seedN`."""
        gpus = {}
        for file in self.gpus_folder.glob("*.json"):
            seen = json.loads(file.read_text())
            run = re.search(r"results/[^/]+/([^/]+/seed\d+)/work", " ".join(seen["command"]))
            if run:
                gpus[run[1]] = (seen["job"], seen["gpu"])
        return gpus

    def weights(self, run: str, dataset: str = "small") -> str:
        """Return the hash of the tensors that a run ended with."""
        import torch

        from scripts.mmcls_plugins.checkpoints import tensors_sha256

        file = self.folder / "results" / dataset / run / "last.pth"
        return tensors_sha256(torch.load(file, weights_only=True)["state_dict"])


def finish(process: subprocess.Popen[str], seconds: float) -> tuple[int, str]:
    """Wait for a process; past *seconds* end its group as Ctrl-C does, so that its Slurm jobs are cancelled."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        raise AssertionError(f"not done after {seconds:.0f} s: {output}") from None
    return process.returncode, output
