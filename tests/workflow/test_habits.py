"""What people type who come from other tools, as docs/ says it, in a fresh clone with finished runs."""

from __future__ import annotations

import json
import re
import sys
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_files import own_file
from dag import QUICK
from mmcv import Config
from set_up import Clone, another_environment, run, shell_block, shell_of_a_user

pytestmark = pytest.mark.long


# --- OpenMMLab's ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", ["quick", "own"])
def test_mim_test_as_the_page_types_it_prints_the_accuracy_of_metrics_json(clone: Clone, experiment: str) -> None:
    lines = "\n".join(shell_block(clone.folder / "docs/openmmlab.md", "mim test"))
    assert "mine/mobilenet-v2/" in lines
    printed = clone.typed(lines.replace("mine/mobilenet-v2/", f"mine/{experiment}/"))
    (accuracy,) = re.findall(r"^accuracy_top-1 : ([\d.]+)$", printed, re.MULTILINE)
    assert float(accuracy) == pytest.approx(100 * clone.metrics(experiment)["accuracy_top1"], abs=0.005)


def test_a_config_file_of_ones_own_is_trained_for_as_long_as_it_says(clone: Clone) -> None:
    log = (clone.folder / "results/mine/own/seed0/train_log.csv").read_text(encoding="utf-8")
    assert len(log.splitlines()) == 1 + 2  # its header, and an epoch each


def test_the_commands_of_the_table_for_users_of_mmcls_work(clone: Clone) -> None:
    page = (clone.folder / "docs/openmmlab.md").read_text(encoding="utf-8")
    spans = re.findall(
        r"`((?:make|\.venv/bin/python|snakemake) [^`]+)`", "\n".join(re.findall(r"^\|.*\|$", page, re.M))
    )
    for old, new in (("/NAME/", "/quick/"), ("=photos", "=results/mine/images"), ("=new.zip", "=photos.zip"),
                     ("--profile slurm", "--profile slurm --dry-run")):  # fmt: skip
        spans = [span.replace(old, new) for span in spans]
    typed = {" ".join(span.split()[:2]): span for span in spans if len(span.split()) > 2}
    assert {"make fetch", "make run", "make evaluate", "make predict", "snakemake --profile"} <= typed.keys()
    assert "resnet18_8xb32_in1k" in clone.typed(next(span for span in spans if "model_zoo" in span))
    assert "nothing to do" in clone.typed(typed["make run"])
    clone.typed(typed["make fetch"])
    assert "accuracy" in clone.typed(typed["make evaluate"])
    assert "30 images" in clone.typed(typed["make predict"])
    assert "Nothing to be done" in clone.typed(f".venv/bin/{typed['snakemake --profile']}")


