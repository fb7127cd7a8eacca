"""The locks, the installer and the Makefile: what can be checked without downloading an environment."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from set_up import ENVS, ROOT, load, make, setup, stamp

from scripts.lib.workflow.controller import IDLE_OPTIONS

LOCKS = ("cpu", "cuda11", "cuda13")


def pins(lock: str) -> dict[str, str]:
    """Return name -> version of each package of a lock."""
    return dict(load(ENVS / "install.py").read_lock(ENVS / f"{lock}.lock"))


# --- locks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", [*LOCKS, "installer", "build", "sdists", "dev"])
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


IMPORTS = """
import sys
assert "torch" not in sys.modules
import torchvision
from torchvision.ops import nms
from torchvision.transforms import functional
print(torchvision.__version__)
"""


@pytest.mark.parametrize("options", [[], ["-I"], ["-W", "error"]])
def test_torchvision_is_imported_beside_a_torch_without_cuda(options):
    printed = subprocess.run([sys.executable, *options, "-c", IMPORTS], capture_output=True, text=True, check=True)

    assert printed.stdout.startswith("0.")


def printed_by(*lines):
    """Return what a program prints."""
    program = "\n".join(
        ("import sys", "loaded = lambda *names: [name for name in names if name in sys.modules]", *lines)
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_mmcls_is_imported_without_torchvision_timm_and_the_compiler():
    names = "'torchvision.ops', 'timm.models', 'torch._dynamo'"
    lines = ["import mmcls.apis, scripts.mmcls_plugins", "from mmcv.utils import collect_env"]
    assert printed_by(*lines, f"print(collect_env()['TorchVision'][:2], loaded({names}))") == "0. []\n"
    lines += ["import timm", f"print(timm.__version__, loaded({names}))", "timm.create_model('resnet18')"]
    assert printed_by(*lines, "print(loaded('timm.models'))") == "1.0.31 []\n['timm.models']\n"


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("import timm.models; print(loaded('timm.models', 'torchvision.ops'))", "['timm.models', 'torchvision.ops']"),
        (
            "import timm.models as m; print(m.vision_transformer.__name__, sys.modules['timm'].models is m)",
            "timm.models.vision_transformer True",
        ),
        ("import timm.layers; m = sys.modules['timm.layers']; print(m.__spec__.loader is m.__loader__)", "True"),
        (
            "from torchvision.models import resnet; import torchvision; print(torchvision.models.resnet is resnet)",
            "True",
        ),
        ("from torchvision import transforms; print(transforms.__name__)", "torchvision.transforms"),
        ("from timm import *; print(create_model.__name__)", "create_model"),
        ("import torchvision; print(torchvision.ops.nms.__name__, type(torchvision).__name__)", "nms module"),
        ("import torchvision; print(hasattr(torchvision, 'nothing'))", "False"),
        ("import torchvision; print(hasattr(torchvision, '_check_balance'), loaded('torchvision.ops'))", "False []"),
        ("import inspect, timm; print(inspect.getsource(timm)[:6], loaded('timm.models'))", "from . []"),
        ("import importlib, timm; print(importlib.reload(timm).create_model.__name__)", "create_model"),
        (
            "import importlib.util as u; print(u.find_spec('timm').name, u.find_spec('torchvision.ops').name)",
            "timm torchvision.ops",
        ),
    ],
)
def test_a_module_that_is_loaded_late_is_like_any_other(line, printed):
    assert printed_by(line).strip() == printed


def test_what_loads_modules_late_loads_nothing_at_the_start_of_python():
    script = "import sys; print([name for name in ('torch', 'torchvision', 'timm') if name in sys.modules])"
    started = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    text = (ENVS / "lazy_modules.py").read_text(encoding="utf-8")

    assert started.stdout == "[]\n"
    assert re.findall(r"^(?:import|from) .*", text, flags=re.MULTILINE) == ["import sys"]


@pytest.mark.parametrize(
    ("line", "is_fine"),
    [
        ("No broken requirements found.", True),
        ("timm 1.0.31 requires huggingface-hub, which is not installed.", True),
        ("timm 1.0.31 requires huggingface_hub, which is not installed.", True),
        ("timm 1.0.31 requires safetensors, which is not installed.", False),
        ("mmcv 1.7.2 requires addict, which is not installed.", False),
        ("torchvision 0.28.0 has requirement torch==2.13.0, but you have torch 2.0.1.", False),
    ],
)
def test_only_the_package_that_timm_does_without_may_be_missing(line, is_fine):
    assert bool(re.search(load(ENVS / "install.py").FINE, line)) == is_fine


@pytest.mark.parametrize(("env", "torch"), [("cpu", "2.13.0"), ("cuda13", "2.13.0"), ("cuda11", "2.0.1")])
def test_torchvision_is_that_of_the_environments_torch(env, torch):
    releases = {"2.13.0": "0.28.0", "2.0.1": "0.15.2"}

    assert pins(env)["torchvision"] == releases[torch]
    assert pins(env)["timm"] == "1.0.31" and "huggingface-hub" not in pins(env)


# --- the installer -----------------------------------------------------------------------------------------------


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

    change_lock(project)
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


# --- a new environment beside the old one ------------------------------------------------------------------------


def change_lock(root: Path) -> None:
    """Change the lock as `git pull` may."""
    with open(root / "envs" / "cpu.lock", "a", encoding="utf-8") as lock:
        lock.write("# changed\n")


def built_without_packages(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the installer build environments with nothing in them."""
    run = install.run
    monkeypatch.setattr(install, "check_machine", lambda env: None)
    monkeypatch.setattr(install, "build_environment", lambda env, source, venv: None)
    monkeypatch.setattr(install, "find_uv", lambda env, venv, source: None)
    fake = {"checking": "", "importing": "torch 1\n"}
    monkeypatch.setattr(
        install,
        "run",
        lambda command, doing, *_more, **_named: (
            fake.get(doing.split()[0]) or run([*command, "--without-pip"], doing)
            if doing.startswith("creating")
            else fake[doing.split()[0]]
        ),
    )


