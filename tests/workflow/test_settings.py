"""How settings reach Snakemake and the jobs: read strictly by whoever reads them, and as they were written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from dag import QUICK, archive_bytes, settings, snakemake

pytestmark = pytest.mark.long

TWICE = """
dataset: {name: small, source: {sample: {}}}
experiments:
  a: {base_config: mobilenet-v2_8xb32_in1k}
  a: {base_config: mobilenet-v2_8xb32_in1k, epochs: 3}
"""


def config_with_braces(folder: Path, classes: list[str]) -> dict[str, Any]:
    """Return a configuration of which every text looks like Snakemake's wildcards."""
    path = folder / "z{x} {0}.zip"
    path.write_bytes(archive_bytes(["{c1}", "b {x}"], 10, names="i{index:02d}_x.jpg"))
    config = settings({"path": str(path)})
    config["dataset"] |= {"classes": classes, "license": "CC {BY}", "split": {"group_by": "i([0-9]{2})"}}
    return config


def jobs_planned(output: str) -> int:
    return int(re.findall(r"^total +([0-9]+)", output, re.MULTILINE)[0])


def test_text_with_braces_is_no_wildcard(tmp_path: Path) -> None:
    config = config_with_braces(tmp_path, ["{c1}", "b {x}"])
    result = snakemake(tmp_path, config, "--until", "split_dataset")
    assert result.returncode == 0, result.stdout
    assert "dataset.split.group_by: 10 groups" in result.stdout
    assert (tmp_path / "results/small/classes.txt").read_text() == "{c1}\nb {x}\n"
    again = snakemake(tmp_path, config, "--until", "split_dataset", "-n")
    assert jobs_planned(again.stdout) == 0, again.stdout
    (tmp_path / "z{x} {0}.zip").unlink()  # the fetched one may be a link to it
    (tmp_path / "z{x} {0}.zip").write_bytes(archive_bytes(["{c1}", "b {x}"], 11, names="i{index:02d}_x.jpg"))
    assert jobs_planned(snakemake(tmp_path, config, "--until", "split_dataset", "-n").stdout) == 4


def test_a_long_list_of_classes_reaches_its_job(tmp_path: Path) -> None:
    many = [f"class {index:06d}" for index in range(20_000)]
    result = snakemake(tmp_path, config_with_braces(tmp_path, ["{c1}", *many]), "--until", "split_dataset")
    assert result.returncode != 0 and "Argument list too long" not in result.stdout
    assert "class 000000" in result.stdout and "Traceback" not in result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("error: ")]
    assert lines and max(map(len, lines)) < 1000


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["seeds=[1]", "seeds=[2]"], "--config: seeds stands there twice: leave one of them"),
        (["seeds=[1]", "--config", "seeds=[2]"], "--config stands there twice: write all KEY=VALUE after one: "),
        (["seeds=[1]", "-C", "site=1"], "--config stands there twice: write all KEY=VALUE after one: "),
    ],
)
def test_of_two_settings_of_a_command_line_none_is_lost(words: list[str], line: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(archive_bytes(["a", "b"]))
    result = snakemake(tmp_path, settings({"path": "a.zip"}), "-n", "--config", *words)
    assert result.returncode == 1 and f"error: {line}" in result.stdout and "Traceback" not in result.stdout


@pytest.mark.parametrize("way", ["one file", "two files", "as JSON", "profile"])
def test_a_key_that_stands_twice_stops_snakemake_itself(tmp_path: Path, way: str) -> None:
    good = tmp_path / "good.yaml"
    good.write_text(json.dumps(settings({"sample": {}})))
    (tmp_path / "twice.yaml").write_text(TWICE)
    (tmp_path / "twice.json").write_text('{"seeds": [0],\n "seeds": [1]}')
    profile = tmp_path / "profiles" / "mine"
    profile.mkdir(parents=True)
    (profile / "profile.yaml").write_text("cores: 1\nrerun-incomplete: true\ncores: 2\n")
    files, options, message = {
        "one file": ("twice.yaml", [], "twice.yaml: lines 4 and 5: the key experiments.a stands twice"),
        "two files": ("good.yaml", ["twice.yaml"], "twice.yaml: lines 4 and 5: the key experiments.a stands twice"),
        "as JSON": ("good.yaml", ["twice.json"], "twice.json: lines 1 and 2: the key seeds stands twice"),
        "profile": ("good.yaml", ["--profile", "profiles/mine"], "profile.yaml: lines 1 and 3: the key cores stands"),
    }[way]
    result = snakemake(tmp_path, tmp_path / files, *options, "-n")
    assert result.returncode != 0 and f"error: {message.split('/')[0]}" in result.stdout.replace("profiles/mine/", "")


def test_a_device_that_is_not_there_stops_before_anything_is_fetched(tmp_path: Path) -> None:
    config = settings({"url": "http://127.0.0.1:9/x.zip"}, quick={**QUICK, "device": "cuda"})
    result = snakemake(tmp_path, config)
    assert result.returncode != 0 and "error: experiments.quick.device: cuda" in result.stdout
    assert "could not fetch" not in result.stdout and not (tmp_path / "results").exists()


def test_the_modules_of_the_site_are_loaded_by_each_job(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(archive_bytes(["a", "b"], 4))
    (tmp_path / "site.yaml").write_text("modules: [cuda/11.8, gcc]\n")
    module = {"BASH_FUNC_module%%": '() { echo "module $*" >> loaded; }'}  # as the cluster's shells have it
    config = settings({"path": "data.zip"})
    # The profile of the command line has no site of its own.
    environment = {**module, "MIMFLOW_SITE": str(tmp_path)}
    result = snakemake(tmp_path, config, "--until", "fetch_archive", environment=environment)
    assert result.returncode == 0, result.stdout
    assert set((tmp_path / "loaded").read_text().splitlines()) == {"module load cuda/11.8 gcc"}
