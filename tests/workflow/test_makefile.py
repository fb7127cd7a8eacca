"""The Makefile: what is typed reaches each command as it was typed, and nothing of it is run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from set_up import ROOT, make
from terminal import Terminal

#: Modules of Python that commands of make run.
MODULES = (
    *(
        "scripts.check_settings",
        "scripts.predict",
        "scripts.evaluate_run",
        "scripts.track",
        "scripts.preview",
        "scripts.clean",
        "scripts.verify",
        "scripts.bundle",
        "scripts.repeat",
        "scripts.snakemake_report",
    ),
    *("scripts.watch", "scripts.serve", "scripts.jobs", "scripts.cancel", "scripts.doctor", "bench.compare", "pytest"),
    "scripts.lib.workflow.start",  # Snakemake
)
RECORDER = "import json, sys\nwith open('seen.jsonl', 'a') as seen:\n    print(json.dumps(sys.argv[1:]), file=seen)\n"
#: What make, a shell or a program would take for something else than a name.
HOSTILE = [
    "$(shell touch pwned)",
    "$$(touch pwned) $HOME $(HOME) ${HOME} $@",
    "`touch pwned`",
    "a'; touch pwned; echo 'b",
    'a"; touch pwned; echo "b',
    "a; touch pwned & b | c > pwned",
    "two  spaces # and a sign",
    "a\nb\ttouch pwned",
    "-n --dash",
    "草莓 é %s \\",
    "* ? [a-z] ~ !",
]
ALL_IN_ONE = "-" + "\n".join(HOSTILE)
MAKEFILE = (ROOT / "Makefile").read_text()
#: All commands of make, and all variables that they take.
TARGETS, VARIABLES = (
    re.findall(rf"^{line} (.+)", MAKEFILE, re.MULTILINE)[0].split() for line in (r"\.PHONY:", "VALUES :=")
)


def recorded(project: Path, *arguments: str) -> list[list[str]]:
    """Run make; return the arguments of each program that it called."""
    for module in MODULES:
        file = project / (module.replace(".", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(RECORDER)
    seen = project / "seen.jsonl"
    seen.unlink(missing_ok=True)
    before = {*project.iterdir()}
    result = make(project, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert {*project.iterdir()} - {project / "__pycache__"} == {*before, seen}
    return [json.loads(line) for line in seen.read_text().splitlines()]


# --- what is typed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [ALL_IN_ONE, *(pytest.param(value, marks=pytest.mark.long) for value in HOSTILE)])
def test_each_value_of_run_reaches_its_commands_as_typed(project, value):
    check, run = recorded(project, "run", f"CONFIG={value}", f"PROFILE={value}", f"ARGS=--until {shlex.quote(value)}")

    assert check == ["--", value]
    assert run == [f"--profile={value}", f"--configfile={value}", "--until", value]


@pytest.mark.parametrize(
    ("target", "variables", "expected"),
    [
        ("predict", ["RUN", "IMAGES"], ["--run={}", "--images={}"]),
        ("evaluate", ["RUN", "DATA", "LABELS"], ["--run={}", "--data={}", "--labels={}"]),
        ("track", ["RUN", "TO", "OUT"], ["--run={}", "--to={}", "--output={}"]),
        ("preview", ["RUN", "OUT"], ["--run={}", "--output={}"]),
        ("clean", ["RUN"], ["--run={}"]),
        ("verify", ["RUN"], ["--run={}"]),
        ("bundle", ["RUN", "OUT"], ["--run={}", "--output={}"]),
        ("repeat", ["ARCHIVE", "IMAGES"], ["--archive={}", "--images={}"]),
        ("bench", ["DATA"], ["--data={}"]),
        ("doctor", ["PROFILE", "CONFIG"], ["--profile={}", "--config={}"]),
        ("doctor", ["CONFIG"], ["--config={}"]),
        (
            "fetch",
            ["CONFIG"],
            ["--profile=profiles/local", "--configfile={}", "--until", "fetch_archive", "fetch_checkpoint"],
        ),
        ("demo", ["PROFILE"], ["--profile={}"]),
        ("test-faults", [], ["--durations=10", "tests/faults"]),
        ("watch", [], []),
        ("serve", ["CONFIG", "PORT"], ["--config={}", "--port={}"]),
        ("jobs", [], []),
        ("cancel", [], []),
    ],
)
def test_each_value_of_each_command_reaches_it_as_typed(project, target, variables, expected):
    values = [f"{name}={ALL_IN_ONE}" for name in variables]
    last = recorded(project, target, *values, f"ARGS={shlex.quote(ALL_IN_ONE)} --more")[-1]

    assert last == [*(word.replace("{}", ALL_IN_ONE) for word in expected), ALL_IN_ONE, "--more"]


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_no_command_runs_what_a_value_holds_wherever_that_is_set(project, target):
    for module in MODULES:
        (project / (module.replace(".", "/") + ".py")).parent.mkdir(parents=True, exist_ok=True)
        (project / (module.replace(".", "/") + ".py")).write_text(RECORDER)
    (project / ".ci").mkdir()
    for script in ("envs/setup.sh", "envs/lock.sh", ".ci/lint", ".ci/site"):  # they would fetch, or check all files
        (project / script).write_text('printf "%s\\0" "$@" >> seen.txt\n')
    before = {*project.rglob("*")}
    for value in HOSTILE:
        values = {name: shlex.quote(value) if name == "ARGS" else value for name in VARIABLES}
        make(project, target, *(f"{name}={value}" for name, value in values.items()))
        make(project, target, "RUN=r", "CONFIG=c", "IMAGES=i", "DATA=d", "TO=t", "ARCHIVE=a", **values)
    new = {path for path in {*project.rglob("*")} - before if "__pycache__" not in path.parts}

    assert {path.name for path in new} <= {"seen.jsonl", "seen.txt"}


@pytest.mark.parametrize("variable", ["ENV", "PYTHON"])
@pytest.mark.parametrize("value", [HOSTILE[0], HOSTILE[3], ALL_IN_ONE])
def test_a_value_that_is_no_environment_and_no_python_is_refused_and_not_run(project, variable, value):
    (project / ".venv").unlink()
    before = sorted(project.iterdir())
    result = make(project, "setup", f"{variable}={value}")

    assert result.returncode != 0
    assert "invalid choice" in result.stderr or "is not a Python 3.11" in result.stderr
    assert sorted(project.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("-n  --cores\n1", ["-n", "--cores", "1"]),
        ("-k 'a word' \"it's\"", ["-k", "a word", "it's"]),
        ("a\\ b ''", ["a b", ""]),
        ("*.jpg ~ $HOME #x", ["*.jpg", "~", "$HOME", "#x"]),
    ],
)
def test_args_are_words_that_quotes_hold_together_and_nothing_is_expanded(project, arguments, words):
    assert recorded(project, "watch", f"ARGS={arguments}") == [words]


def test_args_with_an_open_quote_are_one_line(project):
    result = make(project, "watch", "ARGS=-k 'a")

    assert result.returncode != 0
    assert result.stderr.splitlines()[0].startswith("error: ARGS: No closing quotation: ")


def test_values_of_the_environment_are_taken_as_they_are_too(project):
    for module in ("watch",):
        (project / "scripts" / f"{module}.py").write_text(RECORDER)
    result = make(
        project, "watch", ARGS="'$(shell touch pwned)'", RUN="$(shell touch pwned)", ENV="$(shell touch pwned)"
    )

    assert result.returncode == 0, result.stderr
    assert json.loads((project / "seen.jsonl").read_text()) == ["$(shell touch pwned)"]
    assert not (project / "pwned").exists()


def test_commands_start_in_the_known_environment(project):
    (project / "scripts" / "watch.py").write_text(
        "import json, os, sys\nprint(json.dumps([dict(os.environ), sys.flags[:]]))"
    )
    hostile = {"PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error", "PYTHONHOME": "/x", "MPLBACKEND": "module://x"}
    result = make(project, "watch", **hostile, LC_ALL="zh_CN.GBK")
    variables, _ = json.loads(result.stdout)

    assert not {"PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONHOME"} & variables.keys()
    assert (variables["MPLBACKEND"], variables["LC_ALL"]) == ("Agg", "C")
    assert json.loads(variables["MIMFLOW_SHELL"]).items() >= hostile.items()


# --- the commands -----------------------------------------------------------------------------------------------------


def test_make_alone_lists_the_commands():
    result = make(ROOT)

    assert result.returncode == 0
    for target in ("setup", "demo", "run", "fetch", "predict", "test", "doctor", "wheelhouse", "locks", "lint", "docs"):
        assert f"make {target} " in result.stdout


@pytest.mark.parametrize("target", ["wheelhouse", "setup"])
def test_an_environment_that_does_not_exist_is_one_line(target):
    result = make(ROOT, target, "ENV=nope")

    assert result.returncode != 0
    errors = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert len(errors) == 1 and errors[0].startswith("error: ") and "nope" in errors[0] and "cuda11" in errors[0]


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (["run"], "CONFIG"),
        (["fetch"], "CONFIG"),
        (["predict", "IMAGES=photos"], "RUN"),
        (["evaluate", "RUN=results/x"], "DATA"),
        (["predict", "RUN=results/x"], "IMAGES"),
    ],
)
def test_a_missing_value_is_one_line_that_names_it(command, missing):
    result = make(ROOT, *command)

    assert result.returncode != 0
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {missing} is missing")


@pytest.mark.parametrize(
    ("command", "module", "message"),
    [
        (["run"], "", "error: CONFIG is missing: make run CONFIG=configs/mine.yaml"),
        (["run", "CONFIG=mine.yaml"], "scripts.check_settings", "error: mine.yaml"),
        (["demo"], "scripts.lib.workflow.start", "error: results: no space left"),
        (["predict", "RUN=r", "IMAGES=i"], "scripts.predict", "error: r: no run"),
        (["bundle", "RUN=r"], "scripts.bundle", "error: r: no run"),
        (["doctor"], "scripts.doctor", "2 problems"),
    ],
)
def test_the_last_line_on_a_terminal_is_the_command_s_own(project, command, module, message):
    if module:
        file = project / (module.replace(".", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"import sys\nprint({message!r}, file=sys.stderr)\nsys.exit(1)\n")
    terminal = Terminal(["make", *command], project)

    assert terminal.end(60) != 0
    assert terminal.lines() == [message]

    elsewhere = make(project, *command)
    assert elsewhere.returncode == 2
    assert elsewhere.stderr.splitlines()[0] == message


def test_the_demo_is_run_without_a_configfile(project):
    assert recorded(project, "demo") == [["--profile=profiles/local"]]


def test_the_start_up_file_that_shells_call_env_is_not_taken_for_an_environment(project):
    result = make(project, "setup", ENV="/etc/profile.d/start.sh")

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_an_unknown_environment_is_refused(project):
    result = make(project, "setup", "ENV=cuda12")

    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("make: ***")]
    assert line.startswith("error: argument --env: invalid choice: 'cuda12'") and "cuda13" in line


@pytest.mark.parametrize("name", ["train", "$(shell touch pwned)", "a b; touch pwned"])
def test_an_unknown_command_is_one_line_that_says_where_all_are(project, name):
    result = make(project, name)

    assert (result.returncode, result.stdout) == (2, "")
    assert "there is no command" in result.stderr and "`make` lists them all" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not (project / "pwned").exists()
