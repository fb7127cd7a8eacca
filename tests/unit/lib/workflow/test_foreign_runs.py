"""Runs of someone else's: hostile provenances, manifests and settings end in one line, and name no file elsewhere."""

from __future__ import annotations

import copy
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.lib.base.problems import UserError
from scripts.lib.runs.provenance import read_provenance
from scripts.lib.settings.dataset import Dataset, Source
from scripts.lib.settings.load import load_settings
from scripts.lib.settings.schema import Checkpoint, Experiment
from scripts.lib.workflow import foreign_runs
from scripts.lib.workflow.bundles import MANIFEST, NAME, read_manifest
from scripts.lib.workflow.foreign_runs import check_provenance, check_settings
from scripts.lib.workflow.repetition import FinishedRun, first_difference, likely_causes, settings_for
from tests.unit.lib.runs.test_config_values import WAYS
from tests.unit.lib.workflow.test_repetition import provenance

ROOT = Path(__file__).resolve().parents[4]
PATH = Path("provenance.json")


def changed(**experiment: Any) -> dict[str, Any]:
    values = provenance()
    values["inputs"]["settings"]["experiments"]["e"] |= experiment
    return values


def test_what_record_provenance_writes_is_believed() -> None:
    check_provenance(provenance(), PATH)
    check_settings(provenance(), PATH)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "no table"])
def test_no_override_of_a_bundle_reaches_an_import_or_a_file(way: str) -> None:
    values = changed(overrides=WAYS[way])
    with pytest.raises(UserError, match=r"a\.tar: refused: experiments\.e\.overrides\..*--trust") as caught:
        check_settings(values, Path("a.tar"))
    assert "\n" not in str(caught.value)
    check_settings(values, Path("a.tar"), trust=True)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (
            {"checkpoint": {"url": "https://x.org/a.pth", "sha256": "0" * 64, "trust_pickle": True}},
            "trust_pickle: True",
        ),
        ({"checkpoint": {"path": "a.pth", "hook": "x"}}, "checkpoint.hook: 'x'"),
        ({"shell": "rm -r ~"}, "experiments.e.shell: 'rm -r ~'"),
        ({"overrides": "load_from"}, "experiments.e.overrides: 'load_from'"),
    ],
)
def test_trust_is_not_a_bundle_s_to_give(change: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match="refused") as caught:
        check_settings(changed(**change), PATH)
    assert key in str(caught.value)


def test_a_file_of_the_reader_s_machine_is_no_base_of_a_bundle() -> None:
    values = changed(base_config="/home/me/config.py")
    with pytest.raises(UserError, match=r"refused: experiments\.e\.base_config: '/home/me/config\.py'"):
        check_settings(values, Path("a.tar"))


def test_a_checkpoint_of_which_the_bundle_has_no_copy_is_refused() -> None:
    values = changed(checkpoint={"path": "results/evil.pth", "sha256": "0" * 64})
    del values["inputs"]["files"]["checkpoint"]
    with pytest.raises(UserError, match=r"experiments\.e\.checkpoint: "):
        check_settings(values, PATH)


def test_every_key_of_the_schema_was_judged() -> None:
    assert set(Dataset.model_fields) <= foreign_runs.DATASET_KEYS
    assert set(Source.model_fields) <= foreign_runs.SOURCE_KEYS
    searching = {"candidates", "budget"}  # provenance has the candidate that was chosen, as any base config
    assert set(Experiment.model_fields) - searching == foreign_runs.EXPERIMENT_KEYS
    assert set(Checkpoint.model_fields) - foreign_runs.CHECKPOINT_KEYS == {"trust_pickle"}


