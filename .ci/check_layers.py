"""Hold the packages of scripts/ against their order: a module imports from its own layer and from those below it.

`make lint` runs it. It prints one line for each import that goes upward, and one for a circle of packages, and then
exits with 1.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: The packages, from the lowest layer to the highest. Packages of one layer may import each other, not in a circle.
LAYERS = (
    ("scripts.lib.base",),
    ("scripts.lib.data", "scripts.lib.runs", "scripts.lib.cluster"),
    ("scripts.mmcls_plugins", "scripts.lib.metrics"),
    ("scripts.lib.model", "scripts.lib.pages"),
    ("scripts.lib.settings",),
    ("scripts.lib.workflow",),
    ("scripts.data", "scripts.search", "scripts.train", "scripts.evaluate", "scripts.report"),
    ("scripts",),  # the commands
)
HEIGHT = {package: height for height, layer in enumerate(LAYERS) for package in layer}


def package_of(module: str) -> str:
    """Return the longest package of LAYERS that holds *module*."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(name for name in names if name in HEIGHT)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and name of each module of scripts/ that a file imports, inside its functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "scripts":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                is_module = (ROOT / name.replace(".", "/")).with_suffix(".py").exists()
                yield node.lineno, name if is_module else node.module
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "scripts")


def main() -> int:
    """Print what breaks the order; return the exit status."""
    complaints: list[str] = []
    graph: dict[str, set[str]] = {package: set() for package in HEIGHT}
    modules: dict[str, set[str]] = {}
    for path in sorted((ROOT / "scripts").rglob("*.py")):
        relative = path.relative_to(ROOT)
        module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        package = package_of(module)
        modules.setdefault(module, set())
        for line, name in imports_of(path):
            target = package_of(name)
            modules[module].add(name)
            if HEIGHT[target] > HEIGHT[package]:
                complaints.append(f"{relative}:{line}: {package} must not import from above: {name}")
            elif target != package:
                graph[package].add(target)
    for what, edges in (("packages", graph), ("modules", modules)):
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            complaints.append(f"a circle of {what}: {' -> '.join(reversed(error.args[1]))}")
    print(*complaints, sep="\n", end="\n" if complaints else "")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
