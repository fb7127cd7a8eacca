"""The RO-Crate has what version 1.1 of the specification demands; CI runs a validator on it (.ci/validate_crate.py)."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from scripts.lib.base import products
from scripts.lib.base.problems import UserError
from scripts.lib.runs.provenance import FORMAT
from scripts.report import describe_crate

#: Terms of RO-Crate 1.1's context that the crate may use; others it must define itself.
TERMS = {
    "about", "conformsTo", "name", "description", "datePublished", "license", "hasPart", "mentions", "encodingFormat",
    "contentSize", "version", "softwareVersion", "instrument", "object", "result", "startTime", "endTime",
    "actionStatus",
}  # fmt: skip


def make_results(folder: Path, runs: list[str], **archive: Any) -> Path:
    """Write the files of finished runs, as far as a crate describes them."""
    for name in ("classes.txt", "splits/train.txt", "leaderboard.csv", "archive.zip", "images/a/x y.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a\nb\n")
    for run in runs:
        (folder / run / "figures").mkdir(parents=True)
        for name in ("config.py", "best.pth", "metrics.json", "figures/training_curves.svg"):
            (folder / run / name).write_text(run + name)
        weights = {"bytes": 5, "sha256": "ab" * 32}
        files = {"archive": {"path": f"{folder}/archive.zip", "bytes": 4, "sha256": "cd" * 32, "source": None}}
        files |= {"splits/train.txt": {"bytes": 4, "sha256": hashlib.sha256(b"a\nb\n").hexdigest()}}
        files |= {"checkpoint": {"path": "results/checkpoints/c.pth", "sha256": "ef" * 32}}
        names = dict(zip(("experiment", "seed", "fold"), run.split("/"), strict=False))
        if "fold" in names:
            (folder / "splits" / names["fold"]).mkdir()
            (folder / "splits" / names["fold"] / "train.txt").write_text("a\nb\n")
        provenance = {
            "format": FORMAT,
            "run": {"dataset": "d", **names},
            "inputs": {
                "files": files,
                "versions": {"torch": "2.0.1+cu117"},
                "code": {"commit": None, "sha256": "12"},
                "training": {},
                "settings": {},
                "environment": {},
            },
            "outputs": {"best.pth": weights},
            "circumstances": {
                "training": {"command": "mim", "started": "2026-01-01T00:00:00+00:00", "ended": None},
                "files": {},
                "machine": {},
                "recorded": "2026-01-02T03:04:05+00:00",
            },
        }
        (folder / run / "provenance.json").write_text(json.dumps(provenance))
    return folder


def describe(folder: Path, runs: list[str], *options: str) -> dict[str, Any]:
    words = ["--folder", str(folder), "--runs", *(str(folder / run) for run in runs), *options]
    output = folder / "ro-crate-metadata.json"
    describe_crate.main(describe_crate.build_parser().parse_args([*words, "--output", str(output)]))
    return json.loads(output.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "runs",
    [["net/seed0"], ["net/seed0", "net/seed1", "other/seed0"], ["net/seed0/fold0", "net/seed0/fold1"]],
)
def test_the_crate_has_what_the_specification_demands(tmp_path: Path, runs: list[str]) -> None:
    crate = describe(make_results(tmp_path, runs), runs, "--license", 'CC0 (`$x` "q")')
    assert crate["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(entities) == len(crate["@graph"]), "every @id once"
    descriptor, root = entities["ro-crate-metadata.json"], entities["./"]
    assert descriptor["@type"] == "CreativeWork" and descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert root["@type"] == "Dataset" and all(root[key] for key in ("name", "description", "license"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", root["datePublished"])
    assert entities[root["license"]["@id"]]["name"] == 'CC0 (`$x` "q")'
    for entity in crate["@graph"]:
        assert (
            isinstance(entity["@id"], str)
            and entity["@type"]
            and entity["name" if entity is not descriptor else "about"]
        )
        assert set(entity) - {"@id", "@type"} <= TERMS | set(crate["@context"][1])
        for value in entity.values():
            links = [link for link in (value if isinstance(value, list) else [value]) if isinstance(link, dict)]
            assert all(set(link) == {"@id"} for link in links), "flat: entities are linked, never nested"
            assert all(link["@id"] in entities or link["@id"].startswith("http") for link in links)
    assert {link["@id"] for link in root["hasPart"]} == {
        identifier for identifier, entity in entities.items() if entity["@type"] in ("File", "Dataset")
    } - {"./"}


def test_every_file_of_the_crate_exists_and_is_hashed(tmp_path: Path) -> None:
    crate = describe(make_results(tmp_path, ["net/seed0"]), ["net/seed0"])
    files = [entity for entity in crate["@graph"] if entity["@type"] == "File"]
    assert {"archive.zip", "leaderboard.csv", "net/seed0/best.pth", "net/seed0/provenance.json"} <= {
        file["@id"] for file in files
    }
    for file in files:
        path = tmp_path / unquote(file["@id"])
        assert path.is_file()
        recorded = {"best.pth": "ab" * 32, "archive.zip": "cd" * 32}.get(path.name)
        assert file["sha256"] == (recorded or hashlib.sha256(path.read_bytes()).hexdigest())


def test_each_run_is_an_action_with_what_it_used_and_what_it_made(tmp_path: Path) -> None:
    crate = describe(make_results(tmp_path, ["net/seed0"]), ["net/seed0"])
    (action,) = (entity for entity in crate["@graph"] if entity["@type"] == "CreateAction")
    used, made = ({link["@id"] for link in action[key]} for key in ("object", "result"))
    assert {"net/seed0/config.py", "splits/train.txt", "images/", "#c.pth"} <= used
    assert {"net/seed0/best.pth", "net/seed0/metrics.json"} <= made and not made & used
    assert action["startTime"] == "2026-01-01T00:00:00+00:00" and "endTime" not in action


def test_a_run_of_a_fold_used_the_splits_of_that_fold(tmp_path: Path) -> None:
    runs = ["net/seed0/fold0", "net/seed0/fold1"]
    crate = describe(make_results(tmp_path, runs), runs)
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    for fold, run in enumerate(runs):
        used = {link["@id"] for link in entities[f"#{run}"]["object"]}
        assert {name for name in used if name.startswith("splits/")} == {f"splits/fold{fold}/train.txt"}
        assert entities[f"{run}/"]["description"] == f"one training run: net, seed0, fold{fold}"
        assert entities[f"splits/fold{fold}/train.txt"]["description"].endswith(f"(fold{fold})")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 0}', '{"format": 1, "run": {}}'])
def test_a_provenance_that_is_missing_or_another_version_s_is_one_line(tmp_path: Path, content: str | None) -> None:
    make_results(tmp_path, ["net/seed0"])
    path = tmp_path / "net/seed0/provenance.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=r"provenance\.json: "):
        describe(tmp_path, ["net/seed0"])


def test_what_the_crate_describes_must_be_as_made_and_the_report_may_be_another(tmp_path: Path) -> None:
    folder = make_results(tmp_path, ["net/seed0"])
    (folder / "report.html").write_text("of an earlier run")
    products.record("jobs", [folder / "report.html", folder / "leaderboard.csv"])
    (folder / "report.html").write_text("in another language")
    describe(folder, ["net/seed0"])
    (folder / "leaderboard.csv").write_text("edited")
    with pytest.raises(UserError, match=r"leaderboard\.csv is not what was made"):
        describe(folder, ["net/seed0"])
