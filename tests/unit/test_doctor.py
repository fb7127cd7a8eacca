"""The judgements of `make doctor`: which GPU runs which torch, which driver which CUDA, and what a machine lacks."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.doctor import look_at_devices
from scripts.lib.base.environment import ROOT
from scripts.lib.base.proxies import mask_credentials
from scripts.lib.workflow import machine_check, resources
from scripts.lib.workflow.machine_check import (
    Gpu,
    Quota,
    TorchBuild,
    arch_problem,
    ask_nvidia_smi,
    built_torch,
    device_of,
    device_problem,
    disk_problem,
    driver_problem,
    encoding_problem,
    environment_problem,
    gpu_problems,
    inodes_problem,
    parse_nvidia_smi,
    parse_quota,
    python_problem,
    quota_problems,
    shm_problem,
    silent_gpu_problem,
    slurm_problems,
    variable_problems,
)

RTX_3090 = Gpu("NVIDIA GeForce RTX 3090", 24576, "470.82.01", (8, 6))
TORCH_CU117 = TorchBuild(
    "2.0.1+cu117", "11.7", ("sm_37", "sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86"), True, ((8, 6),)
)
GB = 1e9


@pytest.mark.parametrize(
    ("capability", "arch_list"),
    [
        ((8, 6), ["sm_80"]),  # a binary runs on later GPUs of the same major version
        ((8, 6), ["sm_86"]),
        ((8, 9), ["sm_75", "sm_80", "sm_90"]),
        ((9, 0), ["sm_90a"]),
        ((12, 0), ["sm_75", "sm_120"]),
        ((9, 0), ["sm_70", "compute_70"]),  # PTX is compiled for any later GPU
        ((10, 3), ["sm_100f"]),
    ],
)
def test_a_gpu_runs_binaries_of_its_major_version_and_any_earlier_ptx(capability, arch_list):
    assert arch_problem(capability, arch_list) is None


@pytest.mark.parametrize(
    ("capability", "arch_list"),
    [
        ((8, 6), ["sm_37", "sm_50", "sm_60", "sm_70", "sm_75"]),
        ((8, 0), ["sm_86"]),  # never a later binary on an earlier GPU
        ((8, 6), ["compute_90"]),
        ((9, 0), ["sm_86", "sm_100a"]),
        ((10, 3), ["sm_100a"]),
        ((8, 6), []),
    ],
)
def test_a_gpu_without_kernels_is_named_with_what_torch_was_built_for(capability, arch_list):
    problem = arch_problem(capability, arch_list)

    assert problem is not None
    assert f"sm_{capability[0]}{capability[1]}" in problem
    assert all(arch in problem for arch in arch_list)


def test_doctor_needs_no_package(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    start = [tmp_path / "bare" / "bin" / "python", "-I", "-X", "utf8", ROOT / "scripts" / "start.py"]
    command = [*start, "python", "-m", "scripts.doctor"]

    result = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)

    assert "problem: torch cannot be imported" in result.stdout or "problem: there is no .venv" in result.stdout
    assert result.stderr == ""


def test_an_rtx_3090_with_a_torch_that_lacks_its_kernels_makes_a_run_fail():
    torch = TorchBuild("1.4.0", "10.1", ("sm_37", "sm_50", "sm_60", "sm_70"), True, ((8, 6),))

    (problem,) = gpu_problems(torch, [RTX_3090], variable="")

    assert problem.fatal
    assert "RTX 3090" in problem.what
    assert "sm_86" in problem.what
    assert "ENV=cuda11" in problem.remedy


def test_an_rtx_3090_with_the_cuda11_environment_is_fine():
    assert gpu_problems(TORCH_CU117, [RTX_3090], variable="CUDA_VISIBLE_DEVICES=0") == []


def test_the_driver_of_a_cuda11_node_is_too_old_for_cuda13_and_the_remedy_is_cuda11():
    torch = TorchBuild("2.13.0", "13.0", ("sm_75", "sm_80", "sm_86", "sm_90", "sm_120"), False)

    (problem,) = gpu_problems(torch, [RTX_3090], variable="")

    assert problem.fatal
    assert "470.82.01" in problem.what
    assert "580.65" in problem.what
    assert "ENV=cuda11" in problem.remedy


@pytest.mark.parametrize(
    ("driver", "cuda", "fits"),
    [
        ("450.80.02", "11.7", True),
        ("450.51.06", "11.7", False),
        ("525.60.13", "12.4", True),
        ("515.105.01", "12.4", False),
        ("580.65.06", "13.0", True),
        ("575.57.08", "13.0", False),
        ("390.46", None, True),
        ("[N/A]", "13.0", True),
        ("600.1", "14.0", True),  # a CUDA that this table does not know yet
    ],
)
def test_drivers_are_held_against_the_oldest_of_each_cuda_major_version(driver, cuda, fits):
    assert (driver_problem(driver, cuda) is None) == fits


def test_a_cpu_torch_beside_a_gpu_is_a_note_unless_the_process_was_given_the_gpu():
    torch = TorchBuild("2.13.0+cpu")

    (unasked,) = gpu_problems(torch, [RTX_3090], variable="")
    (asked,) = gpu_problems(torch, [RTX_3090], variable="SLURM_JOB_GPUS=0")

    assert not unasked.fatal
    assert asked.fatal


def test_a_gpu_that_torch_cannot_see_makes_a_run_fail():
    hidden = TorchBuild(TORCH_CU117.version, TORCH_CU117.cuda, TORCH_CU117.arch_list, available=False)

    (problem,) = gpu_problems(hidden, [RTX_3090], variable="")

    assert problem.fatal


def test_a_variable_that_gives_gpus_where_there_are_none_makes_a_run_fail():
    (problem,) = gpu_problems(TorchBuild("2.13.0+cpu"), [], variable="CUDA_VISIBLE_DEVICES=0")

    assert problem.fatal
    assert "CUDA_VISIBLE_DEVICES=0" in problem.what


def test_a_laptop_without_a_gpu_has_no_problem():
    assert gpu_problems(TorchBuild("2.13.0+cpu"), [], variable="") == []


def test_a_torch_that_cannot_be_imported_is_one_problem():
    (problem,) = gpu_problems(TorchBuild(error="ImportError: libcudart.so.13"), [RTX_3090], variable="")

    assert problem.fatal
    assert "libcudart.so.13" in problem.what


def test_nvidia_smi_is_read_with_and_without_compute_capabilities():
    with_capability = "NVIDIA GeForce RTX 3090, 24576, 470.82.01, 8.6\nTesla, V100, 1\n"
    without = "NVIDIA GeForce RTX 3090, 24576, 450.80.02\n"

    assert parse_nvidia_smi(with_capability)[0] == RTX_3090
    assert parse_nvidia_smi(without) == [Gpu("NVIDIA GeForce RTX 3090", 24576, "450.80.02", None)]
    assert parse_nvidia_smi("No devices were found\n") == []


QUOTA = """Disk quotas for user ann (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
 nas:/export/home 1040000* 1000000 1048576   6days   19000       0       0
      /dev/sdb1  500000       0       0            1000       0       0
"""


def test_quota_is_read_with_a_star_when_over_and_zero_as_no_limit():
    assert parse_quota(QUOTA) == [Quota("nas:/export/home", 1040000 * 1024, 1048576 * 1024)]


def test_a_full_quota_makes_a_run_fail_and_a_small_home_is_a_note():
    (full,) = quota_problems([Quota("/home", 0.9 * GB, 1 * GB)], project_in_home=False)
    (small,) = quota_problems([Quota("/home", 1 * GB, 10 * GB)], project_in_home=True)

    assert full.fatal
    assert not small.fatal
    assert quota_problems([Quota("/run", 50 * GB, 300 * GB)], project_in_home=False) == []
    assert quota_problems([Quota("/home", 1 * GB, 10 * GB)], project_in_home=False) == []


def test_the_deepest_mount_point_holds_a_path_and_its_escapes_are_read():
    mounts = "/dev/root / ext4 rw 0 0\nnas:/home /home nfs rw 0 0\n/dev/sdc /data\\040disk xfs rw 0 0\n"

    assert device_of(Path("/home/ann/project"), mounts) == "nas:/home"
    assert device_of(Path("/homework"), mounts) == "/dev/root"
    assert device_of(Path("/data disk/project"), mounts) == "/dev/sdc"


@pytest.mark.parametrize(
    ("free", "fatal"), [(0.5 * GB, True), (3 * GB, False), (50 * GB, None)], ids=["full", "low", "enough"]
)
def test_little_disk_space_is_a_note_and_next_to_none_a_problem(free, fatal):
    problem = disk_problem("the project", free)

    assert (problem.fatal if problem else None) == fatal


def test_file_systems_without_a_limit_on_files_are_fine_and_full_ones_are_not():
    assert inodes_problem("the project", 0, 0) is None
    assert inodes_problem("the project", 1_000_000, 2_000_000) is None
    assert inodes_problem("the project", 100, 2_000_000).fatal


def test_the_shared_memory_of_a_docker_container_is_too_small_for_data_loader_workers():
    problem = shm_problem(64e6)

    assert problem is not None
    assert "--shm-size" in problem.remedy
    assert shm_problem(8 * GB) is None
    assert shm_problem(math.inf) is None
    assert shm_problem(0) is not None


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("http://ann:s3cret@proxy.example:3128", "http://***@proxy.example:3128"),
        ("http://token@mirror.example/simple", "http://***@mirror.example/simple"),
        ("http://ann:p@ss@proxy.example:3128/", "http://***@proxy.example:3128/"),
        ("ann:s3cret@proxy.example:3128", "***@proxy.example:3128"),
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("localhost,127.0.0.1", "localhost,127.0.0.1"),
    ],
)
def test_credentials_in_proxy_variables_are_masked(url, masked):
    assert mask_credentials(url) == masked


def test_variables_that_lead_downloads_astray_are_noted():
    problems = variable_problems({"HTTP_PROXY": "http://proxy.example:1"})

    assert [problem.fatal for problem in problems] == [False]
    assert variable_problems({"http_proxy": "a", "HTTPS_PROXY": "b"}) == []


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"http_proxy": "not an address", "https_proxy": "a:1"}, "name no address: 'not an address'"),
        ({"HTTP_PROXY": "http://me:secret@h:x", "https_proxy": "a:1"}, "name no address: 'http://***@h:x'"),
        ({"all_proxy": "ftp://h:1"}, "a proxy by ftp, not by http"),
        ({"REQUESTS_CA_BUNDLE": "/nonexistent"}, "REQUESTS_CA_BUNDLE (/nonexistent) has no certificates"),
        ({"CURL_CA_BUNDLE": "/etc/passwd"}, "CURL_CA_BUNDLE (/etc/passwd) has no certificates"),
    ],
)
def test_a_way_into_the_internet_that_is_none_makes_a_run_fail(variables, words):
    [problem] = variable_problems(variables)

    assert words in problem.what
    assert problem.fatal


def test_a_proxy_that_no_download_takes_is_not_judged():
    assert variable_problems({"http_proxy": "h:1", "https_proxy": "https://h", "ALL_PROXY": "socks9://h:1"}) == []


def test_an_environment_that_is_not_what_its_lock_says_is_named_with_the_command_that_mends_it():
    problem = environment_problem({"env": "cuda11", "problem": "envs/cuda11.lock has changed"})

    assert problem is not None
    assert problem.fatal
    assert problem.remedy == "make setup ENV=cuda11"
    assert environment_problem({"env": "cpu", "problem": None}) is None


def test_other_pythons_and_encodings_are_problems():
    assert python_problem((3, 11)) is None
    assert python_problem((3, 8)).fatal
    assert encoding_problem("utf-8") is None
    assert "LC_ALL" in encoding_problem("gbk").remedy


def test_a_sacct_that_does_not_answer_is_noted_with_the_setting_that_helps():
    (problem,) = slurm_problems(sacct_works=False)

    assert "slurm-status-command" in problem.remedy
    assert slurm_problems(True) == slurm_problems(None) == []


def installed_torch(folder: Path, version: str, cuda: str) -> TorchBuild | None:
    """Return what is read off a folder with a torch in it: the file is as torch's own build writes it."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text("raise ImportError")
    (folder / "torch" / "version.py").write_text(f"__version__ = '{version}'\ndebug = False\n{cuda}\nhip = None\n")
    return built_torch([str(folder)])


@pytest.mark.parametrize(
    ("version", "cuda", "devices", "problem"),
    [
        ("2.13.0+cpu", "cuda: Optional[str] = None", {"a": "cuda"}, "the experiment a is"),
        ("2.0.1+cpu", "cuda = None", {"a": "cuda", "b": "cuda"}, "2 experiments are"),
        ("2.13.0+cpu", "cuda: Optional[str] = None", {"a": "auto", "b": "cpu", "c": "cuda"}, "the experiment c is"),
        ("2.13.0+cpu", "cuda: Optional[str] = None", {"a": "auto", "b": "cpu"}, ""),
        ("2.0.1+cu117", "cuda: Optional[str] = '11.7'", {"a": "cuda"}, ""),
        ("2.13.0", "cuda = '13.0'", {"a": "cuda"}, ""),
    ],
)
def test_experiments_that_want_a_gpu_need_a_torch_that_can_use_one(
    version: str, cuda: str, devices: dict[str, str], problem: str, tmp_path: Path
) -> None:
    torch = installed_torch(tmp_path, version, cuda)
    assert torch is not None and torch.version == version

    problem_of_devices = device_problem(devices, torch)

    assert (
        (problem in problem_of_devices.what and problem_of_devices.fatal and "ENV=cuda" in problem_of_devices.remedy)
        if problem_of_devices
        else not problem
    )


@pytest.mark.parametrize(
    ("has_gpu", "devices", "words"),
    [
        (True, {"a": "auto"}, "device: auto where there is a GPU, and torch"),
        (True, {"a": "auto", "b": "cuda"}, "2 experiments are to train with device: cuda"),
        (True, {"a": "cpu"}, ""),
        (False, {"a": "auto"}, ""),
    ],
)
def test_what_is_given_a_gpu_is_not_to_find_out_later_that_torch_cannot_use_it(has_gpu, devices, words):
    problem = device_problem(devices, TorchBuild("2.13.0+cpu"), has_gpu)

    assert words in problem.what if problem else not words
    assert device_problem(devices, TORCH_CU117, has_gpu) is None


@pytest.mark.parametrize(
    ("script", "silence"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "Failed to initialize NVML"),
        ("exit 9", "exit status 9"),
        ("exec sleep 60", "no answer within 1 s"),
        ("exit 0", "it says nothing"),
        ("echo 'No devices were found'", "it says nothing"),
        (None, "it says nothing"),
    ],
)
def test_a_gpu_that_nvidia_smi_does_not_list_is_named_with_its_words(script, silence, tmp_path, monkeypatch):
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")

    gpus, words = ask_nvidia_smi(timeout=1)
    problem = silent_gpu_problem(("0",), words)

    assert gpus == []
    assert "/dev/nvidia0" in problem.what and silence in problem.what and problem.remedy
    assert silent_gpu_problem((), words) is None