@pytest.mark.long
def test_without_network_the_environment_stays_as_it_was(project):
    before = (project / ".venv").resolve()
    change_lock(project)

    result = setup(project, "--keep", PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0")

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].endswith("; .venv is as it was")
    assert (project / ".venv").resolve() == before and (before / "bin" / "python").exists()
    assert [path.name for path in (project / ".venvs").iterdir() if path.name != "tmp"] == [before.name]


@pytest.mark.parametrize("arguments", ["-n", "--dry-run", "-np --quiet", "--unlock", "--list-changes=code"])
def test_what_only_looks_goes_on_with_an_older_environment_and_says_so(project, arguments):
    change_lock(project)

    for words in (["--look"], ["--keep", "--unless-looking"]):
        result = setup(project, *words, ARGS=arguments)
        assert result.returncode == 0
        assert re.fullmatch(
            r"note: envs/cpu.lock .* has changed since .*`make setup` builds the new one\n", result.stderr
        )


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("scripts.watch", ["watch"]),
        ("scripts.serve", ["serve"]),
        ("scripts.jobs", ["jobs"]),
        ("scripts.cancel", ["cancel"]),
        ("scripts.doctor", ["doctor"]),
        ("scripts.verify", ["verify", "RUN=r", "QUICK=yes"]),
    ],
)
def test_commands_that_only_look_work_after_the_lock_has_changed_without_network(project, module, words):
    (project / (module.replace(".", "/") + ".py")).write_text("print('looked')\n")
    change_lock(project)
    before = sorted((project / ".venvs").iterdir())

    result = make(project, *words, PIP_NO_INDEX="1")

    assert (result.returncode, result.stdout) == (0, "looked\n"), result.stderr
    assert ("has changed since .venv was built" in result.stderr) == (words != ["doctor"])  # it says so itself
    assert sorted((project / ".venvs").iterdir()) == before


def test_the_set_up_and_the_workflow_agree_on_what_only_looks():
    looking = load(ENVS / "install.py").LOOKING
    assert looking - {"--dry-run", "--dryrun"} == IDLE_OPTIONS


@pytest.mark.parametrize("arguments", ["", "--until a", "--cores 1 -k", "'"])
def test_what_computes_does_not(project, arguments):
    assert not load(project / "envs" / "install.py").is_looking(arguments)


