"""What people read first must be true: both READMEs show the same commands, and what they and docs/ name exists."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import itertools
import re
import runpy
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from scripts.lib.metrics.cost import COLUMNS as COST_COLUMNS
from scripts.lib.metrics.metrics import compute_metrics, per_class_table
from scripts.lib.runs.predictions import Predictions
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.settings.load import load_settings

ROOT = Path(__file__).resolve().parents[2]
READMES = ("README.md", "README.zh-CN.md")
PAGES = [
    *READMES,
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "config/README.md",
    *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")),
]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def snakefiles() -> str:
    """Return the Snakefile and all that it includes."""
    files = [ROOT / "Snakefile", *sorted(ROOT.glob("rules/*.smk"))]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)


def scripts() -> list[str]:
    """Return the modules that are commands of mimflow's own.

    `start` and `mim` have the options of other programs; the workflow starts its forks by itself.
    """
    others = {"start.py", "mim.py", "fork_client.py", "fork_server.py", "job_step.py"}
    paths = sorted(path for path in (ROOT / "scripts").rglob("*.py") if path.name not in others)
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in paths
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    ]


# --- both READMEs -----------------------------------------------------------------------------------------------------


def commands(page: str) -> list[str]:
    """Return the lines of the shell blocks; what stands in <angle brackets> is for people and may be translated."""
    lines = "".join(blocks(page, "sh")).splitlines()
    return [re.sub(r"<[^>]*>", "<>", line) for line in lines]


def test_both_readmes_show_the_same_commands_in_the_same_order() -> None:
    assert commands("README.md")
    assert commands("README.zh-CN.md") == commands("README.md")


@pytest.mark.parametrize("language", ["yaml", "mermaid"])
def test_both_readmes_show_the_same_settings_and_picture(language: str) -> None:
    assert blocks("README.zh-CN.md", language) == blocks("README.md", language)


def test_both_readmes_have_the_same_sections() -> None:
    depths = [re.findall(r"^(#+) ", re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL), re.M) for page in READMES]
    assert depths[0] == depths[1]


def test_both_readmes_explain_the_same_error_lines() -> None:
    assert explained("README.zh-CN.md") == explained("README.md")


# --- what the pages name exists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_make_command_is_in_the_makefile(page: str) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", text_of("Makefile"), re.MULTILINE))
    code = "\n".join([*re.findall(r"^```\w*\n(.*?)^```", text_of(page), re.M | re.S), *code_spans(page)])
    named = set(re.findall(r"(?:^|[\s;&])make ([a-z][a-z-]*)", code, re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_file_and_anchor_exists(page: str) -> None:
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}, link


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_the_repository_that_is_named_exists(page: str) -> None:
    for name in code_spans(page):
        if re.fullmatch(r"(scripts|configs|docs|profiles|envs|tests|\.ci)/[\w./-]+", name) and "mine" not in name:
            assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES)
def test_every_script_that_is_named_exists(page: str) -> None:
    assert set(re.findall(r"python -m (scripts\.[\w.]*\w)", text_of(page))) <= set(scripts())


def code_spans(page: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", [*READMES, "docs/your-data.md", "docs/reproducibility.md"])
def test_every_example_of_settings_is_accepted(page: str, tmp_path: Path) -> None:
    examples = blocks(page, "yaml")
    assert examples
    file = tmp_path / "mine.zip"
    file.touch()
    for example in examples:
        # A name without a suffix is a folder.
        here = re.sub(r"/data/[\w-]+(\.[\w.-]+)?", lambda match: str(file if match[1] else tmp_path), example)
        config = yaml.safe_load(here)
        # An excerpt shows one section: the rest is what the least configuration has.
        config.setdefault("dataset", {"name": "mine", "source": {"path": str(file)}})
        config["dataset"].setdefault("name", "mine")
        config["dataset"].setdefault("source", {"path": str(file)})
        config.setdefault("experiments", {"a": {"base_config": "mobilenet-v2_8xb32_in1k"}})
        load_settings(config, [tmp_path / "mine.yaml"])


# --- the table of errors ----------------------------------------------------------------------------------------------


def explained(page: str) -> list[str]:
    """Return the lines of the table of errors, as a user sees them."""
    rows = [line for line in text_of(page).splitlines() if line.startswith("| `")]
    shown = [row.split("|")[1].strip().strip("`") for row in rows]
    start = next(index for index, line in enumerate(shown) if line.startswith("unknown key"))
    return shown[start:]


@cache
def texts_of_code() -> str:
    """Return every text that the code can say, parts of one f-string with a gap between them."""
    import snakemake.exceptions

    files = [*ROOT.glob("scripts/**/*.py"), *ROOT.glob("envs/*.py"), Path(snakemake.exceptions.__file__)]
    texts = [(ROOT / "envs" / "find_python.sh").read_text(encoding="utf-8")]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [value.value if isinstance(value, ast.Constant) else "\0" for value in node.values]
                texts.append("".join(map(str, parts)))
    return "\n".join(texts)


@pytest.mark.long
@pytest.mark.parametrize("line", explained("README.md"))
def test_every_explained_error_is_one_that_the_code_says(line: str) -> None:
    for piece in re.split(r"\.\.\.|nan", line):
        assert piece.strip(" ,") in texts_of_code()


# --- the picture of the workflow --------------------------------------------------------------------------------------

Edges = set[tuple[str, str]]


def drawn_edges(page: str) -> Edges:
    """Return the arrows of the picture; a line may hold a chain of them."""
    (picture,) = blocks(page, "mermaid")
    edges: Edges = set()
    for line in picture.splitlines():
        nodes = [re.sub(r"\[.*", "", node).strip() for node in line.split("-->")]
        edges |= set(itertools.pairwise(nodes))
    return edges


def rulegraph(folder: Path) -> Edges:
    """Return what Snakemake says that depends on what, where every rule has its part."""
    config = yaml.safe_load(text_of("configs/demo.yaml"))
    for experiment in config["experiments"].values():
        experiment["recipe"] = "fast"
    config["experiments"]["best"] = {"base_config": "auto"}
    config["data_shards"] = 2
    (folder / "fast.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("snakemake")), "--profile", "profiles/local"]
    command += ["--configfile", str(folder / "fast.yaml")]
    result = subprocess.run(
        [*command, "--rulegraph", "mermaid-js"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    names = dict(re.findall(r"^\s*(id\d+)\[(\w+)\]", result.stdout, re.MULTILINE))
    return {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", result.stdout)}


def reachable(edges: Iterable[tuple[str, str]]) -> Edges:
    """Return the transitive closure."""
    closure = set(edges)
    while more := {(a, d) for a, b in closure for c, d in closure if b == c} - closure:
        closure |= more
    return closure


def test_the_picture_has_every_rule_of_the_snakefile_and_no_other() -> None:
    rules = set(re.findall(r"^rule (\w+):", snakefiles(), re.MULTILINE))
    (picture,) = blocks("README.md", "mermaid")
    stages = set(re.findall(r"subgraph (\w+)", picture))
    words = set(re.findall(r"[a-z_]+", re.sub(r"\[.*?\]", "", picture))) - {"flowchart", "subgraph", "end"}
    assert words - stages - rules == set() and rules <= words


@pytest.mark.long
def test_the_arrows_of_the_picture_are_the_dependencies_of_the_rules(tmp_path: Path) -> None:
    assert reachable(drawn_edges("README.md")) == reachable(rulegraph(tmp_path))


# --- help of the scripts ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("module", scripts())
def test_every_script_has_a_help_that_begins_with_what_it_is_for(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # In this process, as `python -m` runs it: a process each would load torch and matplotlib twenty times.
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.setenv("COLUMNS", "1000")
    output = io.StringIO()
    with pytest.raises(SystemExit) as end, contextlib.redirect_stdout(output):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert end.value.code == 0
    docstring = ast.get_docstring(ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")))
    assert f"\n\n{(docstring or '').splitlines()[0]}" in output.getvalue()


@pytest.mark.parametrize("module", scripts())
def test_every_option_of_every_script_is_explained(module: str) -> None:
    parser = importlib.import_module(module).build_parser()
    assert parser.description
    assert [action.dest for action in parser._actions if not action.help] == []


# --- docs/results.md --------------------------------------------------------------------------------------------------


def small_predictions() -> Predictions:
    labels = np.array([0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    return Predictions(["a.jpg", "b.jpg", "c.jpg"], labels, probabilities.argmax(axis=1), probabilities, ["x", "y"])


def leaderboard_columns() -> list[str]:
    from scripts.lib.metrics.leaderboard import compare
    from scripts.lib.metrics.paired import Correct

    columns = (
        "accuracy_top1", "accuracy_top5", "f1_macro", "ece", "accuracy_majority",
        "val_accuracy_best", "train_seconds", "images_per_second", *COST_COLUMNS,
    )  # fmt: skip
    run = dict.fromkeys(columns, 0.5) | {"experiment": "a", "seed": 0, "n_test": 3, "currency": "CNY", "remark": ""}
    correct = Correct(("a", "b", "c"), ("x", "x", "y"), np.array([True, False, True]))
    return list(compare(pd.DataFrame([run]), {"a": {0: correct}}).columns)


def test_every_column_of_the_results_is_documented() -> None:
    from scripts.lib.metrics import paired
    from scripts.mmcls_plugins.training_log import LOG_COLUMNS

    written = [*LOG_COLUMNS, *COST_COLUMNS, *per_class_table(small_predictions()).columns, *leaderboard_columns()]
    written += [key for key in compute_metrics(small_predictions()) if not key.endswith("_ci95")]
    written += list(paired.COLUMNS)
    written += ["dataset", "seed", "n_test", "file", "label", "prediction", "prob:<class>", "<name>_ci95"]
    described = set(code_spans("docs/results.md"))
    assert [name for name in written if name not in described] == []


def test_every_result_that_the_workflow_names_is_documented() -> None:
    page = text_of("docs/results.md")
    outputs = re.findall(r'f"\{layout\.dataset\}/([\w./{}]+)"', snakefiles())
    outputs += [f"figures/{name}" for name in re.findall(r'layout\.run\.figures / "([\w.]+)"', snakefiles())]
    of_runs = set(re.findall(r"layout\.run\.(\w+)", snakefiles())) - {"path"}
    outputs += [str(getattr(RunFolder, name)) for name in of_runs]
    assert len(outputs) > 30 and [name for name in outputs if name not in page] == []
