"""Where mimflow itself lies, and the environment of its processes: what they tell each other, what reaches a job."""

from __future__ import annotations

import json
import os
import shlex
import sysconfig
import tempfile
from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from scripts.lib.base.problems import UserError

#: The repository.
ROOT = Path(__file__).resolve().parents[3]


class Variable(StrEnum):
    """The environment variables, and what each is for."""

    # What a user may set.
    #: Folder with site.yaml. Jobs inherit it: Slurm hands the environment on (--export=ALL).
    SITE = "MIMFLOW_SITE"
    #: Slurm jobs of a workflow that was killed: ``cancel`` them (their state is saved), or ``wait`` for their end.
    ORPHANS = "MIMFLOW_ORPHANS"
    #: ``no``: no step is forked, each loads torch anew.
    FORK = "MIMFLOW_FORK"
    #: File to which each step adds what it cost, for bench/end_to_end.py.
    USAGE = "MIMFLOW_USAGE"
    #: When a trainer will be ended, as by a job's limit, in seconds since 1970; train_model sets it where Slurm tells.
    END_TIME = "MIMFLOW_END_TIME"

    # What a workflow tells its jobs.
    #: What scripts/start.py replaced of the user's shell, as JSON, for `make doctor`; null: it was not set.
    SHELL = "MIMFLOW_SHELL"
    #: The configuration files, for messages.
    CONFIG_FILES = "MIMFLOW_CONFIG_FILES"
    #: Set where standard error is a pipe into `Screen` on a terminal: lines may be rewritten there.
    LIVE = "MIMFLOW_LIVE"

    # What train_model tells its trainer.
    #: The process id of train_model, which a trainer must not outlive.
    PARENT = "MIMFLOW_TRAIN_MODEL_PID"
    #: Folder with a copy of the images on a faster disk.
    IMAGES = "MIMFLOW_IMAGES"
    #: Folder with a copy of the pixel cache on a faster disk.
    PIXEL_CACHE = "MIMFLOW_PACKED"


def expand(path: str, environment: Mapping[str, str]) -> str:
    """Return *path* with ~ and $VARIABLES replaced.

    Raises
    ------
    UserError : a variable in it is not set here.
    """
    words = path.replace("${", "$").replace("}", "").split("/")
    for word in words:
        if word.startswith("$") and word[1:] not in environment:
            raise UserError(f"site.yaml: {path}: {word} is not set on this machine: name another folder")
    return os.path.expanduser("/".join(environment[word[1:]] if word.startswith("$") else word for word in words))


# --- what reaches a job -----------------------------------------------------------------------------------------------

#: Variables that change how numbers are rounded. They reach a job, and provenance.json names them.
ROUNDING = (
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG",
)  # fmt: skip
#: Variables of Python, of the libraries that compute and draw, and of the shell: they stop at mimflow ...
STOPPED = (
    "PYTHON?*", "LC_*", "LANG", "LANGUAGE", "MPL*", "MATPLOTLIB*", "OMP_*", "GOMP_*", "KMP_*", "LIBOMP_*", "MKL_*",
    "OPENBLAS_*", "GOTO_*", "BLIS_*", "VECLIB_*", "NUMEXPR_*", "NUMBA_*", "NPY_*", "TORCH*", "PYTORCH_*", "ATEN_*",
    "DNNL_*", "ONEDNN_*", "CUBLAS*", "CUDNN_*", "CUDA_LAUNCH_BLOCKING", "NVIDIA_TF32_OVERRIDE", "OPENCV_*", "MALLOC_*",
    "MMCV_*", "MMCLS_*", "LD_PRELOAD", "LD_AUDIT", "BASH_ENV", "BASHOPTS", "SHELLOPTS", "CDPATH", "GLOBIGNORE",
    "NUMPY_*", "SCIPY_*", "SKLEARN_*", "PANDAS_*", "NETWORKX_*", "JOBLIB_*", "LOKY_*", "PYDANTIC_*", "TIMM_*", "ONNX_*",
    "ORT_*", "PILLOW_*", "JPEGMEM", "JSIMD_*", "OPJ_*", "TQDM_*", "JUPYTER_*", "TRITON_INTERPRET", "MKLDNN_*",
    "GLIBC_TUNABLES", "SOURCE_DATE_EPOCH",
    "UNICODE_VERSION", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "SSLKEYLOGFILE", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY",
    "BASH_FUNC_*", "POSIXLY_CORRECT",
)  # fmt: skip
#: ... but for these, which change speed, output or the place of files. Variables of other programs pass (proxies,
#: SLURM_*, CUDA_VISIBLE_DEVICES, NCCL_*, LD_LIBRARY_PATH, in which a module's Python may have its libraries), and so do
#: the functions of the shell by which a site loads modules.
PASSED = (
    *ROUNDING, "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "MPLCONFIGDIR",
    "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "TORCH_HOME", "TORCH_NCCL_*", "TORCH_DISTRIBUTED_DEBUG",
    "PYTORCH_CUDA_ALLOC_CONF", "BASH_FUNC_*module*", "BASH_FUNC_ml*",
)  # fmt: skip
#: What a job has instead. C: its bytes are taken as they are, and every system has it; Python then reads UTF-8.
FIXED = {
    "PYTHONPATH": str(ROOT),
    "PYTHONNOUSERSITE": "1",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",
    "LC_ALL": "C",
    "MPLBACKEND": "Agg",
    "MATPLOTLIBRC": os.path.join(sysconfig.get_path("purelib"), "matplotlib", "mpl-data"),
}
#: Where caches lie if home takes none, and the variables by which a user puts one elsewhere.
CACHES = ROOT / ".snakemake" / "caches"
CACHE_VARIABLES = ("MPLCONFIGDIR", "TORCH_HOME", "PIP_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH")


