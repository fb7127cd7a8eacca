"""Which of mimflow's files a script runs, and a hash of them: what else changes in the repository changes no result."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from scripts.lib.base.environment import ROOT
from scripts.lib.base.files import sha256_of

#: An import of mimflow's own modules, also one inside a function: (package, names) or (module).
IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(scripts[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n#]*)|import[ \t]+(scripts[\w.]*))", re.M
)
#: The package that config.py names, and mmcls imports.
PLUGINS = "scripts.mmcls_plugins"
#: What computes the weights, predictions and metrics of a run.
COMPUTES = (
    PLUGINS,
    "scripts.train.patch_config",
    "scripts.train.fit_head",
    "scripts.train.train_model",
    "scripts.evaluate.predict_images",
    "scripts.evaluate.evaluate_model",
)


@cache
def code_sha256(modules: Sequence[str], root: Path = ROOT) -> str:
    """Return the sha256 over the files of *modules*, a tuple, and of all that they import of mimflow."""
    digest = hashlib.sha256()
    for path in sources_of(modules, root):
        digest.update(f"{path.relative_to(root).as_posix()}\0{_sha256(path)}\0".encode())
    return digest.hexdigest()


@cache
def sources_of(modules: Sequence[str], root: Path = ROOT) -> list[Path]:
    """Return the files of *modules* and of all that they import of mimflow, with the data that bears their names."""
    sources: set[Path] = set()
    waiting = [path for module in modules for path in _files_of(module, root)]
    while waiting:
        path = waiting.pop()
        if path not in sources:
            sources.add(path)
            waiting += [file for name in _imports(path) for file in _files_of(name, root)]
    data = {file for path in sources for file in _data_of(path)}
    return sorted(sources | data)


_sha256 = cache(sha256_of)


@cache
def _imports(path: Path) -> list[str]:
    """Return the modules that a file may import: of `from a import b` both a and a.b."""
    names: dict[str, None] = {}
    for package, imported, module in IMPORT.findall(path.read_text(encoding="utf-8")):
        names[package or module] = None
        for word in imported.strip("()").split(","):
            if words := word.split():
                names[f"{package}.{words[0]}"] = None
    return list(names)


@cache
def _files_of(module: str, root: Path) -> list[Path]:
    """Return the file of a module, and of each package that it lies in; none where it is the name of something else."""
    parts = module.split(".")
    paths = [root.joinpath(*parts[:length]) for length in range(1, len(parts) + 1)]
    files = [path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in paths]
    return [file for file in files if file.is_file()]


def _data_of(path: Path) -> Iterator[Path]:
    """Yield what a module reads that bears its name: ``looks.yaml`` of looks.py, ``templates/`` of templates.py."""
    beside, folder = path.with_suffix(".yaml"), path.with_suffix("")
    if beside.is_file():
        yield beside
    if folder.is_dir() and not (folder / "__init__.py").exists():
        yield from (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
