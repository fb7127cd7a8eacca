"""A copy of the project's set-up with an empty environment, and make and the installer run in it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
ENVS = ROOT / "envs"


def load(path: Path) -> ModuleType:
    """Import a script that is not on the path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy_project(root: Path) -> Path:
    """Return a copy of the project's set-up with an empty .venv that a finished set-up of cpu seems to have left."""
    root.mkdir()
    shutil.copytree(ENVS, root / "envs")
    shutil.copy(ROOT / "Makefile", root)
    (root / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "start.py", root / "scripts")
    shutil.copytree(ROOT / "scripts" / "lib" / "base", root / "scripts" / "lib" / "base")
    venv = root / ".venvs" / "cpu-20000101-000000"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (root / ".venv").symlink_to(venv.relative_to(root))
    stamp(root, "cpu")
    return root


def stamp(root: Path, env: str) -> None:
    """Write what a finished set-up of *env* writes last."""
    install = load(root / "envs" / "install.py")
    content = {"env": env, "inputs": install.hash_of(install.inputs_of(env)), "path": str(install.VENV.resolve())}
    install.write_stamp(install.STAMP, content)


def setup(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run envs/setup.sh as make does."""
    command = ["sh", "envs/setup.sh", *arguments]
    return subprocess.run(
        command,
        cwd=root,
        env=os.environ | variables | {"PIP_NO_INDEX": "1"},
        text=True,
        capture_output=True,
        check=False,
    )


def make(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make in *root*, without the variables that its user may have set."""
    env = dict(os.environ)
    for name in (
        "CONFIG",
        "RUN",
        "IMAGES",
        "OUT",
        "ARCHIVE",
        "DATA",
        "QUICK",
        "PROFILE",
        "ENV",
        "PYTHON",
        "ARGS",
        "MIMFLOW_SHELL",
    ):
        env.pop(name, None)
    return subprocess.run(
        ["make", *arguments], cwd=root, env=env | variables, text=True, capture_output=True, check=False
    )


def shell_of_a_user() -> dict[str, str]:
    """Return the environment of a shell in which nothing of the tests is set."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SNAKEMAKE_", "GIT_"))}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Return what a command prints; it must succeed."""
    result = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, timeout=600)  # fmt: skip
    assert result.returncode == 0, result.stdout
    return result.stdout


def commit_working_tree(repository: Path, environment: dict[str, str]) -> None:
    """Make a repository of the files of the working tree, with the tag v0.1.0."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, run(listed, ROOT, environment).split("\0")):
        if os.path.lexists(ROOT / name):
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, repository / name, follow_symlinks=False)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "a version"], ["tag", "v0.1.0"]):
        run(["git", *words], repository, environment)
