"""What this machine has: read from what its programs print. Standard library only: no .venv is needed."""

from __future__ import annotations

import csv
import json
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.lib.base.environment import ROOT
from scripts.lib.cluster.gpus import Gpus
from scripts.lib.workflow.machine_problems import GB, Gpu, Quota, TorchBuild

logger = logging.getLogger(__name__)

#: Variables that reach every download. Upper and lower case are different variables.
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
#: Runs in .venv's interpreter, apart: a torch that cannot be imported, or that aborts, is a finding and not our end.
TORCH_FACTS = """
import json, torch
facts = {"version": torch.__version__, "cuda": torch.version.cuda, "available": torch.cuda.is_available()}
flags = getattr(torch._C, "_cuda_getArchFlags", lambda: None)()  # torch.cuda.get_arch_list() says [] without a GPU
facts["arch_list"] = (flags or "").split()
count = torch.cuda.device_count() if facts["available"] else 0
facts["capabilities"] = [list(torch.cuda.get_device_capability(i)) for i in range(count)]
print(json.dumps(facts))
"""


def parse_nvidia_smi(text: str) -> list[Gpu]:
    """Read ``nvidia-smi --query-gpu=name,memory.total,driver_version[,compute_cap] --format=csv,noheader,nounits``."""
    gpus = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) < 3:
            continue
        memory = int(row[1]) if row[1].isdigit() else 0
        match = re.fullmatch(r"(\d+)\.(\d+)", row[3]) if len(row) > 3 else None
        gpus.append(Gpu(row[0], memory, row[2], (int(match[1]), int(match[2])) if match else None))
    return gpus


def parse_quota(text: str) -> list[Quota]:
    """Read ``quota -w``: file system, blocks of 1 KiB (with a * when over), soft and hard limit; 0 is no limit."""
    quotas = []
    for line in text.splitlines():
        match = re.match(r"\s*(\S+)\s+(\d+)\*?\s+(\d+)\s+(\d+)(\s|$)", line)
        if match:
            soft, hard = int(match[3]), int(match[4])
            if limit := hard or soft:
                quotas.append(Quota(match[1], int(match[2]) * 1024.0, limit * 1024.0))
    return quotas


def device_of(path: Path, mounts: str) -> str:
    """Return the device that holds *path*, by the text of /proc/self/mounts (octal escapes for odd characters)."""
    best, device = "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 2:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1])
        if path.is_relative_to(point) and len(point) >= len(best):
            best, device = point, fields[0]
    return device


def mask_credentials(url: str) -> str:
    """Hide the user name and password of a URL: what doctor prints is sent to others."""
    return re.sub(r"//[^/]*@|^[^/@]+:[^/@]*@", lambda match: ("//" if match[0].startswith("//") else "") + "***@", url)


def output_of(*command: str, timeout: float = 20) -> str | None:
    """Return what a program printed, or None when it is not there, fails or hangs."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.debug("%s: %s", command[0], error)
        return None
    logger.debug("%s: status %d: %s%s", " ".join(command)[:200], result.returncode, result.stdout, result.stderr)
    return result.stdout if result.returncode == 0 else None


def look_at_gpus() -> list[Gpu]:
    """Return the GPUs that nvidia-smi lists; drivers before 510 do not know compute_cap."""
    for fields in ("name,memory.total,driver_version,compute_cap", "name,memory.total,driver_version"):
        text = output_of("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits")
        if text is not None:
            return parse_nvidia_smi(text)
    return []


def look_at_torch() -> TorchBuild:
    """Ask the torch of this interpreter what it was built for."""
    result = subprocess.run(
        [sys.executable, "-c", TORCH_FACTS], capture_output=True, text=True, check=False, errors="replace"
    )
    if result.returncode:
        last = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        return TorchBuild(error=last)
    facts = json.loads(result.stdout.strip().splitlines()[-1])
    capabilities = tuple((major, minor) for major, minor in facts["capabilities"])
    return TorchBuild(facts["version"], facts["cuda"], tuple(facts["arch_list"]), facts["available"], capabilities)


def look_at_quotas(paths: Sequence[Path]) -> list[Quota]:
    """Return the user's quotas on the file systems of *paths* (all of them where the names cannot be matched)."""
    quotas = parse_quota(output_of("quota", "-w") or "")
    mounts = Path("/proc/self/mounts")
    text = mounts.read_text(errors="replace") if mounts.exists() else ""
    devices = {device_of(path, text) for path in paths}
    return [quota for quota in quotas if quota.file_system in devices] or quotas


