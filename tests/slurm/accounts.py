"""What Slurm's accounts tell about the jobs of one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster import Cluster
from daemons import wait_until


def jobs_in(cluster: Cluster, folder: Path) -> list[dict[str, Any]]:
    """Return the jobs that were submitted from a folder, as the accounts have them, once all have ended."""
    records: list[dict[str, Any]] = []

    def ended() -> bool:
        records[:] = [row for row in cluster.jobs() if row["WorkDir"] == str(folder)]
        return bool(records) and all(row["End"] for row in records)

    assert wait_until(ended, 30, every=0.5), records
    return records


def at_the_same_time(rows: list[dict[str, Any]]) -> bool:
    """Return whether there was a moment when all of these jobs ran."""
    return max(row["Start"] for row in rows) < min(row["End"] for row in rows)