def variables_of_shell(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the user's shell, as they were before scripts/start.py replaced some."""
    replaced: dict[str, str | None] = json.loads(environment.get(Variable.SHELL, "{}"))
    return {name: value for name, value in {**environment, **replaced}.items() if value is not None}


def is_stopped(name: str) -> bool:
    """Tell whether the variable *name* of the user's shell is kept from a job."""
    return any(fnmatchcase(name, pattern) for pattern in STOPPED) and not any(
        fnmatchcase(name, pattern) for pattern in PASSED
    )


def job_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a job, whatever a notebook, a module or a login script has put into *environment*."""
    known = {name: value for name, value in environment.items() if not is_stopped(name)} | FIXED
    for name in CACHE_VARIABLES:
        if name in known and writing_problem(Path(known[name])):
            del known[name]
    home = home_of(known)
    has_home = os.path.isdir(home)
    cache = known.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if has_home else "")
    if not os.path.isabs(cache) or writing_problem(Path(cache)):
        known["XDG_CACHE_HOME"] = str(CACHES)
        for name in CACHE_VARIABLES:
            known.setdefault(name, str(CACHES / name.lower()))
    if not has_home:
        CACHES.mkdir(parents=True, exist_ok=True)
        known["HOME"] = str(CACHES)
    elif "MPLCONFIGDIR" not in known and writing_problem(Path(home, ".config")):
        known["MPLCONFIGDIR"] = os.path.join(known.get("XDG_CACHE_HOME", cache), "matplotlib")
    return known


def home_of(environment: Mapping[str, str]) -> str:
    """Return the home folder; "" where neither HOME nor the system's list of users says one."""
    home = environment.get("HOME") or os.path.expanduser(f"~{os.environ.get('USER', '')}")
    return home if os.path.isabs(home) else ""


def writable_home(environment: Mapping[str, str]) -> str:
    """Return a home for mim, which makes a folder in it when it is imported: the user's, or else that of the caches.

    Only for mim: elsewhere ~ is the user's home, which may well be read.
    """
    home = home_of(environment)
    return home if os.path.isdir(home) and not writing_problem(Path(home, ".cache")) else str(CACHES)


def writing_problem(folder: Path, size: int = 1 << 16) -> str | None:
    """Say why *size* bytes cannot be written into *folder*, which is made if need be; None when they can.

    Tried, since permissions tell nothing of quotas, of a full disk, or of a file system that is read-only.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * size)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return "it is a file, or a link to what is not there"
    except OSError as error:
        return error.strerror or str(error)
    return None


def unset_in_shell() -> str:
    """Return shell words (bash) that do to a shell's environment what :func:`job_environment` did to Snakemake's."""
    stopped = "|".join(pattern for pattern in STOPPED if pattern not in ("SHELLOPTS", "BASHOPTS"))
    passed = "|".join(PASSED)
    fixed = " ".join(f"{name}={shlex.quote(value)}" for name, value in FIXED.items())
    loop = f'for name in $(compgen -e); do case "$name" in {passed}) ;; {stopped}) unset "$name" ;; esac; done'
    return f"{loop}; export {fixed}"