def same_device(one: Path, other: Path) -> bool:
    """Tell whether two folders lie on one file system."""
    return one.stat().st_dev == other.stat().st_dev


def look_at_sacct() -> bool | None:
    """Tell whether sacct answers; None where it is not installed."""
    if not shutil.which("sacct"):
        return None
    return output_of("sacct", "--noheader", "--allocations", "--starttime=now") is not None


def free_space(path: Path) -> str:
    """Return the free and total space where *path* lies, for people."""
    usage = shutil.disk_usage(path)
    return f"{usage.free / GB:.1f} of {usage.total / GB:.1f} GB free"


def describe(
    status: Mapping[str, Any], torch: TorchBuild, gpus: Sequence[Gpu], quotas: Sequence[Quota], home: Path | None
) -> list[tuple[str, str]]:
    """Return the facts as (name, value) pairs, in the order in which a helper would ask."""
    facts = [("system", f"{platform.platform()}, {' '.join(platform.libc_ver())}".rstrip(", "))]
    facts.append(("python", f"{platform.python_version()}  {sys.executable}"))
    facts.append(("environment", f"{status.get('env') or 'none'}, {status.get('problem') or 'as its lock says'}"))
    built = f"CUDA {torch.cuda}, for {' '.join(torch.arch_list)}" if torch.cuda else "CPU build"
    facts.append(("torch", torch.error or f"{torch.version}, {built}, can use {len(torch.capabilities)} GPU(s)"))
    if gpus:
        smi = re.search(r"CUDA Version:\s*([\d.]+)", output_of("nvidia-smi") or "")
        facts.append(("driver", gpus[0].driver + (f", CUDA up to {smi[1]}" if smi else "")))
    for index, gpu in enumerate(gpus):
        capability = f", sm_{gpu.capability[0]}{gpu.capability[1]}" if gpu.capability else ""
        facts.append((f"gpu {index}", f"{gpu.name}, {gpu.memory_mib / 1024:.0f} GiB{capability}"))
    if not gpus:
        facts.append(("gpu", "none" if shutil.which("nvidia-smi") is None else "nvidia-smi lists none"))
    facts.append(("given GPUs", Gpus.of(os.environ).variable or "no variable says so"))
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts.append(("cpu", f"{os.cpu_count()} cores, {usable} of them for this process"))
    facts.append(("project", f"{ROOT}: {free_space(ROOT)}"))
    if home:
        facts.append(("home", f"{home}: {free_space(home)}"))
    facts += [("quota", f"{q.file_system}: {q.used / GB:.1f} of {q.limit / GB:.1f} GB used") for q in quotas]
    if Path("/dev/shm").is_dir():
        facts.append(("/dev/shm", free_space(Path("/dev/shm"))))
    for name in ("TMPDIR", "PIP_CACHE_DIR", "XDG_CACHE_HOME", "PIP_INDEX_URL"):
        if os.environ.get(name):
            facts.append((name, mask_credentials(os.environ[name])))
    for name in sorted(os.environ):
        if name.lower() in PROXY_VARIABLES:
            facts.append((name, mask_credentials(os.environ[name])))
    facts.append(("wheelhouse", ", ".join(status.get("wheelhouses") or []) or "none"))
    slurm = (output_of("sinfo", "--version") or "").strip()
    facts.append(("slurm", slurm or ("sbatch is there, sinfo does not answer" if shutil.which("sbatch") else "none")))
    if slurm:
        partitions = output_of("sinfo", "--noheader", "--format=%P %a %D nodes %G") or ""
        facts += [("partition", " ".join(line.split())) for line in partitions.splitlines()[:10]]
    return facts
