"""Record where a run comes from: what determined it, what came out of it, and under which circumstances.

provenance.json keeps these three apart, so that two runs can be compared: equal ``inputs`` are to give equal
``outputs``, whatever the ``circumstances`` (host, times, attempts).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scripts.data.fetch_archive import read_record
from scripts.lib.base.console import UserError, run_cli
from scripts.lib.base.download import shown
from scripts.lib.base.environment import ROOT
from scripts.lib.base.files import sha256_of, write_json, write_text
from scripts.lib.base.weights import hash_weights
from scripts.lib.data.manifest import check_folder
from scripts.lib.pages import html
from scripts.lib.runs.attempts import read_attempts
from scripts.lib.runs.config_file import read_config
from scripts.lib.runs.provenance import FORMAT
from scripts.lib.runs.run_folder import run_name
from scripts.lib.runs.train_log import read_train_log
from scripts.lib.settings.schema import Experiment, describe

logger = logging.getLogger(__name__)

#: What the set-up leaves in .venv (envs/install.py).
STAMP = Path(sys.prefix) / "mimflow-environment.json"
#: Packages that have a say in the result; the lock's hash stands for all of them.
PACKAGES = (
    "torch", "torchvision", "mmcls", "mmcv", "openmim", "numpy", "opencv-python-headless", "pillow", "scikit-learn",
    "scipy", "pandas", "matplotlib", "snakemake", "snakemake-executor-plugin-slurm", "pydantic",
)  # fmt: skip
#: Files of a run that equal inputs must give again, hashed where they are there.
PRODUCTS = ("init.pth", "best.pth", "last.pth", "predictions.csv", "metrics.json", "per_class.csv")
#: Environment variables that say where a run ran, or that change how its numbers are rounded.
VARIABLES = (
    "SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST", "CUDA_VISIBLE_DEVICES",
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG",
)  # fmt: skip
#: The instruction sets by which the mathematical libraries choose their kernels, as Linux names them.
INSTRUCTION_SETS = re.compile(r"sse4_2|avx|avx2|fma|avx512\w*|avx_vnni|amx\w*|asimd\w*|sve\w*")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.report.record_provenance", description=__doc__)
    parser.add_argument(
        "--run-dir", type=Path, required=True, metavar="DIR", help="its folder: results/.../seed<k>[/fold<j>]"
    )
    parser.add_argument(
        "--archive", type=Path, required=True, nargs="+", metavar="FILE", help="the data set's archive, or archives"
    )
    parser.add_argument(
        "--archive-record", type=Path, nargs="+", metavar="FILE", help="archive.sha256 of each; without it: computed"
    )
    parser.add_argument(
        "--labels", type=Path, nargs="*", default=[], metavar="FILE", help="files of labels that are in no archive"
    )
    parser.add_argument("--splits", type=Path, required=True, metavar="DIR", help="folder of train, val and test.txt")
    parser.add_argument("--classes", type=Path, required=True, metavar="FILE", help="classes.txt")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the pretrained weights, where there are some")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's config.py")
    parser.add_argument("--settings", default="{}", metavar="JSON", help="this run's part of the settings")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="provenance.json")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the same as a page for the report, if wanted")
    return parser


def hash_files(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return path, size in bytes and sha256 of each of *files*; for a .pth the hash of its tensors too.

    A .pth holds more than weights (a torch version, a zip's layout): equal models are told by ``weights_sha256``.
    """
    result: dict[str, dict[str, Any]] = {}
    for name, path in files.items():
        entry: dict[str, Any] = {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        if path.suffix == ".pth":
            entry["weights_sha256"] = hash_weights(path)
        result[name] = entry
    return result


def existing(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return those of *names* that are files in *folder*."""
    return {name: folder / name for name in names if (folder / name).is_file()}


def products_of(config: Path) -> list[str]:
    """Return PRODUCTS without the weights of a warm start that this config does not start from: an older run's."""
    start = Path(read_config(config).get("load_from") or "").name
    return [name for name in PRODUCTS if name != "init.pth" or name == start]


def describe_archive(archive: Path, record: Path | None) -> dict[str, Any]:
    """Return path, size, sha256 and source of the archive; the hash from its record, so that it is not read again.

    Raises
    ------
    UserError : there is neither the archive nor its record.
    """
    known = read_record(record) if record else None
    if not known and not archive.is_file():
        raise UserError(f"{archive}: no such archive, nor a record of it; fetch the data first")
    return {
        "path": str(archive),
        "bytes": archive.stat().st_size if archive.is_file() else None,
        "sha256": known.sha256 if known else sha256_of(archive),
        "source": known.source if known else None,
    }


def check_read_in_place(archives: Sequence[Path], settings: Mapping[str, Any]) -> None:
    """Refuse images that were read in place and have changed since: the run may have seen both.

    Parameters
    ----------
    settings : this run's part of the settings, whose sources are those of *archives*.

    Raises
    ------
    UserError : a file changed.
    """
    source = settings.get("dataset", {}).get("source")
    sources = source if isinstance(source, list) else [source or {}] * len(archives)
    for archive, one in zip(archives, sources, strict=True):
        if one.get("in_place"):
            check_folder(archive, Path(one["path"]).expanduser())


def describe_software() -> dict[str, Any]:
    """Return the versions of Python and the main packages, and which lock they came from."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    env = read_stamp().get("env")
    lock = ROOT / "envs" / f"{env}.lock"
    return {
        "versions": versions,
        "environment": {"name": env, "lock_sha256": sha256_of(lock) if lock.is_file() else None},
    }


def read_stamp() -> dict[str, Any]:
    """Return what the set-up wrote about this environment; empty where another tool made it."""
    return json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.is_file() else {}


def describe_code(root: Path = ROOT) -> dict[str, Any]:
    """Return the commit of the code, whether tracked files differ from it (None for both where git cannot tell), and
    the sha256 over the workflow and its scripts, which tells apart what commits of documentation do not.
    """
    commit = _output_of(["git", "-C", str(root), "rev-parse", "HEAD"])
    changes = _output_of(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    digest = hashlib.sha256()
    for path in sorted([root / "Snakefile", *root.glob("scripts/**/*.py")]):
        if path.is_file():
            digest.update(f"{path.relative_to(root).as_posix()}\0{sha256_of(path)}\0".encode())
    dirty = None if commit is None or changes is None else bool(changes)
    return {"commit": commit or None, "dirty": dirty, "sha256": digest.hexdigest()}


def find_repository(root: Path = ROOT) -> str | None:
    """Return the address that the code was cloned from, without credentials; None for a folder, and where git is not.

    >>> find_repository(Path("/"))
    """
    address = _output_of(["git", "-C", str(root), "remote", "get-url", "origin"]) or ""
    if re.match(r"https?://", address):
        return shown(address)
    # ssh://git@host/path, git@host:path
    return address if re.match(r"ssh://|[\w.-]+@[\w.-]+:", address) else None


def describe_machine() -> dict[str, Any]:
    """Return host, processor, cores and GPUs of the machine that this runs on (in the DAG: the one that trained)."""
    import torch

    driver = Path("/proc/driver/nvidia/version")
    found = re.search(r"(\d+\.\d+(?:\.\d+)?)", driver.read_text()) if driver.is_file() else None
    gpus = [
        torch.cuda.get_device_properties(number)
        for number in range(torch.cuda.device_count() * torch.cuda.is_available())
    ]
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "instruction_sets": _instruction_sets(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": [
            {"name": gpu.name, "memory_bytes": gpu.total_memory, "architecture": f"sm_{gpu.major}{gpu.minor}"}
            for gpu in gpus
        ],
        "driver": found.group(1) if found else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpus else None,
        "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32},
        "kernels": _kernels(torch.__config__.show()),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def describe_training(config_file: Path) -> dict[str, Any]:
    """Return seed, device, threads and the promise of deterministic kernels, as config.py says."""
    config = read_config(config_file)
    runner = config.get("runner", {})
    return {"seed": config.get("seed"), **{key: runner.get(key) for key in ("device", "threads", "deterministic")}}


def describe_course(run_dir: Path, config_file: Path) -> dict[str, Any]:
    """Return how training went: command, times, attempts, job ids, operations that promise no equal bits."""
    first = config_file.read_text(encoding="utf-8").split("\n", 1)[0]
    work_dir = find_work_dir(run_dir / "work", sha256_of(config_file))
    attempts = read_attempts(work_dir) if work_dir else []
    path = run_dir / "train_log.csv"
    course: dict[str, Any] = {
        "folder": str(run_dir),
        "command": first.removeprefix("# ") if first.startswith("# ") else None,
        "started": attempts[0]["start"] if attempts else None,
        "ended": attempts[-1]["end"] if attempts else None,
        "attempts": attempts,
        "slurm_job_ids": sorted({attempt["slurm_job_id"] for attempt in attempts if attempt["slurm_job_id"]}),
        "nondeterministic_operations": _nondeterministic_operations(work_dir),
    }
    if path.is_file():
        log = read_train_log(path)
        course |= {
            "epochs": len(log),
            "train_seconds": round(float(log["train_seconds"].sum()), 3),
            "val_seconds": round(float(log["val_seconds"].sum()), 3),
        }
        # The last attempt's end may be missing: a kill between the end of training and its record.
        course["ended"] = course["ended"] or _utc(path.stat().st_mtime)
    return course


def find_work_dir(folder: Path, config_sha256: str) -> Path | None:
    """Return the newest work_dir below *folder* in which this very config.py was trained."""
    found = []
    for marker in folder.glob("*/identity.json"):
        if config_sha256 in json.loads(marker.read_text(encoding="utf-8")).values():
            found.append(marker)
    return max(found, key=lambda marker: marker.stat().st_mtime).parent if found else None


def _nondeterministic_operations(work_dir: Path | None) -> list[str]:
    """Return the operations of which torch said, while it trained, that they have no deterministic form."""
    output = work_dir / "output.log" if work_dir else None
    if output is None or not output.is_file():
        return []
    text = output.read_text(encoding="utf-8", errors="replace")
    return sorted(set(re.findall(r"(\S+) does not have a deterministic implementation", text)))


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return one run's settings with the experiment's defaults filled in, and no password or token in an address.

    A later version may have other defaults; the record must not depend on them.
    """
    settings: dict[str, Any] = json.loads(json.dumps(given))
    source = settings.get("dataset", {}).get("source")
    sections = [*source] if isinstance(source, list) else [source]
    try:
        for name, experiment in settings.get("experiments", {}).items():
            whole = Experiment.model_validate(experiment).model_dump(mode="json", exclude_none=True)
            settings["experiments"][name] = whole
            sections.append(whole["checkpoint"])
    except ValidationError as error:
        raise UserError(f"--settings: {describe(error)}") from error
    for section in sections:
        if isinstance(section, dict):
            if section.get("url"):
                section["url"] = shown(section["url"])
            section["mirrors"] = [shown(url) for url in section.get("mirrors", [])]
    return settings


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _instruction_sets() -> list[str]:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return sorted(flag for flag in (found.group(1).split() if found else []) if INSTRUCTION_SETS.fullmatch(flag))


def _kernels(build: str) -> str | None:
    """Return which CPU kernels torch chose, e.g. AVX2, out of its description of itself."""
    found = re.search(r"CPU capability usage: (\S+)", build)
    return found.group(1) if found else None


def _output_of(command: list[str]) -> str | None:
    """Return what *command* prints, None where it fails or is not installed."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def render_html(provenance: Mapping[str, Any], config_text: str) -> str:
    """Return the record as a self-contained page: tables of it all, and config.py's text."""
    inputs, circumstances = provenance["inputs"], provenance["circumstances"]
    parts = []
    for title, content in (
        ("Run", provenance["run"] | inputs["training"]),
        ("Settings", inputs["settings"]),
        ("Code", inputs["code"]),
        ("Environment", inputs["environment"]),
        ("Versions", inputs["versions"]),
        ("What went in", None),
        ("What came out", None),
        ("Training", circumstances["training"]),
        ("Machine", circumstances["machine"]),
        ("Set-up", circumstances["setup"]),
    ):
        files = {"What went in": inputs["files"], "What came out": provenance["outputs"]}.get(title)
        parts.append(html.section(title))
        parts += _file_tables(files) if files is not None else [html.table((), _flatten(content))]
    parts += [html.section("config.py"), html.preformatted(config_text)]
    return html.page(f"Config and environment: {circumstances['training']['folder']}", parts)


def _file_tables(files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        (name, str(entry["path"]), f"{entry['bytes']:,}" if entry["bytes"] is not None else "-", entry["sha256"])
        for name, entry in files.items()
    ]
    weights = [
        (f"{name}: weights_sha256", entry["weights_sha256"])
        for name, entry in files.items()
        if "weights_sha256" in entry
    ]
    tables = [html.table(("file", "path", "bytes", "sha256"), rows, numbers=(2,))]
    if weights:
        tables.append(html.table((), weights, caption="Hashes over the tensors: equal for equal models"))
    return tables


def _flatten(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Return nested mappings and lists as (dotted name, text) rows."""
    if isinstance(value, Mapping):
        items = [(f"{name}.{key}" if name else str(key), entry) for key, entry in value.items()]
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        items = [(f"{name}[{place}]", entry) for place, entry in enumerate(value)]
    else:
        return [(name, "-" if value is None else value if isinstance(value, str) else json.dumps(value))]
    return [row for key, entry in items for row in _flatten(entry, key)]


def main(args: argparse.Namespace) -> None:
    try:
        settings = json.loads(args.settings)
    except ValueError as error:
        raise UserError(f"--settings: not JSON ({error})") from error
    files = {"config.py": args.config, "classes.txt": args.classes}
    files |= {f"splits/{path.name}": path for path in sorted(args.splits.glob("*.txt"))}
    if args.checkpoint:
        files["checkpoint"] = args.checkpoint
    check_read_in_place(args.archive, settings)
    files |= {path.name: path for path in args.labels}
    records = args.archive_record or [None] * len(args.archive)
    archives = {
        path.name.partition(".")[0] if len(args.archive) > 1 else "archive": describe_archive(path, record)
        for path, record in zip(args.archive, records, strict=True)
    }
    provenance: dict[str, Any] = {
        "format": FORMAT,
        "run": run_name(args.run_dir.resolve()),
        "inputs": {
            "training": describe_training(args.config),
            "settings": complete(settings),
            "files": {**archives, **hash_files(files)},
            "code": describe_code(),
            **describe_software(),
        },
        "outputs": hash_files(existing(args.run_dir, products_of(args.config))),
        "circumstances": {
            "training": describe_course(args.run_dir, args.config),
            "files": hash_files(existing(args.run_dir, ("train_log.csv",))),
            "machine": describe_machine(),
            "setup": read_stamp(),
            "repository": find_repository(),
            "recorded": _utc(datetime.now(UTC).timestamp()),
        },
    }
    if args.html:
        write_text(args.html, render_html(provenance, args.config.read_text(encoding="utf-8")))
    write_json(args.output, provenance)
    logger.info("%s: %d files hashed", args.output, len(files) + len(archives) + len(provenance["outputs"]))


if __name__ == "__main__":
    run_cli(build_parser, main)
