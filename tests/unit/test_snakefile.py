"""The rules as Snakemake reads them: where each one stands, and that `make watch` knows their logs and outputs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml

from scripts.lib.runs.run_folder import RESERVED_NAMES
from scripts.lib.workflow.progress import CHECKPOINTS, DATA_STEPS, STEPS

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = sorted(path.stem for path in (ROOT / "rules").glob("*.smk"))
#: Prints what Snakemake knows of each rule; a process of its own, since the Snakefile changes the environment.
READER = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings
snakefile, config = map(Path, sys.argv[1:])
sys.argv[1:] = ["--dry-run"]
with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL})) as api:
    read = api.workflow(ResourceSettings(cores=1), ConfigSettings(configfiles=[config]), snakefile=snakefile)
    rules = read._workflow.rules
    print(json.dumps([
        {"name": rule.name, "section": Path(rule.snakefile).stem, "shell": rule.shellcmd or "",
         "outputs": list(map(str, rule.output)), "logs": list(map(str, rule.log))}
        for rule in rules
    ]))
"""
RUN, RUN_LOGS = "results/d/{experiment}/seed{seed}", "logs/d/{experiment}/seed{seed}"
#: What stands for the wildcards of the data rules.
WILDCARDS = {"short_side": "160", "shard": "3of7", "checkpoint": "name-1.0_x"}


@dataclass(frozen=True)
class Rule:
    """A rule with its patterns."""

    name: str
    section: str
    shell: str
    outputs: list[str]
    logs: list[str]


@cache
def rules(*sources: str) -> dict[str, Rule]:
    """Return the rules of a data set whose archives are at these addresses, in the order of the Snakefile."""
    config = {
        "dataset": {"name": "d", "source": [{"url": address} for address in sources]},
        "experiments": {"a": {"base_config": "mobilenet-v2_8xb32_in1k"}},
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [sys.executable, "-c", READER, str(ROOT / "Snakefile"), str(file)]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    # A wildcard bears its constraint: {seed,[0-9]+}.
    read = re.sub(r"\{(\w+),[^{}\"]*\}", r"{\1}", result.stdout.splitlines()[-1])
    return {rule["name"]: Rule(**rule) for rule in json.loads(read)}


def one_archive() -> dict[str, Rule]:
    return rules("http://host/a.zip")


def two_archives() -> dict[str, Rule]:
    return rules("http://host/a.zip", "http://host/b.tar.gz")


@pytest.mark.long
def test_each_rule_is_in_the_section_of_its_script_and_bears_its_name() -> None:
    read = {name: rule for name, rule in one_archive().items() if name != "all"}
    assert len(read) > 20 and {rule.section for rule in read.values()} == set(SECTIONS)
    for rule in read.values():
        assert rule.shell.startswith(f"python -m scripts.{rule.section}.{rule.name} ")
        assert re.fullmatch(r"[a-z]+_[a-z_]+", rule.name)


# --- make watch -------------------------------------------------------------------------------------------------------


def test_watch_knows_what_the_rules_of_a_run_write_and_their_order() -> None:
    read = one_archive()
    for name, (output, _) in STEPS.items():
        assert f"{RUN}/{output}" in read[name].outputs
    assert list(STEPS) == [name for name in read if name in STEPS]


def test_the_log_of_a_rule_of_a_run_is_its_name() -> None:
    of_runs = [rule for rule in one_archive().values() if rule.outputs and rule.outputs[0].startswith(f"{RUN}/")]
    assert len(of_runs) > 10
    assert [rule.logs for rule in of_runs] == [[f"{RUN_LOGS}/{rule.name}.log"] for rule in of_runs]


def steps_of(rule: Rule, fetched: str) -> set[int]:
    """Return the entries of DATA_STEPS that know a rule, one of its outputs and, beside it below logs/, its log."""
    steps = set()
    for pattern in rule.outputs:
        output, log = (text.format(fetched=fetched, **WILDCARDS) for text in (pattern, rule.logs[0]))
        _, folder, name = output.split("/", 2)
        for index, step in enumerate(DATA_STEPS):
            match = step.output.match(name)
            if match and step.rule == rule.name and f"logs/{folder}/{match.expand(step.log)}" == log:
                steps.add(index)
    return steps


@pytest.mark.long
def test_watch_knows_what_the_rules_of_a_data_set_write() -> None:
    # Of the data set's rules, these are nothing that a run waits for.
    only_shown = {"describe_data", "describe_label_suspects", "find_label_suspects"}
    names = {name for name, rule in one_archive().items() if rule.section == "data"} - only_shown
    known = set()
    for name in (*names, "fetch_checkpoint"):
        for read in (one_archive(), two_archives()):
            steps = steps_of(read[name], "archive_1.tar.gz")
            assert steps, name
            known |= steps
    assert known == set(range(len(DATA_STEPS)))


def test_no_experiment_can_be_named_as_a_folder_that_rules_write() -> None:
    outputs = [Path(output).parts[1:] for rule in one_archive().values() for output in rule.outputs]
    folders = {CHECKPOINTS, "images"} | {parts[1] for parts in outputs if parts[0] == "d" and len(parts) > 2}
    assert folders - {"{experiment}"} == RESERVED_NAMES


# --- as a module ------------------------------------------------------------------------------------------------------

MODULE = """
configfile: {config!r}

module mimflow:
    snakefile: {snakefile!r}
    config: config

use rule * from mimflow as mimflow_*

rule mine:
    default_target: True
    input: rules.mimflow_all.input
    output: "mine.txt"
    shell: "touch {{output}}"
"""


def as_module(folder: Path, more: str = "", code: str = "") -> str:
    """Return what a dry run of a workflow that uses the rules prints; it need not succeed."""
    text = MODULE.format(config=str(ROOT / "configs/demo.yaml"), snakefile=str(ROOT / "Snakefile"))
    (folder / "Snakefile").write_text(text.replace("config: config", f"config: config\n    {more}"), encoding="utf-8")
    program = [sys.executable, "-c", code] if code else [str(Path(sys.executable).with_name("snakemake"))]
    command = [*program, "--dry-run", "--cores", "1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SNAKEMAKE_")}
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment)
    return result.stdout + result.stderr


@pytest.mark.long
def test_another_workflow_can_use_the_rules_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()  # of the other workflow
    printed = as_module(tmp_path)
    for words in ("describing the images of results/demo", "comparing the runs of results/demo", "mimflow_train_model"):
        assert words in printed


@pytest.mark.long
def test_what_a_module_cannot_be_is_one_line(tmp_path: Path) -> None:
    assert error_of(as_module(tmp_path, more="prefix: 'other'")).startswith("`prefix` or `replace_prefix`")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "__init__.py").touch()
    assert error_of(as_module(tmp_path)).startswith("scripts/ of this folder is a Python package")
    no_mmcls = "import importlib.util as u, snakemake.cli; find = u.find_spec\n"
    no_mmcls += "u.find_spec = lambda name, *more: None if name == 'mmcls' else find(name, *more)\nsnakemake.cli.main()"
    assert error_of(as_module(tmp_path, code=no_mmcls)).startswith("this Snakemake has no mimflow beside it")


def error_of(printed: str) -> str:
    assert "Traceback" not in printed and printed.count("error: ") == 1, printed
    return printed.partition("error: ")[2]