@pytest.mark.parametrize(
    ("driver", "remedy"),
    [("580.95.05", "make setup ENV=cuda13"), ("535.183.01", "make setup ENV=cuda11"), ("390.46", "a newer driver")],
)
def test_the_remedy_of_a_cpu_build_is_what_fits_the_driver(driver, remedy):
    (problem,) = gpu_problems(TorchBuild("2.13.0+cpu"), [Gpu("RTX", 24576, driver, (8, 6))], variable="")

    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("executor", "site", "torch", "words"),
    [
        ("local", "cuda", TORCH_CU117, "CUDA_VISIBLE_DEVICES hides the GPUs"),
        ("local", "auto", TORCH_CU117, ""),
        ("slurm", "cuda", TORCH_CU117, ""),  # its GPUs are elsewhere
        ("local", "cuda", TorchBuild("2.13.0+cpu"), "is a CPU build"),
        ("slurm", "cuda", TorchBuild("2.13.0+cpu"), "is a CPU build"),
    ],
)
def test_doctor_judges_the_device_of_a_profile_as_a_run_does(executor, site, torch, words, tmp_path, monkeypatch):
    (tmp_path / "profile.yaml").write_text(f"executor: {executor}\n")
    (tmp_path / "site.yaml").write_text(f"device: {site}\n")
    monkeypatch.setattr(machine_check, "built_torch", lambda: torch)
    monkeypatch.setattr(resources, "has_gpu", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    problem = look_at_devices(str(tmp_path), str(ROOT / "configs" / "demo.yaml"))

    assert words in problem.what and problem.remedy if problem else not words


@pytest.mark.parametrize("text", [None, "", "__version__ = 1"])
def test_a_torch_of_another_form_is_not_judged(text: str | None, tmp_path: Path) -> None:
    assert installed_torch(tmp_path, "", text or "") is None
    assert built_torch([str(tmp_path / "empty")]) is None and device_problem({"a": "cuda"}, None) is None
