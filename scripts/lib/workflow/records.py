"""What made each file of results/: recorded beside the files, and compared by content at each start of Snakemake.

Snakemake's own records lie in .snakemake and go by names and times: results that came without them would stand for any
settings, and a file that was changed would pass as what it was. These are the records of a class of Snakemake's
for that purpose, so that `-n`, `--list-changes` and the reasons of jobs say what these say.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from snakemake.io import Mtime
from snakemake.persistence import NO_PARAMS_CHANGE, RECORD_FORMAT_VERSION, MetadataRecord, ParamsChange
from snakemake.persistence.file import FilePersistence
from snakemake_interface_executor_plugins.settings import ExecMode

from scripts.lib.base.files import find_json, write_json
from scripts.lib.base.source_code import code_sha256
from scripts.lib.runs.contents import content_of
from scripts.lib.runs.machine import lock_sha256
from scripts.lib.runs.run_folder import CHECKPOINTS, FOLD, RunFolder

#: In results/<dataset>/ for what belongs to all runs, in each run's folder, and in results/checkpoints/.
NAME = "made.json"
#: Another one is as good as none: everything is made again.
FORMAT = 1
#: What the script of a rule is called in its shell line.
SCRIPT = re.compile(r"python -m (scripts\.[\w.]+)")
#: Rules that other code of their own has run again: a matter of seconds, and they put numbers side by side.
FOLLOW_THE_CODE = frozenset({"compare_runs", "describe_crate", "write_report"})
#: Of the products of a run, what nothing is made of, and a user may delete to save room.
MAY_BE_GONE = frozenset({str(RunFolder.last)})


def keep(workflow: Any) -> None:
    """Have Snakemake keep and compare these records in place of its own.

    Only of the process that decides what runs: a job on a node is told what to do.
    """
    if workflow.is_main_process:
        import snakemake.workflow  # here, since it imports itself by way of the others

        snakemake.workflow.FilePersistence = Records  # the class of Snakemake's backend `file`


async def _same_time(_path: Any) -> Mtime:
    return Mtime(local=0.0)


def record_file(path: str) -> Path | None:
    """Return where it is recorded what made a file; None for one that is not below results/.

    >>> str(record_file("results/demo/resnet/seed0/figures/curves.svg"))
    'results/demo/resnet/seed0/made.json'
    >>> str(record_file("results/demo/splits/fold1/test.txt"))
    'results/demo/made.json'
    """
    parts = Path(path).parts
    if len(parts) < 3 or parts[0] != "results":
        return None
    depth = 2
    if len(parts) > 4 and re.fullmatch(r"seed\d+", parts[3]) and parts[1] != CHECKPOINTS:
        depth = 5 if len(parts) > 5 and FOLD.fullmatch(parts[4]) else 4
    return Path(*parts[:depth], NAME)


@dataclass
class Difference:
    """How a job differs from the one that made its files: in settings, in files, in mimflow's code."""

    params: ParamsChange = field(default_factory=ParamsChange)
    files: list[str] = field(default_factory=list)
    is_unknown: bool = False
    code: bool = False

    def __bool__(self) -> bool:
        return bool(self.params or self.files or self.is_unknown or self.code)


