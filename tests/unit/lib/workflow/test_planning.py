"""Functions that take the place of Snakemake's while it plans: they return what those return."""

from __future__ import annotations

import functools
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from dag import ROOT
from snakemake.common import get_function_params, overwrite_function_params
from snakemake.exceptions import ChildIOException
from snakemake.iocontainers import Namedlist

from scripts.lib.workflow import planning

#: Says whether `hasten` has replaced something, in a process of its own: it does so for good.
HASTEN = """
import sys
import snakemake.api
from snakemake.dag import DAG
from scripts.lib.workflow import planning
snakemake.__version__ = sys.argv[1] or snakemake.__version__
before = DAG.update
planning.hasten()
once = DAG.update
planning.hasten()
print(once is not before, DAG.update is once)
"""


class Options:
    """Something with functions of wildcards, as rules name them."""

    def method(self, wildcards: Any, input: Any) -> None:
        """Take what a params function takes."""


def plain(wildcards: Any, *, threads: int = 1, **more: Any) -> None:
    """Take what a params function takes."""


def told(*words: Any) -> None:
    """Take what `overwrite_function_params` says."""


overwrite_function_params(told, {"wildcards": None})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "function",
    [plain, Options().method, Options.method, lambda wildcards: "", functools.partial(plain, 1), told, print, Options],
)
def test_the_parameters_of_a_function_are_those_that_snakemake_finds(function: Callable[..., Any]) -> None:
    for _ in range(2):  # the second time they are known
        assert list(planning.function_params(function)) == list(get_function_params(function))


def test_a_function_is_inspected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(inspect, "signature", lambda function: calls.append(function) or SimpleNamespace(parameters={}))

    class Fresh(Options):
        def method(self, wildcards: Any, input: Any) -> None: ...

    for _ in range(3):
        planning.function_params(Fresh().method)
    assert len(calls) == 1


def jobs_with(*outputs: str) -> Any:
    """Return a DAG in which each output is that of another job."""
    return SimpleNamespace(jobs=[SimpleNamespace(output=[name]) for name in outputs])


@pytest.mark.parametrize("outputs", [("a", "a/b"), ("a/b/c", "a"), ("a-b", "a", "a/b"), ("a.csv", "x/../a", "a/b/c")])
def test_an_output_in_that_of_another_job_is_refused(outputs: tuple[str, ...]) -> None:
    with pytest.raises(ChildIOException):
        planning.check_directory_outputs(jobs_with(*outputs))


def test_outputs_beside_each_other_are_none_in_another() -> None:
    planning.check_directory_outputs(jobs_with("a", "a.json", "ab/c", "b/a", "b/ab"))
    folder = SimpleNamespace(output=["a", "a/b"])  # both of one job
    planning.check_directory_outputs(SimpleNamespace(jobs=[folder]))


def test_a_guarded_name_of_a_list_of_files_stays_refused() -> None:
    guard = planning.Guard("index")
    assert guard is planning.Guard("index") and guard is not planning.Guard("sort")
    with pytest.raises(AttributeError, match=re.escape("sort() cannot be used")):
        planning.Guard("sort")()
    assert isinstance(guard, type(Namedlist().index))  # by which Snakemake knows it


def test_the_version_that_is_known_is_the_one_that_the_locks_pin() -> None:
    for name in ("cpu", "cuda11", "cuda13"):
        lock = ROOT / "envs" / f"{name}.lock"
        assert re.findall(r"^snakemake==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE) == [planning.KNOWN]


@pytest.mark.long
@pytest.mark.parametrize(("version", "is_replaced"), [("", "True True"), ("9.28.0", "False True")])
def test_only_the_known_version_is_changed_and_once(version: str, is_replaced: str) -> None:
    command = [sys.executable, "-c", HASTEN, version]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == is_replaced, result.stderr
