"""What Snakemake works out again for each job while it plans, and keeps for each, though all have the same: once here.

The plan stays what it was. docs/slurm.md says what plans take.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Iterable
from itertools import pairwise
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

import snakemake
from snakemake import common, iocontainers, rules
from snakemake.exceptions import ChildIOException
from snakemake.jobs import Job

if TYPE_CHECKING:
    from snakemake.dag import DAG

#: The version of Snakemake whose functions these take the place of. Another one plans by its own, which takes longer.
KNOWN = "9.27.1"


def hasten() -> None:
    """Replace these functions of Snakemake in this process."""
    from snakemake.dag import DAG  # here, since it imports itself by way of the others

    if snakemake.__version__ != KNOWN or DAG.check_directory_outputs is check_directory_outputs:
        return
    DAG.update = remembering_producers(DAG.update)  # type: ignore[method-assign]
    DAG.check_directory_outputs = check_directory_outputs  # type: ignore[method-assign]
    Job.conda_env_spec = property(conda_env_spec)  # type: ignore[method-assign, assignment]
    rules.get_function_params = common.get_function_params = function_params
    iocontainers.AttributeGuard = Guard  # type: ignore[misc]


def remembering_producers(update: Callable[..., Awaitable[Job]]) -> Callable[..., Awaitable[Job]]:
    """Return ``DAG.update`` so that the job that makes a file is looked for once, not for each job that reads it."""

    async def remembering(
        dag: DAG, jobs: Iterable[Job], file: Any = None, known_producers: Any = None, **options: Any
    ) -> Job:
        producer = await update(dag, jobs, file=file, known_producers=known_producers, **options)
        if known_producers is not None and file is not None:
            known_producers[file] = [producer]
        return producer

    return remembering


def check_directory_outputs(dag: DAG) -> None:
    """Refuse outputs that lie in an output of another job; Snakemake's own makes a Path of each.

    Raises
    ------
    ChildIOException : the first of them.
    """
    outputs = [(os.path.abspath(file), job) for job in dag.jobs for file in job.output]
    outputs.sort(key=lambda output: output[0].replace("/", "\0"))  # what lies in a folder comes right after it
    for (path, job), (following, other) in pairwise(outputs):
        if following.startswith(f"{path}/") and job != other:
            raise ChildIOException(parent=(path, job), child=(following, other))


def conda_env_spec(job: Job) -> Any:
    """Return the conda environment of a job; of a rule without one, the job's parameters are not worked out for it."""
    if job._conda_env_spec is None and job.rule._conda_env is not None:
        job._conda_env_spec = job.rule.expand_conda_env(job.wildcards_dict, job.params, job.input)
    return job._conda_env_spec


_parameters: dict[tuple[FunctionType, bool], Any] = {}


def function_params(function: Callable[..., Any]) -> Any:
    """Return the parameters of a function, or what Snakemake has been told that they are; inspected once."""
    if hasattr(function, common.FUNC_OVERWRITE_PARAMS_ATTR):
        return getattr(function, common.FUNC_OVERWRITE_PARAMS_ATTR)
    plain = getattr(function, "__func__", function)  # a method is another object each time that it is named
    if not isinstance(plain, FunctionType):
        return inspect.signature(function).parameters
    key = plain, plain is not function
    if key not in _parameters:
        _parameters[key] = inspect.signature(function).parameters
    return _parameters[key]


class Guard(iocontainers.AttributeGuard):
    """What stands for a name that lists of files must not have: one object, where each list had its own."""

    _guards: ClassVar[dict[str, Guard]] = {}

    def __new__(cls, name: str) -> Guard:
        """Return the guard of *name*."""
        return cls._guards.setdefault(name, super().__new__(cls))
