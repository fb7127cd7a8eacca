"""Puts the repository and the helpers that tests share (http_server, tiny_run, ...) on the path of every test.

Not a package ``tests``: mmcls's dependencies install one of that name into site-packages.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests"
folders = [TESTS / name for name in ("grid", "slurm", "faults", "workflow")]
folders += [TESTS / "unit", *(path for path in sorted((TESTS / "unit").rglob("*")) if path.is_dir())]
for folder in (*folders, ROOT):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