class Records(FilePersistence):
    """What made.json in the folders of results/ says. One process writes them: the one that holds Snakemake's lock."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options)
        self.dag.workflow.iocache.collect_mtime = _same_time  # until jobs run: no file is newer than another
        self._lock = lock_sha256()
        self._folders: dict[Path, dict[str, Any]] = {}
        self._differences: dict[Any, Difference] = {}
        self._began: dict[Any, dict[str, Any]] = {}  # by job: what it was given
        self._stale: set[Path] = set()  # records of files that are the same, but bear other times
        #: What was made by other code, or packages of another lock, and stands all the same: by rule, its first files.
        self.others: dict[str, list[str]] = {}
        #: Folders of images that somebody has changed in results/.
        self.edited: list[str] = []

    # -- the files of records -----------------------------------------------------------------------------------------

    def _jobs(self, path: Path) -> dict[str, Any]:
        """Return the jobs of a record, by the first of their outputs."""
        if path not in self._folders:
            content = find_json(path)
            jobs = content.get("jobs") if content.get("format") == FORMAT else None
            entries = jobs.items() if isinstance(jobs, dict) else ()
            self._folders[path] = {first: job for first, job in entries if is_record(job)}
        return self._folders[path]

    def _find(self, output: str) -> dict[str, Any] | None:
        """Return what is recorded of the job that made a file."""
        path = record_file(output)
        jobs = self._jobs(path) if path else {}
        if output in jobs:
            return dict(jobs[output])
        return next((job for job in jobs.values() if output in job.get("outputs", {})), None)

    def _change(self, path: Path, first: str, job: Mapping[str, Any] | None) -> None:
        jobs = self._jobs(path)
        if job is None and jobs.pop(first, None) is None:
            return
        if job is not None:
            jobs[first] = dict(job)
        self._write(path)

    def _write(self, path: Path) -> None:
        jobs = self._jobs(path)
        write_json(path, {"format": FORMAT, "jobs": {first: jobs[first] for first in sorted(jobs)}})

    # -- what Snakemake asks for ---------------------------------------------------------------------------------------

    def _read_record(self, key: str) -> MetadataRecord | None:
        made = self._find(key)
        if made is None:
            return super()._read_record(key) if record_file(key) is None else None
        known = {name: made.get(name) for name in ("rule", "params", "starttime", "endtime", "job_hash")}
        names = sorted(made.get("inputs", {}))
        return MetadataRecord(**known, input=names, record_format_version=RECORD_FORMAT_VERSION, incomplete=False)

    def _delete_record(self, key: str) -> bool:
        path = record_file(key)
        if path is None:
            return bool(super()._delete_record(key))
        first = next((first for first, job in self._jobs(path).items() if key in job.get("outputs", {})), None)
        if first is not None:
            self._change(path, first, None)
        return first is not None

    def started(self, job: Any, external_jobid: str | None = None) -> None:
        """Note what a job is given: what somebody changes meanwhile is not what it was made of."""
        super().started(job, external_jobid)
        self._began[job] = self._inputs(job)

    async def finished(self, job: Any) -> None:
        """Record what made the outputs of a job, and what they are."""
        path = record_file(str(job.output[0])) if job.output else None
        keeps = self.dag.workflow.execution_settings.keep_metadata
        if path is None or self.dag.workflow.exec_mode != ExecMode.DEFAULT or not keeps:
            await super().finished(job)
            return
        first = str(job.output[0])
        began = min(filter(None, (self._get_recorded_starttime(str(file)) for file in job.output)), default=time.time())
        outputs = {str(file): content_of(Path(file)) for file in job.output}
        made = {
            "rule": job.rule.name,
            "params": self._settings(job),
            "inputs": self._began.pop(job, None) or self._inputs(job),
            "outputs": {name: content.as_json() for name, content in outputs.items() if content},
            "code": self._code_of(job.rule),
            "lock": self._lock,
            "starttime": began,
            "endtime": time.time(),
            "job_hash": hash(job),
        }
        self._change(path, first, made if all(outputs.values()) else None)
        for file in job.output:
            self._unmark_incomplete(self._get_key(file))

    def has_metadata(self, job: Any) -> bool:
        """Say yes: Snakemake does not make again what nothing is known of. These records do, as a difference."""
        return True

    def has_outdated_metadata(self, job: Any) -> bool:
        return False

    def params_changed(self, job: Any, file: Any = None) -> bool | ParamsChange:
        return self.difference(job).params

    def input_changed(self, job: Any, file: Any = None) -> Any:
        difference = self.difference(job)
        changed = bool(difference.files) or difference.is_unknown
        return iter([changed]) if file is None else changed

    def code_changed(self, job: Any, file: Any = None) -> Any:
        changed = self.difference(job).code
        return iter([changed]) if file is None else changed

    def software_stack_changed(self, job: Any, file: Any = None) -> Any:
        return iter([False]) if file is None else False

    def drop_iocache(self) -> None:
        """Snakemake knows what is to run, and it will: remember the times of files that are what they were."""
        super().drop_iocache()
        for path in self._stale if self.dag.workflow.is_main_process else ():
            try:
                self._write(path)
            except OSError:
                continue  # of results that cannot be written: only the next start's time is lost
        self._stale.clear()

    # -- the comparison -----------------------------------------------------------------------------------------------

    def difference(self, job: Any) -> Difference:
        """Return how a job, as it would run today, differs from the one that made its files."""
        if job not in self._differences:
            self._differences[job] = self._compare(job) if self._is_recorded(job) else Difference()
        return self._differences[job]

    @staticmethod
    def _is_recorded(job: Any) -> bool:
        return bool(job.output) and record_file(str(job.output[0])) is not None

    def _compare(self, job: Any) -> Difference:
        names = [str(file) for file in job.output]
        made = self._find(names[0])
        there = [name for name in names if os.path.lexists(name)]
        if made is None or set(made.get("outputs", {})) != set(names):
            return Difference(files=[f"nothing says what made {there[0]}"] if there else [], is_unknown=True)
        difference = Difference(params=params_change(map(str, made["params"]), self._settings(job)))
        difference.files = [*changed_inputs(made.get("inputs", {}), self._inputs(job)), *self._changed(made, there)]
        others = made.get("code") != self._code_of(job.rule) or made.get("lock") != self._lock
        if others and rule_name(job.rule) in FOLLOW_THE_CODE:
            difference.code = True
        elif others and not difference:
            self.others.setdefault(rule_name(job.rule), []).append(names[0])
        return difference

    def _changed(self, made: Mapping[str, Any], there: list[str]) -> Iterator[str]:
        """Yield what became of the files that a job made."""
        if not there:
            return
        for name, recorded in made["outputs"].items():
            if name not in there:
                if Path(name).name not in MAY_BE_GONE:
                    yield f"{name} is gone"
            elif self._sha256(name) != recorded.get("sha256"):
                yield f"{name} is not what was made: it was changed, or damaged"
                if name.endswith("/images") and os.path.isdir(name):
                    self.edited.append(name)

    def _inputs(self, job: Any) -> dict[str, Any]:
        """Return the content of what a job is given: of mimflow's own products the hash, of others their times too."""
        contents: dict[str, Any] = {}
        made = None
        for file in job.input:
            name = str(file)
            if record_file(name) is not None:
                contents[name] = self._sha256(name)
                continue
            made = made if made is not None else (self._find(str(job.output[0])) or {}).get("inputs", {})
            known = made.get(name)
            content = content_of(Path(name), known if isinstance(known, dict) else None)
            contents[name] = content.as_json() if content else None
        return contents

    def _sha256(self, name: str) -> str | None:
        """Return the hash of a product: the recorded one where it is not there, or bears the recorded times."""
        path, made = record_file(name), self._find(name)
        known = made["outputs"][name] if made and name in made.get("outputs", {}) else None
        content = content_of(Path(name), known)
        if content is None:
            return known["sha256"] if known else None
        if made and known and path and content.sha256 == known.get("sha256") and content.as_json() != known:
            self._jobs(path)[next(iter(made["outputs"]))]["outputs"][name] = content.as_json()
            self._stale.add(path)
        return content.sha256

    def _settings(self, job: Any) -> list[Any]:
        """Return the parameters of a job in their order: equal values of two of them can change places."""
        return [serialized(value) for value in job.non_derived_params]

    def _code_of(self, rule: Any) -> str | None:
        script = SCRIPT.search(rule.shellcmd or "")
        return code_sha256((script[1],)) if script else None


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