@pytest.mark.parametrize(
    ("dotted", "value"),
    [
        ("inputs.code.commit", "--output=evil"),
        ("inputs.environment.name", "../../evil"),
        ("inputs.files", {"../../evil": {"path": "x", "sha256": "0"}}),
        ("inputs.files.archive.path", ".."),
        ("inputs.files.checkpoint.path", "a/.ssh"),
        ("outputs", {"/etc/passwd": {"sha256": "0"}}),
        ("outputs", {"best.pth": {}}),
        ("inputs.settings.experiments", {}),
        ("inputs.settings.dataset.source", []),
        ("inputs.settings.dataset.source", {"path": 3}),
        ("inputs.settings.dataset.source", {"labels": 3}),
        ("inputs.settings.dataset.source", {"in_place": True}),
        ("circumstances.machine", []),
        ("inputs.training", None),
    ],
)
def test_a_provenance_that_leads_elsewhere_is_one_line(dotted: str, value: Any) -> None:
    values = provenance()
    inner = values
    *above, last = dotted.split(".")
    for key in above:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(UserError) as caught:
        check_provenance(values, PATH)
    assert "\n" not in str(caught.value)


# --- fuzz: 5,000 cases ------------------------------------------------------------------------------------------------

quick = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
words = st.sampled_from(
    ["..", "../../evil", "/etc/passwd", "~/x", "", "\0", "x\ny", "--output=evil", "a" * 300, "e", "load_from",
     "results/x", "{{ x }}", "null", "\u202e", "demo", "none", "zoo", "0" * 64]
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=8)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6
)


@st.composite
def mutated(draw: Any, base: Any, most: int = 3) -> Any:
    """A copy of *base* in which some values, at any depth, are others, gone, or under another key."""
    result = copy.deepcopy(base)
    for _ in range(draw(st.integers(1, most))):
        inner = result
        while isinstance(inner, dict | list) and inner:
            key = draw(st.sampled_from(list(inner) if isinstance(inner, dict) else list(range(len(inner)))))
            if not isinstance(inner[key], dict | list) or not inner[key] or draw(st.integers(0, 3)) == 0:
                what = draw(st.integers(0, 3))
                if what == 0 and isinstance(inner, dict):
                    del inner[key]
                elif what == 1 and isinstance(inner, dict):
                    inner[draw(words)] = inner.pop(key)
                else:
                    inner[key] = draw(anything)
                break
            inner = inner[key]
    return result


@pytest.mark.long
@settings(quick, max_examples=2000)
@given(mutated(provenance()))
def test_any_provenance_is_used_or_refused_in_one_line(values: dict[str, Any]) -> None:
    folder = Path("/nowhere/results/d/e/seed3")
    try:
        check_provenance(values, PATH)
        check_settings(values, PATH)
    except UserError as error:
        assert "\n" not in str(error)
        return
    run = FinishedRun(folder, values)
    for name in run.hashes():
        assert run.file(name).resolve().is_relative_to("/nowhere/results")
    settings_for(run, run.sources())
    first_difference(run.hashes(), {})
    likely_causes("weights", values, values)


@settings(quick, max_examples=500)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f'{{"format": 1, "run": {text}}}'.encode()))
def test_any_bytes_as_a_provenance_are_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "provenance.json"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_provenance(path)
    assert "\n" not in str(caught.value)


lines = st.tuples(st.sampled_from(["0" * 64, "0" * 63, "g" * 64, ""]), st.sampled_from(["  ", " ", "\t"]), words)


@settings(quick, max_examples=1000)
@given(st.lists(lines.map("".join), max_size=4).map("\n".join).map(str.encode) | st.binary(max_size=200))
def test_any_manifest_is_read_or_refused_in_one_line(content: bytes) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo(MANIFEST)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        try:
            names = read_manifest(Path("a.tar"), tar, tar.next())  # type: ignore[arg-type]
        except UserError as error:
            assert "\n" not in str(error)
            return
    assert all(NAME.fullmatch(name) and ".." not in Path(name).parts for name in names)


@pytest.mark.long
@settings(quick, max_examples=1500)
@given(mutated(yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text(encoding="utf-8"))))
def test_any_settings_are_read_or_refused_in_one_line(values: Any) -> None:
    before = set(Path.cwd().iterdir())
    try:
        load_settings(values, ["x.yaml"])
    except UserError as error:
        assert "\n" not in str(error)
    assert set(Path.cwd().iterdir()) == before


def test_a_provenance_nested_without_end_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text('{"format":' + "[" * 100_000)
    with pytest.raises(UserError):
        read_provenance(tmp_path / "provenance.json")
