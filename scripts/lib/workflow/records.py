"""What made each file of results/: added to the records of products, compared by content when Snakemake starts.

Snakemake's own records lie in .snakemake and go by names and times: results that came without them would stand for any
settings, and a file that was changed would pass as what it was. These are the records of a class of Snakemake's
for that purpose, so that `-n`, `--list-changes` and the reasons of jobs say what these say.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from snakemake.io import IOCache, Mtime, is_flagged
from snakemake.jobs import Job
from snakemake.persistence import NO_PARAMS_CHANGE, RECORD_FORMAT_VERSION, MetadataRecord, ParamsChange
from snakemake.persistence.file import FilePersistence
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import ExecMode

from scripts.lib.base import products
from scripts.lib.base.console import describe_write_error
from scripts.lib.base.contents import content_of
from scripts.lib.base.products import Change
from scripts.lib.base.source_code import code_sha256
from scripts.lib.runs.machine import lock_sha256

#: Another one is as good as none: everything is made again.
FORMAT = 1
#: Below the working directory: Snakemake's marks of files whose job did not end.
INCOMPLETE = ".snakemake/incomplete"
#: What the script of a rule is called in its shell line.
SCRIPT = re.compile(r"python -m (scripts\.[\w.]+)")
#: Rules that other code of their own has run again: a matter of seconds, and they put numbers side by side.
FOLLOW_THE_CODE = frozenset({"compare_runs", "describe_crate", "write_try_page", "write_report"})


def keep(workflow: Any, tell: Callable[[Change], None], matters: Callable[[Change], bool]) -> None:
    """Have Snakemake keep and compare these records in place of its own.

    Only of the process that decides what runs: a job on a node is told what to do.

    Parameters
    ----------
    tell : is called of each product that is gone, or is not what was made.
    matters : whether such a product is missed: not what may be removed to save room.
    """
    if workflow.is_main_process:
        import snakemake.workflow  # here, since it imports itself by way of the others

        Records.tell, Records.matters = staticmethod(tell), staticmethod(matters)
        snakemake.workflow.FilePersistence = Records  # the class of Snakemake's backend `file`
        Job.postprocess = _noting_failures(Job.postprocess)


def _noting_failures(postprocess: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return *postprocess* so that these records know which jobs failed: Snakemake calls `finished` of them too."""

    async def noting(job: Job, *words: Any, error: bool = False, **options: Any) -> None:
        if error and isinstance(persistence := job.dag.workflow.persistence, Records):
            persistence.failed.add(job)
        await postprocess(job, *words, error=error, **options)

    return noting


def _say_nothing(_change: Change) -> None:
    pass


async def _note_same_time(cache: IOCache, jobs: Iterable[Job]) -> None:
    """Note one time for all files that are there, in place of ``IOCache.mtime_inventory``: none is newer."""
    time = Mtime(local=0.0)
    for job in jobs:
        for file in chain(job.input, job.output, filter(None, [job.benchmark])):
            if not file.is_storage and await file.exists():
                cache.mtime[file] = time


def is_product(name: str) -> bool:
    """Tell whether a file of a rule is below results/, where its record lies beside it."""
    return name.startswith("results/")


def find_origin(name: str) -> dict[str, Any] | None:
    """Return of what a product was made; None where that is not recorded, or was broken."""
    made = products.origin(Path(name)) or {}
    kinds = {"params": list, "inputs": dict, "outputs": list}
    is_whole = made.get("format") == FORMAT and all(isinstance(made.get(key), kind) for key, kind in kinds.items())
    contents = [value for value in made["inputs"].values() if isinstance(value, dict)] if is_whole else []
    return made if is_whole and all(isinstance(content.get("sha256"), str) for content in contents) else None


def is_as_recorded(path: Path) -> bool:
    """Tell whether a product has a record, and is what that says; note its times, which Snakemake may have set."""
    return products.expected(path) is not None and next(products.changes(path, thorough=False), None) is None


