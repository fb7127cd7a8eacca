"""The environment of a job: known, whatever the shell, a notebook or a module has set; caches where they can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lib.base.environment import (
    CACHES,
    FIXED,
    is_stopped,
    job_environment,
    unset_in_shell,
    writable_home,
    writing_problem,
)

HOSTILE = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MATPLOTLIBRC": "/elsewhere/matplotlibrc",
    "PYTHONOPTIMIZE": "2",
    "PYTHONWARNINGS": "error",
    "PYTHONHASHSEED": "7",
    "PYTHONPATH": "/opt/old",
    "PYTHONHOME": "/opt/old",
    "PYTHONSTARTUP": "/opt/old/start.py",
    "PYTHONINSPECT": "1",
    "PYTHONIOENCODING": "gbk",
    "PYTHONUTF8": "0",
    "LC_ALL": "zh_CN.GBK",
    "LC_CTYPE": "zh_CN.GBK",
    "LANG": "zh_CN.GBK",
    "LD_PRELOAD": "/opt/old/libfake.so",
    "OMP_NUM_THREADS": "1",
    "OMP_DYNAMIC": "true",
    "GOMP_CPU_AFFINITY": "0",
    "MKL_NUM_THREADS": "1",
    "MKL_DYNAMIC": "true",
    "OPENBLAS_NUM_THREADS": "1",
    "TORCH_LOGS": "+all",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
    "CUDA_LAUNCH_BLOCKING": "1",
    "OPENCV_IO_MAX_IMAGE_PIXELS": "1",
    "BASH_ENV": "/opt/old/bashrc",
    "MALLOC_ARENA_MAX": "1",
    "SOURCE_DATE_EPOCH": "abc",
    "SKLEARN_WORKING_MEMORY": "abc",
    "JOBLIB_START_METHOD": "abc",
    "TQDM_MININTERVAL": "abc",
    "PILLOW_BLOCK_SIZE": "abc",
    "JPEGMEM": "1",
    "SCIPY_ARRAY_API": "1",
    "TIMM_FUSED_ATTN": "abc",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2",
    "LOCAL_RANK": "abc",
    "UNICODE_VERSION": "abc",
    "GIT_DIR": "/opt/old/.git",
    "SSLKEYLOGFILE": "/nonexistent/keys",
}
#: Functions of a user's bash that have the name of a program, or do what a site's modules are loaded by.
FUNCTIONS = {"BASH_FUNC_python%%": "() {  exit 3\n}", "BASH_FUNC_set%%": "() {  exit 3\n}"}
MODULES = {"BASH_FUNC_module%%": "() {  true\n}", "BASH_FUNC__module_raw%%": "() {  true\n}"}
PASSING = {
    "https_proxy": "http://proxy.example:1",
    "CUDA_VISIBLE_DEVICES": "1",
    "SLURM_JOB_ID": "7",
    "NCCL_SOCKET_IFNAME": "ib0",
    "TMPDIR": "/scratch/me",
    "LD_LIBRARY_PATH": "/opt/python/lib",
    "ATEN_CPU_CAPABILITY": "avx2",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONUNBUFFERED": "1",
    "MIMFLOW_SITE": "profiles/n30",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_changes_python_or_the_numbers_does_not_reach_a_job(name: str) -> None:
    assert is_stopped(name)
    assert job_environment({"HOME": "/root", name: HOSTILE[name]}).get(name) == FIXED.get(name)


@pytest.mark.parametrize("name", PASSING)
def test_what_belongs_to_other_programs_reaches_a_job(name: str) -> None:
    assert job_environment(PASSING)[name] == PASSING[name]


def test_functions_of_the_shell_reach_a_job_only_if_they_load_modules() -> None:
    assert {name for name in job_environment(FUNCTIONS | MODULES) if name.startswith("BASH_FUNC_")} == set(MODULES)


#: Each module reads variables of its own while it is loaded, by the names above.
LOADED = "tqdm, joblib, sklearn.metrics, scipy.cluster.hierarchy, PIL.Image, numpy.f2py, rich.cells, matplotlib.pyplot"


@pytest.mark.long
def test_the_libraries_are_loaded_in_the_environment_of_a_job_without_a_word() -> None:
    shell = os.environ | {name: value for name, value in HOSTILE.items() if value == "abc"}
    command = [sys.executable, "-c", f"import {LOADED}"]
    assert subprocess.run(command, env=shell, capture_output=True).returncode != 0
    result = subprocess.run(command, env=job_environment(shell), text=True, capture_output=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_environment_of_a_job_is_that_of_its_jobs() -> None:
    once = job_environment(os.environ | HOSTILE)
    assert job_environment(once) == once


def test_matplotlib_draws_as_it_does_by_itself(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("backend: module://nothing\nfigure.dpi: 7\n")
    shell = os.environ | HOSTILE | {"MATPLOTLIBRC": str(tmp_path)}
    code = "import matplotlib, matplotlib.pyplot as p; print(p.get_backend(), matplotlib.rcParams['figure.dpi'])"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=job_environment(shell), cwd="/", text=True, capture_output=True)
    assert result.stdout.lower() == "agg 100.0\n", result.stderr


def test_a_module_that_was_loaded_before_a_job_changes_no_more_than_the_shell_does() -> None:
    code = f"{unset_in_shell()}; {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    shell = {"PATH": os.environ["PATH"]} | HOSTILE | PASSING
    del shell["LD_PRELOAD"], shell["BASH_ENV"], shell["LC_ALL"]  # bash itself minds them
    result = subprocess.run(["bash", "-c", code], env=shell, text=True, capture_output=True)
    seen = json.loads(result.stdout)
    assert {name: seen.get(name) for name in HOSTILE} == {name: FIXED.get(name) for name in HOSTILE}
    assert {name: seen[name] for name in PASSING} == PASSING


# --- where caches lie -------------------------------------------------------------------------------------------------


@pytest.fixture
def full() -> Path:
    """A folder that exists and takes nothing, for root too: a file stands for each folder that would be made."""
    return Path("/proc/self/fd")


@pytest.mark.parametrize("home", ["/proc/1/nothing", "/proc/self/fd", "/dev/null"])
def test_a_home_that_takes_nothing_sends_caches_into_the_project(home: str) -> None:
    known = job_environment({"HOME": home})
    assert known["XDG_CACHE_HOME"] == str(CACHES)
    for name in ("MPLCONFIGDIR", "TORCH_HOME", "PIP_CACHE_DIR"):
        assert known[name].startswith(str(CACHES))
    if not os.path.isdir(home):
        assert known["HOME"] == str(CACHES)


def test_a_folder_for_caches_that_takes_nothing_is_replaced(tmp_path: Path, full: Path) -> None:
    known = job_environment({"HOME": str(tmp_path), "XDG_CACHE_HOME": str(full), "TORCH_HOME": str(tmp_path / "torch")})
    assert (known["XDG_CACHE_HOME"], known["TORCH_HOME"]) == (str(CACHES), str(tmp_path / "torch"))


@pytest.mark.long
def test_mim_gets_a_home_that_it_can_write(tmp_path: Path, full: Path) -> None:
    assert writable_home({"HOME": str(tmp_path)}) == str(tmp_path)
    environment = os.environ | {"HOME": writable_home({"HOME": str(full)})}
    result = subprocess.run([sys.executable, "-c", "import mim"], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["MPLCONFIGDIR", "TORCH_HOME", "CUDA_CACHE_PATH"])
def test_a_folder_for_one_cache_that_takes_nothing_is_not_used(tmp_path: Path, full: Path, name: str) -> None:
    assert name not in job_environment({"HOME": str(tmp_path), name: str(full)})
    assert job_environment({"HOME": str(tmp_path), name: str(tmp_path)})[name] == str(tmp_path)


def test_a_home_that_can_be_written_is_left_alone(tmp_path: Path) -> None:
    known = job_environment({"HOME": str(tmp_path)})
    assert known["HOME"] == str(tmp_path) and "XDG_CACHE_HOME" not in known


def test_without_home_the_system_says_where_it_is() -> None:
    known = job_environment({})
    assert "HOME" not in known or os.path.isdir(known["HOME"])


def test_that_a_folder_is_full_is_found_by_writing(tmp_path: Path, full: Path) -> None:
    assert writing_problem(tmp_path / "a" / "b") is None
    assert list((tmp_path / "a" / "b").iterdir()) == []
    assert writing_problem(full)
    if os.path.exists("/dev/full"):
        assert writing_problem(Path("/dev/full"))