def test_the_yaml_of_the_table_for_users_of_mmcls_is_what_config_py_then_says(clone: Clone, tmp_path: Path) -> None:
    page = (clone.folder / "docs/openmmlab.md").read_text(encoding="utf-8")
    right = "\n".join(re.findall(r"^\|.*\|([^|]*)\|$", page, re.MULTILINE))
    cells = [content for span in re.findall(r"`([^`]+)`", right) if isinstance(content := yaml.safe_load(span), dict)]
    names = ["source", "zoo", "file", "overrides", "checkpoint", "gpus", "seeds", "deterministic", "auto", "folds"]
    cell = dict(zip(names, cells, strict=True))
    dataset = cell["source"]["dataset"]
    (tmp_path / dataset["source"]["path"]).symlink_to(clone.folder / "photos.zip")
    own_file((tmp_path / cell["file"]["base_config"]).parent, name="config.py")
    weights = cell["checkpoint"]["checkpoint"]["path"]
    (tmp_path / weights).symlink_to(clone.folder / "results/mine/quick/seed0/best.pth")

    def configs(seeds: dict[str, Any] | None = None, data: dict[str, Any] | None = None,
                **experiments: dict[str, Any]) -> list[Config]:  # fmt: skip
        """Return config.py of each run of these experiments, in their order."""
        config = {"dataset": dataset | (data or {}), "experiments": experiments, **(seeds or {})}
        (tmp_path / "table.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        clone.typed(f"{program} --until patch_config", tmp_path)
        return [Config.fromfile(str(file)) for name in experiments
                for file in sorted((tmp_path / "results" / dataset["name"] / name).rglob("config.py"))]  # fmt: skip

    program = f"{clone.folder}/.venv/bin/snakemake --snakefile {clone.folder}/Snakefile --profile local"
    program += " --configfile table.yaml"
    scratch, narrow = {"checkpoint": "none", "device": "cpu", "batch_size": 8}, QUICK | {"batch_size": 4}
    plain, changed, by_file, continued, parallel = configs(
        plain=cell["zoo"] | scratch, changed=cell["zoo"] | scratch | cell["overrides"], by_file=cell["file"] | scratch,
        continued=narrow | cell["checkpoint"], parallel=narrow | cell["gpus"],
    )  # fmt: skip
    assert (plain.model.backbone.depth, plain.model.head.num_classes) == (18, 3)
    for key, value in cell["overrides"]["overrides"].items():
        assert reduce(getitem, key.split("."), changed) == value
    assert by_file.optimizer.lr == 0.0005, "as the file says"
    assert continued.load_from and plain.load_from is None
    assert len(list((tmp_path / "results/checkpoints").glob(f"{Path(weights).stem}-*.pth"))) == 1
    assert parallel.runner.gpus == cell["gpus"]["gpus"] and plain.runner.get("gpus", 1) == 1
    repeated = configs(seeds=cell["seeds"], repeated=QUICK | cell["deterministic"])
    assert [config.seed for config in repeated] == cell["seeds"]["seeds"]
    assert all(config.runner.deterministic for config in repeated)
    assert len(configs(folded=QUICK, data=cell["folds"]["dataset"])) == 5

    searched = {"dataset": dataset, "experiments": {"net": cell["auto"]}}
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(searched), encoding="utf-8")
    assert re.search(r"^choose_model +1 ", clone.typed(f"{program} -n", tmp_path), re.MULTILINE)


# --- every day's ------------------------------------------------------------------------------------------------------


def test_preview_time_limit_gpu_and_clean_are_typed_as_the_page_says(clone: Clone) -> None:
    page = clone.folder / "docs/tasks.md"

    def typed(word: str, *renamed: tuple[str, str]) -> str:
        lines = "\n".join(shell_block(page, word))
        for old, new in (("mobilenet-v2", "quick"), *renamed):
            lines = lines.replace(old, new)
        return clone.typed(lines)

    assert "preview.png" in typed("make preview")
    assert (clone.folder / "results/mine/quick/seed0/preview.png").is_file()
    assert "nothing to do" in typed("timeout ")
    assert typed("CUDA_VISIBLE_DEVICES").count("nothing to do") == 2
    clone.typed("cp -a results/mine results/other")
    typed("make clean", ("/mine", "/other"), ("seed0", "seed0 ARGS=--yes"), ("other\n", "other ARGS=--yes\n"))
    assert not (clone.folder / "results/other").exists() and (clone.folder / "results/mine/quick/seed0").is_dir()