def is_record(job: Any) -> bool:
    """Tell whether an entry of a made.json has the form of one: what somebody changed counts as nothing."""
    if not isinstance(job, dict) or not all(isinstance(job.get(name), dict) for name in ("inputs", "outputs")):
        return False
    contents = [*job["outputs"].values(), *(value for value in job["inputs"].values() if isinstance(value, dict))]
    return isinstance(job.get("params"), list) and all(
        isinstance(content, dict) and isinstance(content.get("sha256"), str) for content in contents
    )


def rule_name(rule: Any) -> str:
    """Return the name of a rule by its script: where mimflow is a module of another workflow, rules bear others."""
    script = SCRIPT.search(rule.shellcmd or "")
    return script[1].rpartition(".")[2] if script else str(rule.name)


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
    changed = [name for name, value in new.items() if record_file(name) is not None and products.get(name) != value]
    lines = [f"{name} is another one than before" for name in changed]
    if gone := [name for name in products if name not in new]:
        lines.append(f"{gone[0]} does not belong to it any more")
    before = sorted(value["sha256"] for value in old.values() if isinstance(value, dict))
    foreign = {name: value for name, value in new.items() if record_file(name) is None}
    after = sorted(value["sha256"] for value in foreign.values() if value)
    if after and before != after:  # one that is not there any more is no other one
        others = [name for name, value in foreign.items() if not value or value["sha256"] not in before]
        lines.append(f"{(others or ['a file'])[0]} is another one than before")
    return lines
