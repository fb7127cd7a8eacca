"""A finished run of the whole workflow, made once for all tests that look at one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from config_files import own_file
from dag import HOSTILE_CLASSES, QUICK, Finished, archive_bytes, settings, snakemake
from http_server import HttpServer
from set_up import Clone, commit_working_tree, copy_project, link_environment, run, shell_of_a_user

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


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A fresh clone of the working tree, in which `make run` has made two small runs, one of an own mmcls config."""
    folder = tmp_path_factory.mktemp("fresh")
    environment = shell_of_a_user() | {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER")
                                       for what in ("NAME", "EMAIL")}  # fmt: skip
    commit_working_tree(folder / "hosted", environment)
    run(["git", "clone", "-q", str(folder / "hosted"), str(folder / "mimflow")], folder, environment)
    (folder / "home").mkdir()
    fresh = Clone(folder / "mimflow", folder / "home")
    link_environment(fresh.folder)
    assert fresh.typed("make setup") == "", "what is there is what its lock says"
    (fresh.folder / "photos.zip").write_bytes(archive_bytes(["a", "b", "c"]))
    own_file(fresh.folder / "configs" / "mmcls")
    experiment = {"base_config": "configs/mmcls/mine.py", "checkpoint": "none", "threads": 1, "device": "cpu"}
    config = settings({"path": "photos.zip"}, quick=QUICK, own=experiment)
    config["dataset"]["name"] = "mine"
    (fresh.folder / "configs" / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert "report: results/mine/report.html" in fresh.typed("make run CONFIG=configs/mine.yaml")
    return fresh


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project's set-up with an empty .venv that a finished set-up of cpu seems to have left."""
    return copy_project(tmp_path / "a project")
