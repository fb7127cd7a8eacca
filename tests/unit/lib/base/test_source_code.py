"""The code of a script is the files that it runs, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.lib.base.environment import ROOT
from scripts.lib.base.source_code import COMPUTES, code_sha256, sources_of

FILES = {
    "scripts/__init__.py": "",
    "scripts/run.py": "from scripts.lib import (\n    near,\n)\n",
    "scripts/lib/__init__.py": "",
    "scripts/lib/near.py": "def f():\n    from scripts.lib.far import x\n",
    "scripts/lib/near.yaml": "a: 1\n",
    "scripts/lib/far.py": "x = 1\n",
    "scripts/lib/other.py": "",
    "README.md": "",
}


def write(root: Path, **changed: str) -> Path:
    for name, text in (FILES | {name.replace("__", "/"): text for name, text in changed.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("scripts/run.py", True),
        ("scripts/lib/near.py", True),
        ("scripts/lib/near.yaml", True),
        ("scripts/lib/far.py", True),
        ("scripts/lib/other.py", False),
        ("README.md", False),
    ],
)
def test_a_change_counts_where_the_script_runs_it(tmp_path: Path, name: str, counts: bool) -> None:
    hashes = set()
    for folder, text in (("a", ""), ("b", "# changed\n")):
        root = write(tmp_path / folder)
        (root / name).write_text(FILES[name] + text)
        hashes.add(code_sha256(("scripts.run",), root))
    assert len(hashes) == 1 + counts


def test_what_computes_a_result_holds_the_plugins_and_no_page() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in sources_of(COMPUTES)}
    assert {"scripts/mmcls_plugins/runner.py", "scripts/lib/metrics/metrics.py", "scripts/lib/data/splits.py"} <= names
    assert not [name for name in names if "/pages/" in name or "/report/" in name]
