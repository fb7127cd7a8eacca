"""The test cluster for the tests in this folder: up once a session, or the one that is up already."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, ClusterError, install, missing, running_folder

#: Nodes beside those of the tests' partitions.
VIRTUAL = 4


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The test cluster; where it cannot be, the tests skip, or fail with MIMFLOW_REQUIRE_SLURM=1."""
    reason = missing()
    if not reason:
        try:
            install()
        except ClusterError as error:
            reason = str(error)
    if reason and os.environ.get("MIMFLOW_REQUIRE_SLURM") == "1":
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)
    # One that was brought up by hand is used, and left as it is found.
    folder = running_folder()
    if folder:
        cluster = Cluster(folder, VIRTUAL)
        cluster.wait_idle()
        cluster.up()
        yield cluster
        return
    # Not below pytest's own folders: the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="mimflow-slurm-"))
    with Cluster(folder, VIRTUAL) as cluster:
        yield cluster
    shutil.rmtree(folder)
