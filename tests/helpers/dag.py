"""Real runs of the Snakefile in a folder of their own, on small images that the tests make."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
#: A network small enough to train in seconds, and the settings that keep a test's DAG short.
QUICK: dict[str, Any] = {
    "base_config": "mobilenet-v2_8xb32_in1k",
    "checkpoint": "none",
    "image_size": 32,
    "batch_size": 8,
    "epochs": 1,
    "threads": 1,
    "device": "cpu",
    "overrides": {"model.backbone.widen_factor": 0.25},
}

#: Names that break what does not quote or escape them.
HOSTILE_CLASSES = ['it\'s "quoted"', "$(touch pwned) `touch pwned`; &", "<script>alert(1)", "草莓 水果", "a\nb\t"]
#: The folder that a finished run has, the configuration it ran with, and what it printed.
Finished = tuple[Path, dict[str, Any], str]


def photograph(label: int, index: int, size: tuple[int, int] = (56, 48)) -> bytes:
    """Return a JPEG whose colours tell its label, noisy enough to differ from every other."""
    generator = np.random.default_rng([label, index])
    coarse = generator.integers(0, 120, (4, 5, 3))
    coarse[..., label % 3] += 40 * (1 + label // 3 % 3)
    stream = BytesIO()
    Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def archive_bytes(
    classes: Sequence[str], per_class: int = 10, prefix: str = "data/", names: str = "{index:03d}.jpg"
) -> bytes:
    """Return a zip with one folder a class."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for label, name in enumerate(classes):
            for index in range(per_class):
                archive.writestr(f"data/{name}/{names.format(index=index)}", photograph(label, index))
    return stream.getvalue()


def settings(source: dict[str, Any], seeds: Sequence[int] = (0,), **experiments: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration over *source*; without experiments, the quick one."""
    return {
        "dataset": {"name": "small", "source": source},
        "experiments": experiments or {"quick": QUICK},
        "seeds": list(seeds),
    }


def snakemake(
    folder: Path,
    config: dict[str, Any] | Path | None,
    *options: str,
    environment: dict[str, str] | None = None,
    seconds: float = 600,
    snakefile: Path = ROOT / "Snakefile",
    is_detailed: bool = True,
    **process: Any,
) -> subprocess.CompletedProcess[str]:
    """Run the repository's Snakefile with *folder* as working directory; stdout and stderr come back together.

    *process*: more options of subprocess.run.
    """
    command = [str(Path(sys.executable).with_name("snakemake")), "--snakefile", str(snakefile)]
    command += ["--directory", str(folder), "--profile", str(ROOT / "profiles" / "local")]
    # In Snakemake's own words, of which `jobs_run` reads what was done.
    command += ["--printshellcmds"] * is_detailed
    if isinstance(config, dict):
        path = folder / "settings.yaml"
        path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        config = path
    if config is not None:
        command += ["--configfile", str(config)]
    return subprocess.run(
        [*command, *options],
        cwd=folder,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        timeout=seconds,
        **process,
    )


def jobs_run(output: str) -> list[str]:
    """Return the rules whose jobs Snakemake finished, sorted."""
    return sorted(
        line.split("(Rule: ")[1].rstrip(")\n") for line in output.splitlines() if line.startswith("Finished jobid")
    )
