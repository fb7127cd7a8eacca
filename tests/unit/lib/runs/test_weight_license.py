"""What a license's id tells of what may be done with weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.lib.runs.weight_license import origin_of_run, restriction


@pytest.mark.parametrize(
    ("license", "words"),
    [
        ("apache-2.0", ""),
        ("MIT", ""),
        ("cc-by-4.0", ""),
        ("cc-by-nc-4.0", "non-commercial"),
        ("cc-by-nc-sa-4.0", "non-commercial"),
        ("fair-noncommercial-research-license", "non-commercial"),
        ("apple-amlr", "research only"),
        ("dinov3-license", "terms of its own .*accept first"),
        ("nvidia-open-model-license", "terms of its own"),
        ("made-up-1.0", "does not know"),
        (None, "not stated"),
    ],
)
def test_the_id_tells(license: str | None, words: str) -> None:
    import re

    assert re.search(words, restriction(license)) if words else restriction(license) == ""


@pytest.mark.parametrize("text", ["", "[]", '{"inputs": {"files": {}}}', '{"inputs": {"files": {"checkpoint": {}}}}'])
def test_a_run_without_an_origin_has_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    assert origin_of_run(tmp_path / "p.json") == origin_of_run(tmp_path / "gone.json") == {}


def test_the_origin_of_a_run_is_read(tmp_path: Path) -> None:
    entry = {"path": "x.pth", "origin": {"source": "timm", "license": "mit"}}
    (tmp_path / "p.json").write_text(json.dumps({"inputs": {"files": {"checkpoint": entry}}}))
    assert origin_of_run(tmp_path / "p.json")["license"] == "mit"
