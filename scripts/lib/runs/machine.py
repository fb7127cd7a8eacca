"""The machine, software and code that a run was made with, for its provenance."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from scripts.lib.base.download import shown
from scripts.lib.base.environment import ROOT, ROUNDING
from scripts.lib.base.files import sha256_of
from scripts.lib.base.source_code import COMPUTES, code_sha256

#: What the set-up leaves in .venv (envs/install.py).
STAMP = Path(sys.prefix) / "mimflow-environment.json"
#: Files of scripts/ that its results and pages depend on.
CODE = (".py", ".html", ".css", ".js", ".md", ".yaml", ".csv")
#: Packages that have a say in the result; the lock's hash stands for all of them.
PACKAGES = (
    "torch", "torchvision", "timm", "mmcls", "mmcv", "openmim", "numpy", "opencv-python-headless", "pillow",
    "scikit-learn", "scipy", "pandas", "matplotlib", "snakemake", "snakemake-executor-plugin-slurm", "pydantic",
)  # fmt: skip
#: Environment variables that say where a run ran, or that change how its numbers are rounded.
VARIABLES = (
    "SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST", "CUDA_VISIBLE_DEVICES", *ROUNDING,
)  # fmt: skip
#: The instruction sets by which the mathematical libraries choose their kernels, as Linux names them.
INSTRUCTION_SETS = re.compile(r"sse4_2|avx|avx2|fma|avx512\w*|avx_vnni|amx\w*|asimd\w*|sve\w*")


def describe_software() -> dict[str, Any]:
    """Return the versions of Python and the main packages, and which lock they came from."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "environment": {"name": read_stamp().get("env"), "lock_sha256": lock_sha256()},
    }


def lock_sha256() -> str | None:
    """Return the hash of the lock that this environment came from; None where another tool made it."""
    lock = ROOT / "envs" / f"{read_stamp().get('env')}.lock"
    return sha256_of(lock) if lock.is_file() else None


def read_stamp() -> dict[str, Any]:
    """Return what the set-up wrote about this environment; empty where another tool made it."""
    return json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.is_file() else {}


def describe_code(root: Path = ROOT) -> dict[str, Any]:
    """Return the commit of the code, whether tracked files differ from it (None for both where git cannot tell), and
    the sha256 over the workflow and its scripts, which tells apart what commits of documentation do not; another over
    the part of it that computes weights, predictions and metrics.
    """
    scripts = (path for path in root.glob("scripts/**/*") if path.suffix in CODE)
    files = [path for path in sorted([root / "Snakefile", *root.glob("rules/*.smk"), *scripts]) if path.is_file()]
    names = [path.relative_to(root).as_posix() for path in files]
    digest = hashlib.sha256()
    for name, path in zip(names, files, strict=True):
        digest.update(f"{name}\0{sha256_of(path)}\0".encode())
    sha256 = {"sha256": digest.hexdigest(), "computes_sha256": code_sha256(COMPUTES, root)}
    commit = _git(root, "rev-parse", "HEAD") if is_own_repository(root) else None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no") if commit else None
    tree = (_git(root, "ls-tree", "-r", "-z", "HEAD") or "").split("\0") if commit else []
    known = {name: line.split()[2] for line, _, name in (entry.partition("\t") for entry in tree) if name}
    if changes is None or (names and not known.keys() & set(names)):
        return {"commit": None, "dirty": None, **sha256}  # without git, or a commit of something else
    # Where results/ is a link to a larger disk, the page that git keeps there is missing: that is no other code.
    changed = any(not line.endswith(" results/README.md") for line in changes.splitlines())
    # Hashed, since git says nothing of files that it was told to take as unchanged.
    hashes = (_git(root, "hash-object", "--", *names) or "").split() if names else []
    return {"commit": commit, "dirty": changed or hashes != [known.get(name) for name in names], **sha256}


def is_own_repository(root: Path) -> bool:
    """Tell whether a folder is the top of a repository: git also finds one that a folder above it belongs to."""
    top = _git(root, "rev-parse", "--show-toplevel")
    return top is not None and os.path.realpath(top) == os.path.realpath(root)


def find_repository(root: Path = ROOT) -> str | None:
    """Return the address that the code was cloned from, without credentials; None for a folder, and where git is not.

    >>> find_repository(Path("/"))
    """
    address = (_git(root, "remote", "get-url", "origin") or "") if is_own_repository(root) else ""
    if re.match(r"https?://", address):
        return shown(address)
    # ssh://git@host/path, git@host:path
    return address if re.match(r"ssh://|[\w.-]+@[\w.-]+:", address) else None


def describe_machine() -> dict[str, Any]:
    """Return host, processor, cores and GPUs of the machine that this runs on (in the DAG: the one that trained)."""
    import torch

    info = Path("/proc/cpuinfo")
    flags = (_group(r"^(?:flags|Features)\s*:\s*(.+)$", info) or "").split()
    gpus = range(torch.cuda.device_count() * torch.cuda.is_available())
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": _group(r"^model name\s*:\s*(.+)$", info) or platform.processor() or platform.machine(),
        "instruction_sets": sorted(filter(INSTRUCTION_SETS.fullmatch, flags)),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": [
            {"name": gpu.name, "memory_bytes": gpu.total_memory, "architecture": f"sm_{gpu.major}{gpu.minor}"}
            for gpu in map(torch.cuda.get_device_properties, gpus)
        ],
        "driver": _group(r"(\d+\.\d+(?:\.\d+)?)", Path("/proc/driver/nvidia/version")),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpus else None,
        "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32},
        "kernels": _group(r"CPU capability usage: (\S+)", torch.__config__.show()),  # e.g. AVX2
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _group(pattern: str, text: str | Path) -> str | None:
    """Return the first group of the first match in a text or file; None where there is none, or no such file."""
    if isinstance(text, Path):
        text = text.read_text() if text.is_file() else ""
    match = re.search(pattern, text, re.MULTILINE)
    return match[1].strip() if match else None


def _git(root: Path, *words: str) -> str | None:
    answer = ask_git(root, *words)
    return None if answer is None else answer.decode("utf-8", "surrogateescape").strip()


def ask_git(root: Path, *words: str) -> bytes | None:
    """Return what git says of the repository of a folder, None where it fails or is not installed.

    GIT_DIR and its like would name another one, as inside a hook. That the folder belongs to another user, as on a
    shared disk, is no reason not to be told what it is: its code runs already.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", f"safe.directory={root.resolve()}", "-C", str(root), *words]
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=True, env=environment).stdout
    except (OSError, subprocess.SubprocessError):
        return None
