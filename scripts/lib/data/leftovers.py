"""Remove what a killed run left beside a large output: atomic_path cannot, when it is killed itself."""

from __future__ import annotations

import glob
import logging
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)


def remove_leftovers(output: Path) -> None:
    """Remove the temporary files and folders of earlier runs that were to become *output*.

    Only for outputs that one process at a time writes, as Snakemake's lock sees to (names: see atomic_path).
    """
    for leftover in output.parent.glob(f".{glob.escape(output.stem)}.*.tmp{glob.escape(output.suffix)}"):
        logger.info("removing %s, left by a run that was stopped", leftover)
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
