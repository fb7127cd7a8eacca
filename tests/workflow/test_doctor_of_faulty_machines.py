"""`make doctor` on machines that do have a fault: a full disk, little memory, a shell or a clone set up otherwise.

Each fault is made for this command alone, in a mount namespace of its own: Linux, and root.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dag import QUICK, ROOT, settings
from gpu_program import nvidia_smi
from set_up import commit_working_tree, run, shell_of_a_user

pytestmark = pytest.mark.long

DOCTOR = [sys.executable, "-I", "-X", "utf8", str(ROOT / "scripts" / "start.py"), "python", "-m", "scripts.doctor"]
#: Mounts a disk of 64 kB that is full.
FULL = "mount -t tmpfs -o size=64k tmpfs {0} && ! head -c 70000 /dev/zero > {0}/filler 2> /dev/null"
READ_ONLY = "mount --bind {0} {0} && mount -o remount,ro,bind {0}"


def examined(fault: str = "true", *options: str, **variables: str | None) -> tuple[int, str]:
    """Return status and output of doctor where *fault*, words of a shell, is made before; None unsets a variable."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make a mount namespace")
    # Of the `make` around the tests: it has told mimflow what its shell was like.
    shell = {name: value for name, value in os.environ.items() if not name.startswith("MIMFLOW_")}
    environment = {name: value for name, value in {**shell, **variables}.items() if value is not None}
    command = ["unshare", "--mount", "sh", "-c", f'{fault} || exit 77; exec "$@"', "doctor", *DOCTOR, *options]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if result.returncode == 77:
        pytest.skip("needs the right to mount")
    assert "Traceback" not in result.stderr, result.stderr
    return result.returncode, result.stdout


@pytest.mark.parametrize(
    ("fault", "variables", "line", "status"),
    [
        ("", {"MPLBACKEND": "module://x", "PYTHONOPTIMIZE": "2"}, "note: variables of this shell that do not reach", 0),
        (
            "sed 's/$/\\r/' Makefile > {0}/m && mount --bind {0}/m Makefile",
            {},
            "problem: Makefile has the line ends",
            1,
        ),
        (READ_ONLY, {"HOME": "{0}"}, "note: home ({0}) cannot be written to (Read-only file system)", 0),
        (FULL, {"HOME": "{0}"}, "note: home ({0}) cannot be written to (No space left on device)", 0),
        ("", {"HOME": "{0}/gone"}, "note: home ({0}/gone) cannot be written to (there is no such folder)", 0),
        ("", {"SLURM_CONF": "{0}/gone"}, "problem: SLURM_CONF={0}/gone: no such file", 1),
        ("", {"SLURM_JOB_ID": "7"}, "note: this shell runs in Slurm job 7", 0),
        ("mount -t tmpfs -o size=1m tmpfs /dev/shm", {}, "shared memory (/dev/shm) has 1 MB free", 0),
        (FULL, {"TMPDIR": "{0}"}, "problem: the folder for temporary files, {0}, cannot be written to (No space", 1),
        ("mount --bind . . && mount -o remount,ro,bind . && cd ../$(basename $PWD)", {}, "problem: the folder", 1),
    ],
)
def test_what_is_wrong_with_a_machine_is_named(
    tmp_path: Path, fault: str, variables: dict[str, str], line: str, status: int
) -> None:
    def here(text: str) -> str:
        return text.replace("{0}", str(tmp_path))

    ended, output = examined(here(fault) or "true", **{name: here(value) for name, value in variables.items()})
    assert here(line) in output, output
    assert ended == status or "problem: " in output.replace(here(line), "", 1), output


def test_jobs_of_a_dead_controller_are_named_where_there_is_no_slurm(tmp_path: Path) -> None:
    (tmp_path / "mimflow-controller.json").write_text('{"slurm": true}')
    (ROOT / ".snakemake").mkdir(exist_ok=True)
    status, output = examined(f"mount --bind {tmp_path} .snakemake", PATH=without_slurm(tmp_path))
    assert status == 1 and "make run CONFIG=... ARGS=--unlock" in output


def test_a_clone_whose_links_became_texts_is_named_and_mended_as_told(tmp_path: Path) -> None:
    shell = shell_of_a_user() | {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER")
                                 for what in ("NAME", "EMAIL")}  # fmt: skip
    commit_working_tree(tmp_path / "hosted", shell)
    clone, line = tmp_path / "clone", "note: `slurm` is a text file, not a link to profiles/slurm"
    run(["git", "clone", "-q", "-c", "core.symlinks=false", str(tmp_path / "hosted"), str(clone)], tmp_path, shell)
    doctor = ["make", "--no-print-directory", "doctor"]
    (clone / ".venv").symlink_to(Path(sys.executable).parent.parent)
    told = [each for each in run(doctor, clone, shell).splitlines() if each.startswith(line)]
    assert len(told) == 1 and "ln -sfn profiles/slurm slurm" in told[0]
    run(["ln", "-sfn", "profiles/slurm", "slurm"], clone, shell)
    assert line not in run(doctor, clone, shell) and (clone / "slurm" / "profile.yaml").is_file()


def without_slurm(folder: Path) -> str:
    """Return a PATH with the programs that doctor needs, and none of Slurm's."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("unshare", "mount", "sh", "git"):
        (programs / name).symlink_to(
            next(path for path in map(Path, (f"/bin/{name}", f"/usr/bin/{name}")) if path.exists())
        )
    return str(programs)


@pytest.mark.parametrize(
    ("experiment", "variables", "line", "status"),
    [
        ({"epoch": "3"}, {}, "experiments.a.epoch: unknown key, did you mean epochs?", 1),
        ({"device": "cuda"}, {}, "problem: the experiment a is to train with device: cuda", 1),
        ({"device": "auto"}, {}, "note: there is a GPU (NVIDIA GeForce RTX 3090) but torch", 0),
        (
            {"device": "auto"},
            {"CUDA_VISIBLE_DEVICES": "0"},
            "problem: there is a GPU (NVIDIA GeForce RTX 3090) but torch",
            1,
        ),
    ],
)
def test_an_environment_that_does_not_fit_is_named(
    tmp_path: Path, experiment: dict[str, str], variables: dict[str, str], line: str, status: int
) -> None:
    config = tmp_path / "mine.yaml"
    (tmp_path / "data.zip").touch()
    source = {"path": str(tmp_path / "data.zip")}
    config.write_text(yaml.safe_dump(settings(source, a={**QUICK, **experiment})))
    path = nvidia_smi(tmp_path, "NVIDIA GeForce RTX 3090", "535.183.01", "8.6")
    ended, output = examined("true", f"--config={config}", PATH=path, **variables)
    assert line in output and ended == status, output