@pytest.mark.parametrize("words", [["--look"], ["--keep", "--unless-looking"]])
def test_what_only_looks_builds_nothing_where_there_is_no_environment(project, words):
    (project / ".venv").unlink()

    result = setup(project, *words, ARGS="-n")

    assert (result.returncode, result.stderr) == (1, "error: there is no .venv yet: `make setup` builds it\n")


def test_a_new_environment_takes_the_place_of_the_old_which_stays_while_it_is_used(project, monkeypatch):
    install = load(project / "envs" / "install.py")
    built_without_packages(install, monkeypatch)
    old = (project / ".venv").resolve()
    os.utime(old, (0, 0))
    # As Snakemake runs: by its own folder, not by the link.
    training = subprocess.Popen(
        [old / "bin" / "python", "-c", "import time; print(flush=True); time.sleep(60)"], stdout=-1
    )
    try:
        assert training.stdout and training.stdout.readline()
        change_lock(project)
        install.install(None, keep=True)
        assert (project / ".venv").is_symlink() and (project / ".venv").resolve() != old
        assert install.problem_of("cpu") is None and (old / "bin" / "python").exists()
        assert (project / ".venv/bin/python").resolve() == (old / "bin/python").resolve()
    finally:
        training.kill()
        training.communicate()
    install.remove_unused()
    assert not old.exists()


def test_an_environment_whose_jobs_may_be_queued_stays(project, monkeypatch):
    install = load(project / "envs" / "install.py")
    built_without_packages(install, monkeypatch)
    old = (project / ".venv").resolve()
    change_lock(project)
    install.install("cpu", keep=False)
    assert old.exists()
    os.utime(old, (0, 0))
    install.remove_unused()
    assert not old.exists()


@pytest.mark.parametrize("folder", ["an environment", "environment"])
def test_snakemake_typed_by_hand_starts_in_the_known_environment(project, tmp_path, folder):
    install = load(project / "envs" / "install.py")
    (tmp_path / folder).symlink_to((project / ".venv").resolve())
    install.write_snakemake(tmp_path / folder)
    code = "import os, sys; print(os.environ['MPLBACKEND'], os.environ['HOME'], sys.argv[1:])\n"
    code += "sys.stdout.flush(); os.execvp('bash', ['bash', '-c', 'module load cuda'])\n"
    (project / "scripts/lib/workflow").mkdir()
    (project / "scripts/lib/workflow/start.py").write_text(code)
    hostile = {"MPLBACKEND": "module://x", "PYTHONWARNINGS": "error", "PYTHONHOME": "/x", "HOME": "/none", "ARGS": "x"}
    hostile |= {"BASH_ENV": str(project / "of_the_user"), "BASH_FUNC_module%%": '() { echo "module $*"; }'}
    (project / "of_the_user").write_text("echo unasked\n")

    command = [tmp_path / folder / "bin/snakemake", "a b", "$x"]
    result = subprocess.run(command, cwd="/", env=os.environ | hostile, text=True, capture_output=True)

    # The kernel starts no program whose path has a space; the shell that does may be dash, which drops functions.
    loaded = "" if " " in folder and "module load cuda" not in result.stdout else "module load cuda\n"
    assert result.stdout == f"Agg {project}/.snakemake/caches ['a b', '$x']\n{loaded}", result.stderr


def test_an_environment_that_was_built_in_place_is_replaced(project, monkeypatch):
    old = (project / ".venv").resolve()
    (project / ".venv").unlink()
    old.rename(project / ".venv")
    stamp(project, "cpu")
    install = load(project / "envs" / "install.py")
    assert install.problem_of("cpu") is None
    built_without_packages(install, monkeypatch)
    change_lock(project)
    install.install(None, keep=True)
    assert (project / ".venv").is_symlink() and install.problem_of("cpu") is None


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
    install.build_environment("cuda11", source, project / ".venvs" / "new")

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
    for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONWARNINGS", "MPLBACKEND", "PIP_TARGET", "PIP_CONSTRAINT"):
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_CACHE_DIR", "/run/cache")

    environment = install.child_environment()

    stopped = {"PYTHONPATH", "PYTHONHOME", "PYTHONWARNINGS", "MPLBACKEND", "PIP_TARGET", "PIP_CONSTRAINT"}
    assert not stopped & environment.keys()
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