@dataclass
class Difference:
    """How a job differs from the one that made its files: in settings, files, mimflow's code; or it did not end."""

    params: ParamsChange = field(default_factory=lambda: NO_PARAMS_CHANGE)
    files: list[str] = field(default_factory=list)
    is_unknown: bool = False
    code: bool = False
    is_interrupted: bool = False

    def __bool__(self) -> bool:
        return bool(self.params or self.files or self.is_unknown or self.code or self.is_interrupted)


class Records(FilePersistence):
    """What the records of products say. One process adds to them: the one that holds Snakemake's lock."""

    tell: Callable[[Change], None]
    matters: Callable[[Change], bool]

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        # While Snakemake plans: what it plans stays, so looking through it for garbage, again and again, finds none. It
        # was a tenth of a rerun of 300 runs with nothing to do.
        gc.disable()
        cache = self.dag.workflow.iocache
        cache.mtime_inventory = partial(_note_same_time, cache)  # until jobs run: no file is newer than another
        self._lock = lock_sha256()
        self._differences: dict[Any, Difference] = {}
        self._sha256: dict[str, str | None] = {}  # of products, as they are while it is decided what runs
        self._began: dict[Any, dict[str, Any]] = {}  # by job: what it was given
        self.failed: set[Job] = set()
        #: Products that are gone, or are not what was made.
        self.changes: list[Change] = []
        #: What was made by other code, or packages of another lock, and stands all the same: by rule, its first files.
        self.others: dict[str, list[str]] = {}

    # -- what Snakemake asks for ---------------------------------------------------------------------------------------

    def _write_locks(self, lock_type: str, keys: Iterable[str]) -> None:
        """Write which files are this Snakemake's; where that cannot be done, end in one line, not in its traceback."""
        try:
            super()._write_locks(lock_type, keys)
        except OSError as error:
            sys.exit(f"error: {describe_write_error(error, Path.cwd())}")

    def _read_record(self, key: str) -> MetadataRecord | None:
        if not is_product(key):
            return super()._read_record(key)
        made = find_origin(key)
        if made is None:
            return None
        known = {name: made.get(name) for name in ("rule", "params", "starttime", "endtime", "job_hash")}
        return MetadataRecord(
            **known, input=sorted(made["inputs"]), record_format_version=RECORD_FORMAT_VERSION, incomplete=False
        )

    def _delete_record(self, key: str) -> bool:
        return products.forget(Path(key)) if is_product(key) else bool(super()._delete_record(key))

    def started(self, job: Any, external_jobid: str | None = None) -> None:
        """Note what a job is given of others: what somebody changes meanwhile is not what it was made of.

        Of products it checks itself that they are what was recorded; those of its own group are not there yet.
        """
        super().started(job, external_jobid)
        self._began[job] = self._foreign_inputs(job)

    async def finished(self, job: Any) -> None:
        """Record what made the outputs of a job; what they are, the job itself has recorded."""
        keeps = self.dag.workflow.execution_settings.keep_metadata
        if not self._is_recorded(job) or self.dag.workflow.exec_mode != ExecMode.DEFAULT or not keeps:
            await super().finished(job)
            return
        outputs = [str(file) for file in job.output]
        if job not in self.failed and all(map(os.path.lexists, outputs)):
            try:
                self._record(job, outputs)
            except OSError as error:  # Snakemake would say that permissions are wrong
                raise WorkflowError(f"error: {describe_write_error(error, Path(outputs[0]).parent)}") from error
        self.failed.discard(job)  # it may be tried again
        self._began.pop(job, None)
        for file in job.output:
            self._unmark_incomplete(self._get_key(file))

    def _record(self, job: Any, outputs: list[str]) -> None:
        began = min(filter(None, (self._get_recorded_starttime(name) for name in outputs)), default=time.time())
        made = {
            "format": FORMAT,
            "rule": rule_name(job.rule),
            "params": self._settings(job),
            "inputs": self._product_inputs(job, products.recorded_sha256) | self._began.get(job, {}),
            "outputs": outputs,
            "code": self._code_of(job.rule),
            "lock": self._lock,
            "starttime": began,
            "endtime": time.time(),
            "job_hash": hash(job),
        }
        paths = [Path(name) for name in outputs]
        unknown = [path for path in paths if not is_as_recorded(path)]
        if unknown:
            products.record(rule_name(job.rule), unknown)
        products.describe(paths, made)

    def has_metadata(self, job: Any) -> bool:
        """Say yes: Snakemake does not make again what nothing is known of. These records do, as a difference."""
        return True

    def has_outdated_metadata(self, job: Any) -> bool:
        return False

    def params_changed(self, job: Any, file: Any = None) -> bool | ParamsChange:
        return self.difference(job).params

    def input_changed(self, job: Any, file: Any = None) -> Any:
        difference = self.difference(job)
        if difference.is_unknown and not difference.files:  # nothing is there: that is the reason, and no change
            self.dag.reason(job).missing_output.update(job.output)
        changed = bool(difference.files)
        return iter([changed]) if file is None else changed

    def code_changed(self, job: Any, file: Any = None) -> Any:
        changed = self.difference(job).code
        return iter([changed]) if file is None else changed

    def software_stack_changed(self, job: Any, file: Any = None) -> Any:
        return iter([False]) if file is None else False

    def save_iocache(self) -> None:
        """Snakemake knows what would run."""
        super().save_iocache()
        self._look_at_all()

    def drop_iocache(self) -> None:
        """Snakemake knows what is to run, and it will: remember the times of files that are what they were."""
        super().drop_iocache()
        self._look_at_all()
        for name in self._sha256 if self.dag.workflow.is_main_process else ():
            for _change in products.changes(Path(name), thorough=False):
                pass
        self._sha256.clear()

    def _look_at_all(self) -> None:
        """Find what somebody changed also of jobs that run for another reason, of which Snakemake does not ask."""
        for job in list(self.dag.jobs):
            self.difference(job)
        gc.freeze()
        gc.enable()

    def note_of_next_plan(self) -> str | None:
        """After a run: return what the next plan would say beside that there is nothing to do; None if there is."""
        self._differences.clear()
        self._sha256.clear()
        others, self.others = self.others, {}  # of this run: it is told at its end
        self.tell = _say_nothing  # type: ignore[method-assign]
        jobs = [job for job in self.dag.jobs if self._is_recorded(job)]
        is_made = all(os.path.lexists(file) or is_flagged(file, "temp") for job in jobs for file in job.output)
        is_as_made = is_made and not os.listdir(INCOMPLETE) and not any(map(self.difference, jobs))
        others, self.others = self.others, others
        return kept_line(others) if is_as_made else None

    # -- the comparison -----------------------------------------------------------------------------------------------

    def difference(self, job: Any) -> Difference:
        """Return how a job, as it would run today, differs from the one that made its files."""
        if job not in self._differences:
            self._differences[job] = self._compare(job) if self._is_recorded(job) else Difference()
        return self._differences[job]

    @staticmethod
    def _is_recorded(job: Any) -> bool:
        return bool(job.output) and is_product(str(job.output[0]))

    def _compare(self, job: Any) -> Difference:
        names = [str(file) for file in job.output]
        made = find_origin(names[0])
        there = [name for name in names if os.path.lexists(name)]
        if made is None or set(made["outputs"]) != set(names):
            return Difference(files=[f"nothing says what made {there[0]}"] if there else [], is_unknown=True)
        difference = Difference(params=params_change(map(str, made["params"]), self._settings(job)))
        if len(there) < len(names) and self._filter_incomplete_keys(map(self._get_key, job.output)):
            # Snakemake has removed them when it began: nobody did, and what the job is given changed before that.
            return Difference(params=difference.params, is_interrupted=True)
        inputs = self._product_inputs(job, self._look) | self._foreign_inputs(job, made["inputs"])
        difference.files = [*changed_inputs(made["inputs"], inputs), *self._changed(names)]
        others = made.get("code") != self._code_of(job.rule) or made.get("lock") != self._lock
        if others and rule_name(job.rule) in FOLLOW_THE_CODE:
            difference.code = True
        elif others and not difference:
            self.others.setdefault(rule_name(job.rule), []).append(names[0])
        return difference

    def _changed(self, names: list[str]) -> Iterator[str]:
        """Yield what became of the files that a job made; also of those that are no outputs of its rule."""
        paths = dict.fromkeys([*map(Path, names), *products.made_with(Path(names[0]))])
        for path in paths:
            change = next(products.changes(path, thorough=False, keep=False), None)
            if change is None:
                self._sha256.setdefault(str(path), products.recorded_sha256(path))
            elif self.matters(change):
                self.changes.append(change)
                self.tell(change)
                yield str(change)

    @staticmethod
    def _product_inputs(job: Any, look: Callable[[Path], str | None]) -> dict[str, str | None]:
        """Return the hash of each of mimflow's own products that a job is given."""
        return {name: look(Path(name)) for name in map(str, job.input) if is_product(name)}

    @staticmethod
    def _foreign_inputs(job: Any, known: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any] | None]:
        """Return the content, with its times, of each other file that a job is given.

        Parameters
        ----------
        known : what was recorded of the same files: only what bears other times is read.
        """
        contents = {}
        for name in map(str, job.input):
            if not is_product(name):
                entry = (known or {}).get(name)
                content = content_of(Path(name), entry if isinstance(entry, dict) else None)
                contents[name] = content.as_json() if content else None
        return contents

    def _look(self, path: Path | str) -> str | None:
        name = str(path)
        if name not in self._sha256:
            self._sha256[name] = products.sha256_now(Path(name))
        return self._sha256[name]

    def _settings(self, job: Any) -> list[Any]:
        """Return the parameters of a job in their order: equal values of two of them can change places."""
        return [serialized(value) for value in job.non_derived_params]

    def _code_of(self, rule: Any) -> str | None:
        script = script_of(rule)
        return code_sha256((script,)) if script else None


