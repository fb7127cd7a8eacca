"""mimflow deployed by snakedeploy into another folder, and run there by the snakemake of a fresh clone.

The lines are those of docs/snakemake.md. The repository is this working tree; git takes it for the one at the address
that is typed, so that snakedeploy and Snakemake fetch it as they would from there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from dag import ROOT, archive_bytes, jobs_run, settings
from set_up import Clone, another_environment, commit_working_tree, run, shell_block, shell_of_a_user

#: Of one who has rules beside mimflow's: several commands in a shell line, and a product below results/.
RULE_OF_THE_USER = """
rule summary:
    input: "results/small/quick/seed0/metrics.json"
    output: "results/summary.json", "told.txt"
    shell: "cp {input} {output[0]}; echo told > {output[1]}"
"""


@pytest.mark.long
def test_snakedeploy_puts_it_into_another_folder_where_it_runs_beside_rules_of_the_user(
    clone: Clone, tmp_path: Path
) -> None:
    host = "https://github.com/"
    (tmp_path / "gitconfig").write_text(
        f'[url "file://{tmp_path}/hosted/"]\n insteadOf = {host}\n[user]\n name = a\n email = a@b\n', encoding="utf-8"
    )
    environment = shell_of_a_user() | {"HOME": str(clone.home), "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
                                       "XDG_CACHE_HOME": str(tmp_path / "caches")}  # fmt: skip
    commit_working_tree(tmp_path / "hosted/somebody/mimflow", environment)
    of_snakedeploy = {"PATH": f"{another_environment(tmp_path / 'venv')}:{os.environ['PATH']}"}
    lines = "\n".join(shell_block(clone.folder / "docs/snakemake.md", "snakedeploy"))
    for old, new in (("<owner>", "somebody"), ("/path/to/mimflow", str(clone.folder)), (" project", " 'a project'")):
        assert old in lines
        lines = lines.replace(old, new)
    in_clone, deploys, start = re.split(r"\n(?=pip |/)", lines)
    run(["bash", "-euc", in_clone], clone.folder, environment)
    run(["bash", "-euc", deploys], tmp_path, environment | of_snakedeploy)

    folder = tmp_path / "a project"
    assert start.endswith(f" {flags_of_the_catalogue()}")
    snakemake = start.split()
    dry = run([*snakemake, "--dry-run"], folder, environment)  # as deployed: the demo
    assert "describing the images of results/demo" in dry and "writing results/demo/report.html" in dry

    (folder / "data.zip").write_bytes(archive_bytes(["a", "b", "c"]))
    config = settings({"path": "data.zip"})
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with (folder / "workflow" / "Snakefile").open("a", encoding="utf-8") as snakefile:
        snakefile.write(RULE_OF_THE_USER)
    printed = run([*snakemake, "summary"], folder, environment)
    assert {"summary", "train_model", "evaluate_model"} <= set(jobs_run(printed))
    metrics = json.loads((folder / "results" / "summary.json").read_text(encoding="utf-8"))
    assert metrics["experiment"] == "quick" and 0 <= metrics["accuracy_top1"] <= 1
    assert (folder / "told.txt").read_text(encoding="utf-8") == "told\n"
    assert "Nothing to be done" in run([*snakemake, "summary"], folder, environment)

    with (tmp_path / "hosted/somebody/mimflow/rules/data.smk").open("a", encoding="utf-8") as rules:
        rules.write("# of another version\n")
    for words in (["commit", "-q", "-a", "-m", "another"], ["tag", "v0.2.0"]):
        run(["git", *words], tmp_path / "hosted/somebody/mimflow", environment)
    text = (folder / "workflow" / "Snakefile").read_text(encoding="utf-8")
    (folder / "workflow" / "Snakefile").write_text(text.replace("v0.1.0", "v0.2.0"), encoding="utf-8")
    shutil.rmtree(tmp_path / "caches")
    with pytest.raises(AssertionError, match="is of another version of mimflow than the scripts"):
        run([*snakemake, "--dry-run"], folder, environment)


def flags_of_the_catalogue() -> str:
    """Return the options with which the catalogue of workflows says to run it."""
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    flags: str = usage["mandatory-flags"]["flags"]
    return flags
