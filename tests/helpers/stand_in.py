"""The real rules, settings and records of Snakemake, with stand-ins for the scripts: a whole workflow in seconds.

The step whose output a file ``fails`` in the working folder names fails.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from dag import ROOT, snakemake

#: What each rule would run is replaced by writing its outputs: of each what it is made of, and by what settings.
SNAKEFILE = """
import inspect as _inspect
from pathlib import Path as _Path


def _write_outputs(*_words, **_options):
    names = _inspect.currentframe().f_back.f_locals
    fails = _Path("fails").read_text() if _Path("fails").exists() else ""
    if any(_Path(path).name == fails for path in names.get("output", ())):
        raise ValueError("this step fails")
    for path in map(_Path, names.get("output", ())):
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{path} {names['params']!r}")
        else:
            path.mkdir(parents=True, exist_ok=True)
            (path / "a.jpg").write_text(f"an image {names['params']!r}")


shell = _write_outputs
"""


def run(folder: Path, config: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
    """Run the workflow in *folder*."""
    snakefile = folder / "Snakefile"
    text = (ROOT / "Snakefile").read_text(encoding="utf-8").replace('include: "', f'include: "{ROOT}/')
    snakefile.write_text(text + SNAKEFILE, encoding="utf-8")
    return snakemake(folder, config, *options, snakefile=snakefile)
