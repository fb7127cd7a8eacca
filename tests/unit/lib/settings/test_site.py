"""Which site a process stands on, and what follows from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.lib.base.environment import Variable, expand
from scripts.lib.base.problems import UserError
from scripts.lib.settings.load import load_site
from scripts.lib.settings.schema import Site
from scripts.lib.settings.site import current_site, enter_site, executor_of, module_prefix, profiles

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "profiles" / "here"
    folder.mkdir(parents=True)
    (folder / "profile.yaml").write_text("cores: 1\n")
    (folder / "site.yaml").write_text("device: cuda\ncaches: $PLACE/cache\nprice_per_gpu_hour: 2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(Variable.SITE, raising=False)
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["--profile", "profiles/here"],
        ["--profile=profiles/here"],
        ["--profile", "profiles/here/profile.yaml"],
        ["-n", "--workflow-profile", "here", "--configfile", "x.yaml"],
        ["--profile", "profiles/none", "--profile", "profiles/here", "-j", "2"],
    ],
)
def test_the_profile_of_the_command_line_names_the_site(site: Path, words: list[str]) -> None:
    environment = {"PLACE": "/big"}
    assert enter_site(words, environment).price_per_gpu_hour == 2
    assert environment[Variable.SITE] == str(site)
    assert environment["PIP_CACHE_DIR"] == "/big/cache/pip"
    assert environment["XDG_CACHE_HOME"] == "/big/cache"


def test_the_variable_of_snakemake_names_it_too(site: Path) -> None:
    environment = {"PLACE": "/big", "SNAKEMAKE_PROFILE": "profiles/here", "TORCH_HOME": "/mine"}
    assert enter_site([], environment).device == "cuda"
    assert environment["TORCH_HOME"] == "/mine"  # what the user has set stays


def test_a_profile_without_a_site_is_none(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "site.yaml").unlink()
    environment: dict[str, str] = {}
    assert enter_site(["--profile", "profiles/here"], environment) == Site()
    assert environment == {}
    assert current_site() == Site()


def test_jobs_inherit_the_site(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Variable.SITE, str(site))
    assert current_site().device == "cuda"


def test_a_wrong_key_is_one_line(site: Path) -> None:
    (site / "site.yaml").write_text("devise: cuda\n")
    with pytest.raises(
        UserError, match=r"site.yaml: devise: unknown key, did you mean device\? \(allowed here: device,"
    ):
        load_site(site)


def test_profiles_are_read_as_snakemake_reads_them() -> None:
    assert profiles(["--profile", "a", "--profile", "b", "a_target", "-n"], {}) == ["b", "a"]
    assert profiles(["--profile", "none"], {"SNAKEMAKE_PROFILE": "c"}) == []
    assert profiles(["-n"], {"SNAKEMAKE_PROFILE": "c,d"}) == ["d", "c"]


@pytest.mark.parametrize("name", ["slurm", "n30"])
def test_the_sites_of_the_repository_are_good(name: str) -> None:
    assert load_site(ROOT / "profiles" / name).device == "cuda"


@pytest.mark.parametrize(
    ("arguments", "executor"),
    [
        ([], "local"),
        (["--profile", "profiles/local"], "local"),
        (["--profile", "profiles/slurm", "-n"], "slurm"),
        (["--profile=slurm"], "slurm"),
        (["--profile", "n30"], "slurm"),
        (["--profile", "profiles/local", "--profile", "profiles/slurm"], "slurm"),
        (["--profile", "profiles/slurm", "--executor", "local"], "local"),
        (["--profile", "profiles/slurm/profile.yaml"], "slurm"),
        (["-e", "slurm"], "slurm"),
        (["--profile", "nothing"], "local"),
    ],
)
def test_the_executor_is_known_before_snakemake_makes_it(
    arguments: list[str], executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert executor_of(arguments, {}) == executor


def test_expand() -> None:
    assert expand("$TMP/${A}/x", {"TMP": "/t", "A": "b"}) == "/t/b/x"
    assert expand("~/x", {}).startswith("/")
    with pytest.raises(UserError, match=r"\$NOWHERE is not set"):
        expand("$NOWHERE/x", {})


def test_modules_are_loaded_by_the_job_and_leave_its_python_in_front() -> None:
    module = 'module() { echo "module $*" >&2; PATH=/of/the/module:$PATH; PYTHONPATH=x; [ "$2" != missing ]; }; '
    good = module + module_prefix(Site(modules=["cuda/11.4", "gcc/9"])) + 'echo "${PATH%%:*} ${PYTHONPATH-unset}"'
    result = subprocess.run(["bash", "-c", good], capture_output=True, text=True, check=True)
    assert result.stderr == "module load cuda/11.4 gcc/9\n"
    folder, path = result.stdout.split()
    assert folder.endswith("/bin") and not folder.startswith("/of/the") and path == str(ROOT)
    bad = module + module_prefix(Site(modules=["missing"])) + "echo ran"
    result = subprocess.run(["bash", "-c", bad], capture_output=True, text=True)
    assert result.returncode == 1 and "ran" not in result.stdout
    assert "error: module load missing failed" in result.stderr
    assert module_prefix(Site()) == ""
