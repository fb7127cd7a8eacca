"""What verify compares, in which order, and what it says of the cause."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.lib.base.problems import UserError
from scripts.lib.model.model_zoo import checkpoint_name
from scripts.lib.workflow.repetition import (
    STAGES,
    Difference,
    FinishedRun,
    changed_keys,
    first_difference,
    lay_out,
    likely_causes,
    scratch_folder,
    settings_for,
)

NAMES = [name for names in STAGES.values() for name in names]


def provenance() -> dict[str, Any]:
    files = {name: {"path": f"elsewhere/{name}", "sha256": name} for name in [*NAMES[:6], "config.py"]}
    files["archive"]["path"] = "results/d/archive.tar"
    files["checkpoint"] = {"path": "results/checkpoints/x-1.pth", "sha256": "file", "weights_sha256": "tensors"}
    experiment = {"base_config": "resnet18_8xb32_in1k", "device": "auto", "checkpoint": {"url": "https://x.org/a.pth"}}
    return {
        "inputs": {
            "training": {"seed": 3, "device": "cuda", "threads": 2, "deterministic": True},
            "settings": {
                "dataset": {"name": "d", "source": {"url": "https://x.org/a.tar"}},
                "experiments": {"e": experiment},
                "seeds": [3],
            },
            "files": files,
            "code": {"commit": "c" * 40, "dirty": False, "sha256": "1"},
            "versions": {"numpy": "2.0", "torch": "2.13.0", "pillow": "13"},
            "environment": {"name": "cpu", "lock_sha256": "1"},
        },
        "outputs": {},
        "circumstances": {
            "training": {"nondeterministic_operations": []},
            "machine": {
                "gpus": [{"name": "RTX 3090"}], "tf32": {"matmul": False, "cudnn": True}, "cuda": "13.0", "cudnn": 9,
                "driver": "550", "kernels": "AVX2", "cpu": "EPYC", "instruction_sets": ["avx", "avx2"], "variables": {},
            },
        },
    }  # fmt: skip


def test_the_files_of_a_fold_are_found_where_they_lie(tmp_path: Path) -> None:
    for name in ("d/e/seed3", "d/e/seed3/fold1"):
        run = FinishedRun(tmp_path / name, provenance())
        splits = tmp_path / "d/splits" / ("fold1" if "fold" in name else "")
        assert run.name == name and run.dataset == tmp_path / "d"
        assert (
            run.file("splits/val.txt") == splits / "val.txt" and run.file("classes.txt") == tmp_path / "d/classes.txt"
        )
        assert run.file("archive") == tmp_path / "d/archive.tar" and run.file("best.pth") == run.folder / "best.pth"
        assert run.file("checkpoint") == tmp_path / "checkpoints/x-1.pth"


def changed(*values: tuple[str, Any]) -> dict[str, Any]:
    """Return the provenance with other values at dotted keys."""
    result = copy.deepcopy(provenance())
    for dotted, value in values:
        inner = result
        *above, last = dotted.split(".")
        for key in above:
            inner = inner[key]
        inner[last] = value
    return result


def test_the_first_stage_that_differs_is_the_earliest_one_made() -> None:
    hashes = dict.fromkeys(NAMES, "1")
    assert first_difference(hashes, dict(hashes)) is None
    assert first_difference(hashes, hashes | {"metrics.json": "2", "last.pth": "2"}) == ("weights", ["last.pth"])
    without = {name: "1" for name in NAMES if name != "splits/val.txt"}
    assert first_difference(hashes, without) == ("splits", ["splits/val.txt"])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("inputs.versions", {"numpy": "2.0", "torch": "2.0.1", "pillow": "13"}, "torch 2.13.0 then, 2.0.1 now"),
        ("circumstances.machine.gpus", [{"name": "H200"}], "another GPU: RTX 3090 then, H200 now"),
        ("circumstances.machine.gpus", [], "another GPU: RTX 3090 then, none now"),
        ("circumstances.machine.tf32", {"matmul": True, "cudnn": True}, "TF32: "),
        ("circumstances.machine.driver", "560", "another GPU driver: 550 then, 560 now"),
        ("circumstances.machine.kernels", "AVX512", "other CPU kernels: AVX2 then, AVX512 now"),
        ("circumstances.machine.instruction_sets", ["avx"], "another instruction set: avx2 on one"),
        ("circumstances.machine.cpu", "Xeon", "another processor: EPYC then, Xeon now"),
        ("circumstances.machine.variables", {"MKL_CBWR": "AVX"}, "variables: MKL_CBWR= then, AVX now"),
        ("circumstances.training.nondeterministic_operations", ["scatter_cuda"], "deterministic form: scatter_cuda"),
        ("inputs.code", {"commit": "d" * 40, "dirty": True, "sha256": "2"}, "dddddddddddd with changes now"),
        ("inputs.environment", {"name": "cuda11", "lock_sha256": "2"}, "another lock: environment cpu then, cuda11"),
    ],
)
def test_what_changed_is_named_as_the_cause(key: str, value: Any, words: str) -> None:
    (cause,) = likely_causes("weights", provenance(), changed((key, value)))
    assert words in cause


def test_another_torch_comes_before_the_machine_and_the_machine_before_the_code() -> None:
    machine = ("circumstances.machine.kernels", "AVX512")
    code = ("inputs.code.sha256", "2")
    causes = likely_causes("predictions", provenance(), changed(code, machine, ("inputs.versions.torch", "2.0.1")))
    assert [cause.split()[1] for cause in causes] == ["versions:", "CPU", "code:"]
    causes = likely_causes("weights", provenance(), changed(code, machine, ("inputs.versions.numpy", "1.26")))
    assert [cause.split()[1] for cause in causes] == ["CPU", "versions:", "code:"]


def test_the_machine_is_no_cause_for_splits_nor_for_the_config() -> None:
    after = changed(("circumstances.machine.kernels", "AVX512"), ("inputs.versions.torch", "2.0.1"))
    for stage in ("splits", "config"):
        assert likely_causes(stage, provenance(), after) == [
            "nothing on record differs: please report this as a defect of mimflow"
        ]
    drawn = changed(("inputs.versions.pillow", "11"))
    assert "pillow 13 then, 11 now" in likely_causes("archive", provenance(), drawn)[0]


def test_a_run_without_the_promise_of_equal_bits_says_so() -> None:
    before = changed(("inputs.training.deterministic", False))
    assert "deterministic: false" in likely_causes("weights", before, provenance())[0]
    assert "faulty memory" in likely_causes("weights", provenance(), provenance())[0]


def test_a_gpu_is_no_cause_for_a_run_on_the_cpu() -> None:
    before = changed(("inputs.training.device", "cpu"))
    assert "nothing on record" in likely_causes("weights", before, changed(("circumstances.machine.gpus", [])))[0]


def test_the_outcome_is_one_line_a_cause() -> None:
    text = str(Difference("weights", ["best.pth", "last.pth"], ["a", "b"]))
    assert text == "differs: weights (best.pth, last.pth)\nlikely cause: a\nor: b"


def test_keys_of_configs_that_differ_are_named_as_deep_as_they_go() -> None:
    config = {"a": {"b": {"c": 1}, "d": [1]}, "e": 1}
    assert changed_keys(config, {"a": {"b": {"c": 2}, "d": [2]}, "e": 1, "f": None}) == ["a.b.c", "a.d"]
    assert changed_keys(config, config) == []


def test_files_are_found_where_the_results_lie_now() -> None:
    run = FinishedRun(Path("/moved/d/e/seed3"), provenance())
    assert run.name == "d/e/seed3"
    assert run.file("archive") == Path("/moved/d/archive.tar")
    assert run.file("checkpoint") == Path("/moved/checkpoints/x-1.pth")
    assert run.file("splits/val.txt") == Path("/moved/d/splits/val.txt")
    assert run.file("best.pth") == Path("/moved/d/e/seed3/best.pth")
    assert run.hashes()["checkpoint"] == "tensors"


def test_it_is_repeated_on_the_device_and_from_the_weights_of_the_run() -> None:
    run = FinishedRun(Path("/moved/d/e/seed3"), provenance())
    settings = settings_for(run, {"path": "inputs/archive.tar"})
    experiment = settings["experiments"]["e"]
    assert experiment["device"] == "cuda" and settings["dataset"]["source"] == {"path": "inputs/archive.tar"}
    # config.py holds the name of the weights: it must stay, whatever it was made of.
    assert checkpoint_name(experiment["checkpoint"], "resnet18_8xb32_in1k") == "x-1"
    assert run.provenance == provenance(), "the record itself is left alone"


def test_images_are_fetched_from_the_source_against_their_hash_or_asked_for(tmp_path: Path) -> None:
    record = provenance()
    del record["inputs"]["files"]["checkpoint"]
    run = FinishedRun(tmp_path / "d/e/seed3", record)
    assert "sha256: archive\n" in lay_out(run, tmp_path, None).read_text()
    record["inputs"]["settings"]["dataset"]["source"] = {"path": "/data/a.tar"}
    with pytest.raises(UserError, match="IMAGES=FILE"):
        lay_out(run, tmp_path, None)


def several(tmp_path: Path) -> FinishedRun:
    """A run on a folder in place with a table beside it, and on an archive with annotation files in it."""
    record = provenance()
    files = record["inputs"]["files"]
    del files["archive"], files["checkpoint"]
    names = {"archive_0": "archive_0.jsonl", "archive_1": "archive_1.bin", "labels_0.csv": "labels_0.csv"}
    record["inputs"]["files"] = {name: {"path": f"r/d/{path}", "sha256": name} for name, path in names.items()} | files
    record["inputs"]["settings"]["dataset"]["source"] = [
        {"path": "photos", "in_place": True, "labels": "/home/me/my labels.csv", "split": "train"},
        {"url": "https://x.org/a", "labels": {"test": "t.txt"}, "mirrors": []},
    ]
    (tmp_path / "d").mkdir()
    (tmp_path / "photos").mkdir()
    for path in (*names.values(), "photos.tar"):
        (tmp_path / "d" / path).write_text(path)
    return FinishedRun(tmp_path / "d/e/seed3", record)


def laid_out(run: FinishedRun, scratch: Path, archives: dict[str, Path]) -> list[dict[str, Any]]:
    settings = yaml.safe_load(lay_out(run, scratch, archives).read_text(encoding="utf-8"))
    sources: list[dict[str, Any]] = settings["dataset"]["source"]
    return sources


def test_several_archives_and_labels_are_laid_out_under_the_names_that_they_had(tmp_path: Path) -> None:
    run, folder, scratch = several(tmp_path), tmp_path / "d", tmp_path / "s"
    assert (run.archives, run.label_files) == (["archive_0", "archive_1"], ["labels_0.csv"])
    archives = {"archive_0": tmp_path / "photos", "archive_1": folder / "archive_1.bin"}
    second = {"path": "inputs/archive_1.bin", "labels": {"test": "t.txt"}}
    labels = {"labels": "inputs/labels_0.csv", "split": "train"}
    assert laid_out(run, scratch, archives) == [
        {"path": str(tmp_path / "photos"), "in_place": True, **labels}, second,
    ]  # fmt: skip
    assert (scratch / "inputs/labels_0.csv").read_text() == "labels_0.csv"
    # The folder as a tar, and an archive that its owner calls otherwise.
    archives = {"archive_0": folder / "photos.tar", "archive_1": folder / "photos.tar"}
    assert laid_out(run, scratch, archives) == [{"path": "inputs/archive_0.tar", **labels}, second]


@pytest.mark.parametrize("key", ["split", "part"])
def test_a_source_stays_what_it_is_for_under_its_name_of_today_and_of_earlier_runs(tmp_path: Path, key: str) -> None:
    run = several(tmp_path)
    sources = run.provenance["inputs"]["settings"]["dataset"]["source"]
    sources[1][key] = "test"
    archives = {name: run.file(name) for name in run.archives}
    assert laid_out(run, tmp_path / "s", archives)[1][key] == "test"


def test_labels_of_a_foreign_run_are_never_read_from_elsewhere(tmp_path: Path) -> None:
    run = several(tmp_path)
    del run.provenance["inputs"]["files"]["labels_0.csv"]
    archives = {name: run.file(name) for name in run.archives}
    with pytest.raises(UserError, match=r"'/home/me/my labels\.csv' is a file elsewhere"):
        lay_out(run, tmp_path / "s", archives)


def test_any_archive_and_any_labels_are_the_first_stage() -> None:
    hashes = {"archive_0": "1", "archive_1": "2", "labels_0.csv": "3", "config.py": "4"}
    for name in list(hashes)[:3]:
        assert first_difference(hashes, {**hashes, name: "x", "config.py": "x"}) == ("archive", [name])
    assert first_difference(hashes, hashes) is None


def test_the_scratch_folder_stays_only_when_there_is_something_to_look_at(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, "verify") as gone:
        (gone / "logs").mkdir()
    assert not (tmp_path / ".scratch").exists()
    with pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path, "verify") as gone:
        (gone / "logs").mkdir()
        raise KeyboardInterrupt
    assert not (tmp_path / ".scratch").exists()
    with scratch_folder(tmp_path, "verify") as kept:
        (kept / ".keep").touch()
    with pytest.raises(UserError), scratch_folder(tmp_path, "verify") as failed:
        (failed / "logs").mkdir()
        raise UserError("no")
    assert kept.is_dir() and failed.is_dir() and kept != failed
