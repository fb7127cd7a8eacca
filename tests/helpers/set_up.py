"""A copy of the project's set-up with an empty environment, and make and the installer run in it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

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


def another_environment(folder: Path, *packages: str) -> Path:
    """Return the programs of an environment that is not mimflow's, with packages of the index."""
    run([sys.executable, "-m", "venv", str(folder)], folder.parent, shell_of_a_user())
    if packages:
        run([str(folder / "bin" / "pip"), "install", "-q", *packages], folder.parent, shell_of_a_user())
    return folder / "bin"


def commit_working_tree(repository: Path, environment: dict[str, str]) -> None:
    """Make a repository of the files of the working tree, with the tag v0.1.0."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, run(listed, ROOT, environment).split("\0")):
        if os.path.lexists(ROOT / name):
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, repository / name, follow_symlinks=False)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "a version"], ["tag", "v0.1.0"]):
        run(["git", *words], repository, environment)


def link_environment(clone: Path) -> None:
    """Give a clone the .venv that `make setup` would build in it: that of the working tree, linked."""
    source, venv = (ROOT / ".venv").resolve(), clone / ".venvs" / "linked"

    def link(old: str, new: str) -> None:
        try:
            os.link(old, new)
        except OSError:  # another file system
            shutil.copy2(old, new)

    shutil.copytree(source, venv, symlinks=True, copy_function=link)
    names = ("bin/*", "pyvenv.cfg", "mimflow-environment.json", "lib/python*/site-packages/mimflow.pth")
    for file in [path for name in names for path in venv.glob(name) if path.is_file() and not path.is_symlink()]:
        text, mode = file.read_bytes(), file.stat().st_mode
        file.unlink()  # the file of the other environment stays as it is
        file.write_bytes(text.replace(bytes(source), bytes(venv)).replace(bytes(ROOT), bytes(clone)))
        file.chmod(mode)
    (clone / ".venv").symlink_to(venv.relative_to(clone))


@dataclass(frozen=True)
class Clone:
    """A clone of mimflow in which someone types commands.

    Attributes
    ----------
    folder : its root; results/mine in it has two finished runs, quick/seed0 and own/seed0.
    home : the home folder of this person.
    """

    folder: Path
    home: Path

    def typed(self, line: str, folder: Path | None = None) -> str:
        """Return what a line prints that is typed in bash, in the clone or in another folder."""
        environment = shell_of_a_user() | {"HOME": str(self.home)}
        return run(["bash", "-euc", line], folder or self.folder, environment)

    def metrics(self, experiment: str) -> dict[str, Any]:
        """Return metrics.json of a run."""
        file = self.folder / "results" / "mine" / experiment / "seed0" / "metrics.json"
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return content

    def name_results_demo(self) -> None:
        """Have results/demo, of which docs/ speaks, be the results of the two small runs."""
        demo = self.folder / "results" / "demo"
        if not demo.is_symlink():
            demo.symlink_to("mine")

    def locked(self) -> dict[str, str]:
        """Return the versions in .venv of the packages that the lock pins."""
        listed = json.loads(self.typed(".venv/bin/python -m pip list --format json --disable-pip-version-check"))
        lock = (self.folder / "envs/cpu.lock").read_text(encoding="utf-8").lower().replace("_", "-")
        there = {package["name"].lower().replace("_", "-"): package["version"] for package in listed}
        return {name: version for name, version in there.items() if f"\n{name}==" in lock}

    def install(self, *packages: str) -> None:
        """Add packages to .venv, as docs/trackers.md says it."""
        lines = shell_block(self.folder / "docs/trackers.md", "pip install")[:2]
        for line in [lines[0], lines[1].replace("tensorboard", " ".join(packages))]:
            run(["bash", "-euc", line], self.folder, shell_of_a_user())


def shell_block(page: Path, word: str) -> list[str]:
    """Return the lines of the first block of shell commands of a page that holds a word."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if word in block).splitlines()