def kept_line(others: Mapping[str, list[str]]) -> str:
    """Return which files were made by other code and stand all the same; empty where there are none.

    >>> kept_line({"train_model": ["results/demo/a/seed0/best.pth"]})[:57]
    "made by other code or packages than today's, and kept: tr"
    """
    if not others:
        return ""
    steps = ", ".join(f"{name} ({len(files)})" for name, files in sorted(others.items()))
    again = f"ARGS='--forcerun {min(others)}'"
    return f"made by other code or packages than today's, and kept: {steps}; to make a step again: {again}"


def script_of(rule: Any) -> str:
    """Return the module that a rule runs; empty for a rule without one."""
    script = SCRIPT.search(rule.shellcmd or "")
    return script[1] if script else ""


def rule_name(rule: Any) -> str:
    """Return the name of a rule by its script: where mimflow is a module of another workflow, rules bear others."""
    return script_of(rule).rpartition(".")[2] or str(rule.name)


def serialized(value: Any) -> str:
    """Return a parameter as text, the same in every process."""
    if isinstance(value, BaseModel):
        return repr(value.model_dump_json())
    return repr(value)


def params_change(old: Iterable[Any], new: Iterable[Any]) -> ParamsChange:
    """Return how parameters differ, by their values and their order."""
    before, after = list(old), list(new)
    if before == after:
        return NO_PARAMS_CHANGE
    only_old, only_new = set(before) - set(after), set(after) - set(before)
    if not (only_old or only_new):
        only_old, only_new = set(before), set(after)
    return ParamsChange(only_old=only_old, only_new=only_new)


def changed_inputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return which of a job's files are others than before; what lies outside results/ may have another path."""
    products = {name: value for name, value in old.items() if not isinstance(value, dict)}
    changed = [name for name, value in new.items() if is_product(name) and products.get(name) != value]
    lines = [f"{name} is another one than before" for name in changed]
    if gone := [name for name in products if name not in new]:
        lines.append(f"{gone[0]} does not belong to it any more")
    before = sorted(value["sha256"] for value in old.values() if isinstance(value, dict))
    foreign = {name: value for name, value in new.items() if not is_product(name)}
    after = sorted(value["sha256"] for value in foreign.values() if value)
    if after and before != after:  # one that is not there any more is no other one
        others = [name for name, value in foreign.items() if not value or value["sha256"] not in before]
        lines.append(f"{(others or ['a file'])[0]} is another one than before")
    return lines
