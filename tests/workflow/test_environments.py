"""The locks, the installer and the Makefile: what can be checked without downloading an environment."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVS = ROOT / "envs"
LOCKS = ("cpu", "cuda11", "cuda13")


def load(path: Path) -> ModuleType:
    """Import a script that is not on the path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins(lock: str) -> dict[str, str]:
    """Return name -> version of each package of a lock."""
    return dict(load(ENVS / "install.py").read_lock(ENVS / f"{lock}.lock"))


# --- locks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", [*LOCKS, "build", "sdists", "dev"])
def test_every_line_of_a_lock_is_a_hashed_pin_without_addresses(lock):
    text = (ENVS / f"{lock}.lock").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    blocks = re.split(r"\n(?=\S)", "\n".join(lines))

    for block in blocks:
        assert re.match(r"[a-z0-9._-]+==\S+( ;[^\\]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\\n)?)+$", block), block
    assert "://" not in text
    assert "--index" not in text and "--find-links" not in text


@pytest.mark.parametrize("env", LOCKS)
def test_each_environment_holds_the_same_openmmlab_stack_and_workflow(env):
    have = pins(env)
    wanted = {
        "snakemake": "9.27.1",
        "snakemake-executor-plugin-slurm": "2.6.0",
        "mmcls": "0.25.0",
        "openmim": "0.3.9",
        "openxlab": "0.0.11",
        "setuptools": "80.9.0",
        "scikit-learn": "1.7.2",
        "noto-cjk-sans-otc": "0.0.1",
    }

    assert {name: have[name] for name in wanted} == wanted
    assert have["pandas"].startswith("2.3.")
    assert pins("sdists") == {"connection-pool": "0.0.3", "mmcv": "1.7.2"}


@pytest.mark.parametrize("env", LOCKS)
def test_no_environment_has_an_opencv_that_needs_libgl(env):
    assert [name for name in pins(env) if "opencv" in name] == ["opencv-python-headless"]


def test_torch_is_what_each_kind_of_card_needs():
    assert pins("cuda11")["torch"] == "2.0.1"
    assert pins("cuda11")["numpy"].startswith("1.26.")
    assert pins("cuda13")["torch"] == "2.13.0"
    assert "torch" not in pins("cpu"), "its hash is not PyPI's on every machine"
    assert "torch==2.13.0" in (ENVS / "cpu-torch.txt").read_text(encoding="utf-8")


def test_the_linters_never_change_a_package_of_the_environment():
    assert not pins("dev").keys() & pins("cpu").keys()


@pytest.mark.parametrize("env", LOCKS)
def test_each_lock_has_every_package_that_its_input_names(env):
    """A change of an input without `make locks` is noticed."""
    text = "".join((ENVS / name).read_text(encoding="utf-8") for name in ("base.in", f"{env}.in"))
    named = re.findall(r"^([A-Za-z][A-Za-z0-9._-]*)(?:\[[a-z]+\])?(?:==([0-9.]+)$)?", text, flags=re.MULTILINE)
    have = pins(env) | pins("sdists")

    for name, version in named:
        assert name.lower() in have
        assert version in ("", have[name.lower()])


def test_the_stand_in_for_torchvision_can_be_asked_for_anything_and_says_what_is_missing():
    standin = load(ENVS / "torchvision-standin" / "torchvision" / "__init__.py")

    assert not hasattr(standin, "_check_balance")  # what mmcv asks of every loaded module
    with pytest.raises(AttributeError, match=r"make setup ENV=cuda11"):
        _ = standin.models


# --- the installer -----------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project's set-up with an empty .venv that a finished set-up of cpu seems to have left."""
    root = tmp_path / "a project"
    root.mkdir()
    shutil.copytree(ENVS, root / "envs")
    shutil.copy(ROOT / "Makefile", root)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)
    stamp(root, "cpu")
    return root


def stamp(root: Path, env: str) -> None:
    """Write what a finished set-up of *env* writes last."""
    install = load(root / "envs" / "install.py")
    content = {"env": env, "inputs": install.hash_of(install.inputs_of(env)), "path": str(install.VENV)}
    install.write_stamp(install.STAMP, content)


