"""A finished run of the whole workflow, made once for all tests that look at one."""

from __future__ import annotations

from pathlib import Path

import pytest
from dag import HOSTILE_CLASSES, Finished, archive_bytes, settings, snakemake
from http_server import HttpServer
from set_up import copy_project

from scripts.lib.base.environment import Variable

HOSTILE_FILE = "{index:03d} '\"$(touch pwned)\n<img src=x>.jpg"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished run on hostile names, fetched from a server that breaks connections and is then gone."""
    folder = tmp_path_factory.mktemp("finished")
    content = archive_bytes(HOSTILE_CLASSES, names=HOSTILE_FILE)
    with HttpServer() as server:
        server.serve("data.zip", content, break_after=20_000, breaks=2)
        config = settings({"url": server.url("data.zip")})
        result = snakemake(folder, config, environment={str(Variable.USAGE): str(folder / "usage.jsonl")})
    assert result.returncode == 0, result.stdout
    return folder, config, result.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project's set-up with an empty .venv that a finished set-up of cpu seems to have left."""
    return copy_project(tmp_path / "a project")
