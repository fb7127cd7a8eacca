"""Puts the repository and the helpers of tests/workflow (http_server, ...) on the path of every test.

Not a package ``tests``: mmcls's dependencies install one of that name into site-packages.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT / "tests" / "workflow", ROOT / "tests" / "faults", ROOT):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