def setup(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run envs/setup.sh as make does."""
    command = ["sh", "envs/setup.sh", *arguments]
    return subprocess.run(
        command,
        cwd=root,
        env=os.environ | variables | {"PIP_NO_INDEX": "1"},
        text=True,
        capture_output=True,
        check=False,
    )


def test_a_finished_environment_is_left_alone(project):
    before = (project / ".venv" / "mimflow-environment.json").stat().st_mtime_ns

    for arguments in ([], ["--env", "cpu"], ["--keep"], ["--keep", "--env", "cpu"]):
        # A PYTHON that is none: the search for one must not even begin.
        result = setup(project, *arguments, PYTHON="/nonexistent")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (project / ".venv" / "mimflow-environment.json").stat().st_mtime_ns == before


def test_a_run_never_replaces_cuda11_by_cpu(project):
    stamp(project, "cuda11")

    kept = setup(project, "--keep")
    asked = setup(project, "--keep", "--env", "cpu")

    assert (kept.returncode, kept.stderr) == (0, "")
    assert asked.returncode == 1
    assert re.fullmatch(r"error: \.venv holds cuda11: .*`make setup ENV=cpu`\n", asked.stderr)
    assert json.loads((project / ".venv" / "mimflow-environment.json").read_text())["env"] == "cuda11"


def test_a_killed_moved_or_outdated_environment_is_noticed(project):
    def problem() -> str | None:
        return load(project / "envs" / "install.py").problem_of("cpu")

    assert problem() is None

    with open(project / "envs" / "cpu.lock", "a", encoding="utf-8") as lock:
        lock.write("# changed\n")
    assert "has changed" in (problem() or "")
    stamp(project, "cpu")
    assert problem() is None

    moved = project.with_name("moved")
    project.rename(moved)
    assert "moved or copied" in (load(moved / "envs" / "install.py").problem_of("cpu") or "")

    (moved / ".venv" / "mimflow-environment.json").unlink()
    assert "did not finish" in (load(moved / "envs" / "install.py").problem_of("cpu") or "")


def test_a_killed_set_up_of_cuda11_is_not_taken_up_again_as_cpu(project, monkeypatch):
    (project / ".venv" / "mimflow-environment.json").unlink()
    (project / ".venv" / "mimflow-started.json").write_text('{"env": "cuda11"}')
    install = load(project / "envs" / "install.py")

    class Begun(Exception):
        """The set-up got as far as looking at the machine."""

    def stop_here(env: str) -> None:
        raise Begun(env)

    monkeypatch.setattr(install, "check_machine", stop_here)

    with pytest.raises(Begun, match="cuda11"):
        install.install(None, keep=True)


@pytest.mark.parametrize("complete", [True, False])
def test_a_complete_wheelhouse_is_installed_from_without_network_or_compiling(project, monkeypatch, complete):
    install = load(project / "envs" / "install.py")
    house = project / "wheelhouse" / "cuda11"
    house.mkdir(parents=True)
    if complete:
        inputs = install.hash_of(install.inputs_of("cuda11"))
        (house / "complete").write_text(json.dumps({"inputs": inputs}))
    else:
        (house / "complete").write_text('{"inputs": "of another lock"}')
    commands: list[list[str]] = []
    monkeypatch.setattr(install, "pip", lambda arguments, *_args, **_kwargs: commands.append(arguments))

    source = ["--no-index", "--find-links", str(house)] if "cuda11" in install.wheelhouses() else []
    install.build_environment("cuda11", source)

    assert any(command[0] == "wheel" for command in commands) != complete
    installs = [command for command in commands if command[0] == "install"]
    assert all("--no-index" in command for command in installs) == complete
    assert all("--require-hashes" in command or "mmcv" in command for command in installs)


def test_a_system_that_is_too_old_or_too_full_is_refused_before_anything_is_downloaded():
    install = load(ENVS / "install.py")

    assert "ENV=cuda11" in install.glibc_problem("cuda13", ("glibc", "2.17"))
    assert install.glibc_problem("cuda11", ("glibc", "2.17")) is None
    assert install.glibc_problem("cpu", ("glibc", "2.36")) is None
    assert "GB" in install.disk_problem("cuda13", 1_000_000_000)
    assert install.disk_problem("cpu", 100_000_000_000) is None


def test_pip_and_the_self_test_are_shielded_from_variables_of_the_machine(monkeypatch):
    install = load(ENVS / "install.py")
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_CONSTRAINT"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_CACHE_DIR", "/run/cache")

    environment = install.child_environment()

    assert not {"PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_CONSTRAINT"} & environment.keys()
    assert environment["PIP_CACHE_DIR"] == "/run/cache"


# --- finding Python ----------------------------------------------------------------------------------------------


def test_a_python_of_another_version_is_refused_in_one_line(tmp_path):
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\nexit 3\n")
    other.chmod(0o755)

    result = subprocess.run(
        ["sh", str(ENVS / "find_python.sh")], env=os.environ | {"PYTHON": str(other)}, text=True, capture_output=True
    )

    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(r"error: PYTHON=.* is not a Python 3\.11: .*\n", result.stderr)


def test_where_there_is_no_python_the_ways_to_get_one_are_named_in_one_line(tmp_path):
    result = subprocess.run(
        ["/bin/sh", str(ENVS / "find_python.sh")],
        cwd=tmp_path,
        env={"PATH": "/nonexistent"},
        text=True,
        capture_output=True,
    )

    assert result.returncode == 1
    assert result.stderr.startswith("error: no Python 3.11 found")
    assert result.stderr.count("\n") == 1
    for way in ("apt-get", "uv python install", "module load", "conda create", "make setup PYTHON="):
        assert way in result.stderr


# --- the Makefile ------------------------------------------------------------------------------------------------


def make(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make in *root*, free of what a make around this test has set."""
    env = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    for name in ("CONFIG", "RUN", "IMAGES", "ENV", "PYTHON", "ARGS"):
        env.pop(name, None)
    return subprocess.run(
        ["make", *arguments], cwd=root, env=env | variables, text=True, capture_output=True, check=False
    )


def record_arguments(root: Path, program: str) -> Path:
    """Put a program into .venv/bin that adds each of its arguments to a file, on a line; return that file."""
    script, seen = root / ".venv" / "bin" / program, root / "seen.txt"
    script.unlink(missing_ok=True)
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> seen.txt\n')
    script.chmod(0o755)
    return seen


def test_make_alone_lists_the_commands():
    result = make(ROOT)

    assert result.returncode == 0
    for target in ("setup", "demo", "run", "fetch", "predict", "test", "doctor", "wheelhouse", "locks", "lint", "docs"):
        assert f"make {target} " in result.stdout


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        (["run"], "CONFIG"),
        (["fetch"], "CONFIG"),
        (["predict", "IMAGES=photos"], "RUN"),
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


def test_paths_with_spaces_and_quotes_reach_snakemake_whole(project):
    seen = record_arguments(project, "python")

    result = make(project, "run", "CONFIG=configs/my fruit's.yaml", "ARGS=-n --cores 1")

    assert result.returncode == 0, result.stderr
    config = "configs/my fruit's.yaml"
    expected = ["-m", "scripts.check_settings", config]
    expected += [
        "-m",
        "scripts.lib.workflow.start",
        "--profile",
        "profiles/local",
        "--configfile",
        config,
        "-n",
        "--cores",
        "1",
    ]
    assert seen.read_text().splitlines()[-len(expected) :] == expected


def test_the_demo_is_run_without_a_configfile(project):
    seen = record_arguments(project, "python")

    assert make(project, "demo").returncode == 0
    assert seen.read_text().splitlines()[-4:] == ["-m", "scripts.lib.workflow.start", "--profile", "profiles/local"]


def test_the_start_up_file_that_shells_call_env_is_not_taken_for_an_environment(project):
    result = make(project, "setup", ENV="/etc/profile.d/start.sh")

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_an_unknown_environment_is_refused(project):
    result = make(project, "setup", "ENV=cuda12")

    assert result.returncode != 0
    assert "cuda12" in result.stderr
    assert "cuda13" in result.stderr


# --- CI's helpers ------------------------------------------------------------------------------------------------


def test_only_the_missing_environment_of_a_rule_is_an_accepted_lint_finding():
    lint = load(ROOT / ".ci" / "snakemake_lint.py")
    accepted = "Lints for rule a (line 1):\n    * Specify a conda environment or container for each rule.:\n      Why\n"
    other = "    * No log directive defined:\n      Without a log directive ...\n"

    assert lint.remaining_findings(accepted) == []
    (finding,) = lint.remaining_findings(accepted + other)
    assert "No log directive" in finding
    assert "rule a" in finding


def test_a_skip_is_accepted_only_for_what_ci_does_not_have():
    skips = load(ROOT / ".ci" / "check_skips.py")
    case = '<testsuites><testcase classname="t" name="x"><skipped message="{}"/></testcase></testsuites>'

    assert skips.wrong_skips(case.format("needs a GPU")) == []
    assert skips.wrong_skips(case.format("no font here")) == ["t.x: no font here"]


def test_long_functions_markup_and_old_words_are_noticed():
    house = load(ROOT / ".ci" / "check_house.py")
    old, lines = "sur" + "est", "\n".join(["    pass"] * 60)
    text = f'"""<p>of a docstring</p>"""\n\ndef long(side):\n{lines}\n\nPAGE = "<p class=x>"  # the {old}\n'
    tree = ast.parse(text)

    assert [breach.message for breach in house.breaches_of_size("a.py", text, tree)] == [
        "long has 61 lines, more than 60"
    ]
    assert [breach.line for breach in house.breaches_of_markup("a.py", tree)] == [65]
    assert [breach.message for breach in house.breaches_of_names("a.py", tree)] == ["the name side: split"]
    assert [breach.message for breach in house.breaches_of_words("a.py", text)] == [f"{old!r}: write most confident"]
    assert not list(house.breaches_of_words("a.py", 'license = Field(alias="licence")'))


def test_hashes_are_read_by_package():
    check = load(ROOT / ".ci" / "check_manylinux2014.py")
    first, second = "a" * 64, "b" * 64
    lock = (
        f"# made by\nx==1.0 \\\n    --hash=sha256:{first} \\\n    --hash=sha256:{second}\n"
        "y==2.0 ; python_version < '4' \\\n"
    )

    assert check.read_hashes(lock) == {"x==1.0": {first, second}, "y==2.0": set()}