def test_training_goes_on_from_finished_weights_as_the_page_writes_it(clone: Clone) -> None:
    page = (clone.folder / "docs/tasks.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(longer: .*?)^```", page, re.MULTILINE | re.DOTALL)
    experiment = yaml.safe_load(block.replace("mobilenet-v2/", "quick/"))["longer"]
    config = yaml.safe_load((clone.folder / "configs/mine.yaml").read_text(encoding="utf-8"))
    config["dataset"]["name"] = "tasks"
    config["experiments"] = {"longer": QUICK | experiment | {"epochs": 2}}
    (clone.folder / "configs/tasks.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    clone.typed("make run CONFIG=configs/tasks.yaml ARGS='--until train_model'")
    log = (clone.folder / "results/tasks/longer/seed0/train_log.csv").read_text(encoding="utf-8").splitlines()
    assert log[-1].startswith("2,") and list((clone.folder / "results/checkpoints").glob("mine-quick-seed0-*.pth"))
    assert "load_from = None" not in (clone.folder / "results/tasks/longer/seed0/config.py").read_text(encoding="utf-8")


# --- Snakemake's ------------------------------------------------------------------------------------------------------


def test_snakemake_is_typed_in_the_clone_and_in_another_folder(clone: Clone, tmp_path: Path) -> None:
    lines = "\n".join(shell_block(clone.folder / "docs/snakemake.md", "--profile local"))
    assert "nothing to do: " in clone.typed(lines)
    program = f"{clone.folder}/.venv/bin/snakemake --snakefile {clone.folder}/Snakefile --profile local"
    (tmp_path / "photos.zip").symlink_to(clone.folder / "photos.zip")
    config = yaml.safe_load((clone.folder / "configs/mine.yaml").read_text(encoding="utf-8"))
    del config["experiments"]["own"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert "split 30 images" not in (plan := clone.typed(f"{program} --configfile mine.yaml -n", tmp_path))
    assert "train_model" in plan
    clone.typed(f"{program} --configfile mine.yaml --until split_dataset", tmp_path)
    assert (tmp_path / "results/mine/splits/test.txt").is_file()


def test_it_is_a_module_of_another_workflow_as_the_page_writes_it_and_sdm_changes_nothing(
    clone: Clone, tmp_path: Path
) -> None:
    page = (clone.folder / "docs/snakemake.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    rule = 'rule summary:\n    output: "summary.txt"\n    input: "results/mine/quick/seed0/metrics.json"\n'
    rule += '    shell: "cp {input} {output}"\n'
    (tmp_path / "Snakefile").write_text(block.replace("/path/to/mimflow", str(clone.folder)) + rule, encoding="utf-8")
    config = yaml.safe_load((clone.folder / "configs/mine.yaml").read_text(encoding="utf-8"))
    del config["experiments"]["own"]
    config["dataset"]["source"]["path"] = str(clone.folder / "photos.zip")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    clone.typed(f"{clone.folder}/.venv/bin/snakemake summary.txt --cores 2 --sdm apptainer", tmp_path)
    metrics = json.loads((tmp_path / "summary.txt").read_text(encoding="utf-8"))
    assert metrics["accuracy_top1"] == clone.metrics("quick")["accuracy_top1"]


# --- of hubs, citations and licenses ----------------------------------------------------------------------------------


def test_the_hub_s_own_reader_understands_the_model_card(clone: Clone, tmp_path: Path) -> None:
    programs = another_environment(tmp_path / "hub", "huggingface_hub")
    code = (
        "import sys, json, huggingface_hub; data = huggingface_hub.ModelCard.load(sys.argv[1]).data; "
        "print(json.dumps([data.license, data.library_name, data.pipeline_tag, data.model_name, "
        "{result.metric_name: result.metric_value for result in data.eval_results}]))"
    )
    page = clone.folder / "results/mine/quick/seed0/model_card.md"
    read = json.loads(run([str(programs / "python"), "-c", code, str(page)], tmp_path, shell_of_a_user()))
    metrics = clone.metrics("quick")
    assert read[:4] == ["unknown", "mmcls", "image-classification", "quick-seed0"]
    assert read[4]["accuracy_top1"] == metrics["accuracy_top1"] and read[4]["f1_macro"] == metrics["f1_macro"]


def test_the_citation_is_valid_and_becomes_bibtex(clone: Clone, tmp_path: Path) -> None:
    cffconvert = another_environment(tmp_path / "cff", "cffconvert") / "cffconvert"
    assert "valid" in run([str(cffconvert), "--validate"], clone.folder, shell_of_a_user()).lower()
    bibtex = run([str(cffconvert), "-f", "bibtex"], clone.folder, shell_of_a_user())
    assert "The mimflow authors" in bibtex and "mimflow: from a folder of labelled images" in bibtex


def test_the_licenses_of_the_alternatives_are_those_of_their_packages(clone: Clone, tmp_path: Path) -> None:
    page = (clone.folder / "docs/alternatives.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"\(ultralytics [^)]*\)", page)
    packages = [pair.lower().replace(" ", "==") for pair in listed.strip("()").split(", ")]
    stated = {name.lower(): license for name, license in re.findall(r"^\| \[([\w-]+)\]\S+ \| ([\w.-]+)", page, re.M)}
    assert {package.partition("==")[0] for package in packages} == stated.keys()
    options = ["-q", "--dry-run", "--no-deps", "--ignore-installed", "--report", str(tmp_path / "report.json")]
    pip = [sys.executable, "-m", "pip", "install"]
    run([*pip, *options, *packages], tmp_path, shell_of_a_user())
    for package in json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["install"]:
        data = package["metadata"]
        name = data["name"].lower().replace("_", "-")
        words = " ".join([data.get("license", ""), data.get("license_expression", ""), *data.get("classifier", [])])
        expected = {"AGPL-3.0": r"AGPL|Affero", "Apache-2.0": r"Apache"}[stated[name]]
        assert re.search(expected, words), (name, words)
