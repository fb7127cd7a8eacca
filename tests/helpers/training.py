"""A small real training run that the fault tests start, end and start again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from dag import QUICK, photograph

from scripts.lib.settings.schema import Experiment
from scripts.mmcls_plugins.checkpoints import tensors_sha256

HERE = Path(__file__).resolve().parent
#: Several epochs of several iterations, states as often as possible, augmentations that draw from every generator.
#: The learning rate is low: batch normalisation over a last batch of 2 images makes gradients that 0.003 lets grow to
#: NaN with the kernels of some processors.
EXPERIMENT: dict[str, Any] = {
    **QUICK,
    "epochs": 12,
    "learning_rate": 0.0003,
    "overrides": {
        **QUICK["overrides"],
        "runner.checkpoint_minutes": 0.003,
        "custom_imports.imports": ["scripts.mmcls_plugins", "fault_plugin", "noisy_steps"],
    },
}

#: config.py by what it was made of, all of it relative to the folder: it takes longer than most of the trainings.
_configs: dict[str, str] = {}


def make_data(folder: Path, order: int = 1) -> None:
    """Write images, splits and classes; *order* -1 creates the files the other way round."""
    names = [(label, index) for label in range(3) for index in range(20)]
    for label, index in names[::order]:
        path = folder / "images" / f"class {label}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(label, index))
    splits = {"train": range(14), "val": range(14, 17), "test": range(17, 20)}
    (folder / "splits").mkdir(parents=True, exist_ok=True)
    for split, indices in splits.items():
        lines = [f"class {label}/{index}.jpg {label}\n" for label in range(3) for index in indices]
        (folder / "splits" / f"{split}.txt").write_text("".join(lines))
    (folder / "classes.txt").write_text("".join(f"class {label}\n" for label in range(3)))


def assert_a_kill_changes_nothing(folder: Path, experiment: dict[str, Any], beyond: int) -> Training:
    """Kill a run after the state of iteration *beyond*, finish it, hold it against one left alone; return it."""
    alone = Training(folder / "alone", experiment)
    shutil.copytree(alone.folder, folder / "killed")
    status, output = alone.finish()
    assert status == 0, output
    killed = Training(folder / "killed", experiment)
    process = killed.start()
    assert killed.wait_for_state(process, beyond) > beyond
    killed.kill_group(process)
    status, output = killed.finish()
    assert status == 0, output
    assert killed.hashes() == alone.hashes()
    return killed


class Training:
    """train_model on the data in *folder*, with its work_dir and products there too."""

    def __init__(self, folder: Path, experiment: dict[str, Any] | None = None, work_dir: Path | None = None) -> None:
        self.folder = folder
        self.work_dir = work_dir or folder / "work"
        self.experiment = experiment or EXPERIMENT
        if not (folder / "classes.txt").exists():
            make_data(folder)
        if not (folder / "config.py").exists():
            self._patch_config()

    def start(self, fault: str = "", **options: Any) -> subprocess.Popen[str]:
        """Start train_model in the background."""
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        command = [sys.executable, "-m", "scripts.train.train_model", "--config", "config.py", "--seed", "0",
                   "--work-dir", str(self.work_dir), "--best", "best.pth", "--last", "last.pth",
                   "--train-log", "train_log.csv", *words]  # fmt: skip
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self._environment(), "MIMFLOW_TEST_FAULT": fault},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, fault: str = "", **options: Any) -> tuple[int, str]:
        """Run train_model to its end; return its exit status and what it said."""
        process = self.start(fault, **options)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def hashes(self) -> dict[str, str]:
        """Return the hashes of the final weights."""
        return {
            name: tensors_sha256(torch.load(self.folder / name, weights_only=True)["state_dict"])
            for name in ("best.pth", "last.pth")
        }

    def progress(self) -> dict[str, Any] | None:
        """Return what the newest progress.json says."""
        files = sorted(self.work_dir.glob("*/progress.json"))
        try:
            return json.loads(files[-1].read_text()) if files else None
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def wait_for_iteration(self, process: subprocess.Popen[str], beyond: int, seconds: float = 120) -> int:
        """Wait until training is past iteration *beyond*; return where it is (or -1 when it has ended)."""
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            progress = self.progress()
            if progress and progress["iteration"] > beyond:
                return int(progress["iteration"])
            time.sleep(0.02)
        return -1

    def wait_for_state(self, process: subprocess.Popen[str], beyond: int, seconds: float = 120) -> int:
        """Wait until a state past iteration *beyond* is saved (progress.json is told once a second only)."""
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            names = [path.stem for path in self.work_dir.glob("*/states/state_*.pth")]
            newest = max((int(name.removeprefix("state_")) for name in names), default=0)
            if newest > beyond:
                return newest
            time.sleep(0.01)
        return beyond

    def kill_group(self, process: subprocess.Popen[str]) -> None:
        """Kill the trainer's whole group, then train_model, by their ids."""
        for lease in self.work_dir.glob("*/lease.json"):
            group = json.loads(lease.read_text()).get("group")
            if group:
                try:
                    os.killpg(group, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        process.kill()
        process.communicate()

    def _patch_config(self) -> None:
        words = ["--experiment", json.dumps(self.experiment), "--seed", "0", "--classes", "classes.txt",
                 "--splits", "splits", "--images", "images", "--output", "config.py"]  # fmt: skip
        if self.experiment.get("recipe") != "fast":
            lists = [self.folder / "classes.txt", *sorted((self.folder / "splits").iterdir())]
            made_of = json.dumps([self.experiment, *(path.read_text(encoding="utf-8") for path in lists)])
            config = self.folder / "config.py"
            if made_of in _configs:
                config.write_text(_configs[made_of], encoding="utf-8")
                return
            self._run("train.patch_config", *words)
            _configs[made_of] = config.read_text(encoding="utf-8")
            return
        short_side = Experiment.model_validate(self.experiment).cached_short_side()
        splits = ["splits/train.txt", "splits/val.txt"]
        self._run(
            "data.pack_images",
            "--images",
            "images",
            "--splits",
            *splits,
            "--short-side",
            str(short_side),
            "--output",
            "pixel_cache",
        )
        weights = self.experiment["checkpoint"]["path"]
        self._run("train.patch_config", *words, "--checkpoint", weights, "--pixel-cache", "pixel_cache")
        self._run("train.fit_head", "--config", "config.py", "--checkpoint", weights, "--pixel-cache", "pixel_cache",
                  "--train", splits[0], "--val", splits[1], "--classes", "classes.txt",
                  "--output", "init.pth")  # fmt: skip

    def _run(self, module: str, *words: str) -> None:
        command = [sys.executable, "-m", f"scripts.{module}", *words]
        result = subprocess.run(command, cwd=self.folder, env=self._environment(), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    def _environment(self) -> dict[str, str]:
        # This checkout goes before the one that .venv names: of several, each tests itself.
        return {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent)])}
