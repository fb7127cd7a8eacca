"""What Snakemake would hand to sbatch with a profile: found by running it in a copy of the folder, without any job."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import NamedTuple

from scripts.lib.base import strict_yaml
from scripts.lib.base.console import one_line
from scripts.lib.base.environment import ROOT, Variable
from scripts.lib.base.problems import UserError
from scripts.lib.cluster.slurm import count_gpus, parse_duration
from scripts.lib.settings.load import load_site
from scripts.lib.settings.schema import Settings
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.resources import Resources

#: Entries of the folder that a run writes to: the copy gets its own.
WRITTEN = frozenset({"results", "logs", ".snakemake"})
#: Seconds within which Snakemake has said all: it starts in some, and asks Slurm for the account and the partition.
TIMEOUT = 300.0
#: In the place of an experiment: the job that looks for wrong labels. No experiment has such a name.
SUSPECTS = "label suspects"
#: Options of sbatch that say nothing about what a job may have.
SILENT = frozenset({"--parsable", "--wrap", "--output", "--comment", "--chdir", "-D", "--export"})
#: Snakemake as it is, but without the plugin's pause of 5 s before each submission, which spares a real Slurm; and
#: with an end where the plugin (2.6.0) loses an error in a thread of its own, after which Snakemake waits for ever.
SNAKEMAKE = """
import os, sys, time, types
import snakemake_executor_plugin_slurm as plugin
plugin.time = types.SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
run_job = plugin.Executor.run_job
def run_job_or_end(self, job):
    try:
        run_job(self, job)
    except Exception as error:
        print(f"WorkflowError:\\n{error}", flush=True)
        os._exit(1)
plugin.Executor.run_job = run_job_or_end
from snakemake.cli import main
sys.argv[0] = "snakemake"
main()
"""
#: In the place of sbatch: it writes down its words and refuses, so that nothing is submitted.
SBATCH = """#!/bin/sh
file=$(mktemp {folder}/XXXXXXXX) && printf '%s\\0' "$@" > "$file"
echo 'a rehearsal' >&2
exit 1
"""


@dataclass(frozen=True)
class Submission:
    """One call of sbatch: its words after the name; what it is for: an experiment, `SUSPECTS`, or "" for the data."""

    experiment: str
    attempt: int
    words: tuple[str, ...]

    def option(self, *names: str) -> str | None:
        """Return the value of an option, given as two words or as one; the last one wins, as for sbatch."""
        last = None
        for word, following in itertools.pairwise((*self.words, "")):
            name, equals, value = word.partition("=")
            if name in names:
                last = value if equals else following
        return last

    @property
    def gpus(self) -> int:
        """Return the GPUs that it asks for, on each node where it asks for several nodes."""
        return count_gpus(self.gpu_request)

    @property
    def gpu_request(self) -> str:
        """Return the GPUs as Slurm writes them: ``gpu:1``, ``gpu:rtx3090:1``, or "" without any."""
        by_count = self.option("--gpus")
        return f"gpu:{by_count}" if by_count else self.option("--gres") or ""

    @property
    def gpu_model(self) -> str | None:
        """Return the kind of GPU that it asks for, None for any."""
        return gpu_kind(self.gpu_request)

    @property
    def cores(self) -> int:
        """Return the cores of a node that it asks for; 0 where the cluster is to decide."""
        tasks = self._number("--ntasks") or self._number("--ntasks-per-gpu") * max(self.gpus, 1) or 1
        tasks = max(tasks // (self._number("--nodes") or 1), 1)
        return self._number("--cpus-per-task") * tasks or self._number("--cpus-per-gpu") * self.gpus

    @property
    def memory_mb(self) -> int:
        """Return the memory that it asks for; 0 where the cluster is to decide."""
        return self._number("--mem") or self._number("--mem-per-cpu") * max(self.cores, 1)

    @property
    def minutes(self) -> float | None:
        """Return the time limit that it asks for; None where the cluster is to decide."""
        text = self.option("-t", "--time") or ""
        seconds = parse_duration(text)
        return float(text) if text.isdecimal() else None if seconds is None else seconds / 60

    def shown(self) -> str:
        """Return the call for people, without what is the same for every job."""
        words, skip = [], False
        for word in self.words:
            name, equals, _ = word.partition("=")
            if skip or name in SILENT:
                skip = not skip and name != "--parsable" and not equals
                continue
            # Snakemake's own id of the run follows the prefix.
            words.append(re.sub(r"_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "_...", word))
        return shlex.join(["sbatch", *words])

    def _number(self, name: str) -> int:
        text = self.option(name) or ""
        return int(text) if text.isdecimal() else 0


def gpu_kind(request: str) -> str | None:
    """Return the kind of GPU in ``gpu:rtx3090:1``; None where there is none."""
    match = re.match(r"gpu:([A-Za-z_][^:]*)", request)
    return match[1] if match else None


def rehearse(profile: Path, settings: Settings) -> list[Submission]:
    """Return what sbatch would be told for the data job and the training jobs, all attempts of each.

    Nothing is submitted and nothing is written below the repository's folder.

    Parameters
    ----------
    profile : folder of the profile.
    settings : of the experiments; one seed of each is looked at, and no folds, since all runs ask for the same.

    Raises
    ------
    UserError : Snakemake, or its plugin for Slurm, does not accept the profile.
    """
    split = settings.dataset.split.model_copy(update={"folds": None})
    dataset = settings.dataset.model_copy(update={"split": split})
    settings = settings.model_copy(update={"dataset": dataset, "seeds": settings.seeds[:1]})
    layout = Layout(settings)
    resources = Resources(settings, load_site(profile), layout)
    fetched = layout.downloads()
    lists = [f"splits/{split}.txt" for split in ("train", "val", "test")]
    audit = ("audit.csv", "audit.json", "audit.html", "corrections.csv", "corrected.csv")
    names_made = ("images/", "unpacked.json", *audit, "classes.txt", *lists)
    made = [f"{layout.dataset}/{name}" for name in names_made]
    short_sides = {experiment.cached_short_side() for experiment in settings.experiments.values()}
    made += [f"{layout.pixel_cache.format(short_side=pixels)}/" for pixels in short_sides if pixels]
    # Of a run on several nodes the training is a job of its own, and the one that may be refused.
    for name, experiment in settings.experiments.items():
        if experiment.nodes > 1:
            run = {"experiment": name, "seed": layout.seeds[0]}
            made += [str(path).format(**run) for path in (layout.run.config, layout.run.init)]
    with _started(profile, settings, fetched) as data, _started(profile, settings, fetched + made) as training:
        run_group, seed = resources.run_group, layout.seeds[0]
        groups = {name: run_group.format(experiment=name, seed=seed) for name in layout.experiments}
        groups[SUSPECTS] = resources.suspects_group
        return [*data.submissions(groups), *training.submissions(groups)]


class _Rehearsal(NamedTuple):
    """A Snakemake that runs in a copy of the folder, and the folder of its calls of sbatch."""

    process: subprocess.Popen[str]
    calls: Path
    copy: Path

    def submissions(self, groups: Mapping[str, str]) -> list[Submission]:
        """Wait for its end and return the calls of sbatch, the oldest first; *groups*: of each experiment's jobs."""
        try:
            output, _ = self.process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            what = f"snakemake did not submit within {TIMEOUT:.0f} s: Slurm answers slowly"
            raise UserError(what, "try again later") from None
        submissions: list[Submission] = []
        for file in sorted(self.calls.iterdir(), key=lambda file: file.stat().st_mtime_ns):
            text = file.read_text(encoding="utf-8").replace(str(self.copy), str(ROOT))
            words = tuple(text.split("\0")[:-1])
            experiment = _experiment_of(Submission("", 1, words).option("--comment") or "", groups)
            earlier = sum(submission.experiment == experiment for submission in submissions)
            submissions.append(Submission(experiment, earlier + 1, words))
        if not submissions:
            raise UserError(refusal_of(output))
        return submissions


def _experiment_of(comment: str, groups: Mapping[str, str]) -> str:
    """Return the experiment of a job by its comment, `rule_<group>_<rules>...`; "" for the data's."""
    candidates = (name for name, group in groups.items() if f"{comment}_".startswith(f"rule_{group}_"))
    return max(candidates, key=len, default="")


@contextlib.contextmanager
def _started(profile: Path, settings: Settings, there: list[str]) -> Iterator[_Rehearsal]:
    """Start Snakemake in a copy of the folder in which the files, and folders with a / at the end, of *there* exist."""
    with tempfile.TemporaryDirectory(prefix="mimflow-doctor-") as name:
        folder = Path(name).resolve()
        copy, programs, calls = (folder / name for name in ("copy", "programs", "calls"))
        for subfolder in (copy, programs, calls):
            subfolder.mkdir()
        for entry in ROOT.iterdir():
            if entry.name not in WRITTEN:
                (copy / entry.name).symlink_to(entry)
        sbatch = programs / "sbatch"
        sbatch.write_text(SBATCH.format(folder=shlex.quote(str(calls))), encoding="utf-8")
        sbatch.chmod(0o755)
        config = copy / "rehearsal.yaml"
        config.write_text(strict_yaml.dump(settings.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
        now = time.time()
        for path in there:
            made = copy / path
            (made if path.endswith("/") else made.parent).mkdir(parents=True, exist_ok=True)
            made.touch()
            os.utime(made, (now, now))  # none is newer than another: nothing is to be made again
        environment = {**os.environ, Variable.SITE: str(profile.resolve())}
        environment["PATH"] = os.pathsep.join([str(programs), environment.get("PATH", "")])
        command = [sys.executable, "-c", SNAKEMAKE, "--profile", str(profile.resolve()), "--configfile", str(config)]
        command += ["--rerun-triggers", "mtime", "--executor", "slurm", "--no-hooks", "--printshellcmds"]
        process = subprocess.Popen(
            command, cwd=copy, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, text=True, errors="replace"
        )
        try:
            yield _Rehearsal(process, calls, copy)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def refusal_of(output: str) -> str:
    """Return in one line why Snakemake ended, out of all that it printed."""
    # WorkflowError stands on a line of its own, its message below it.
    if match := re.search(r"^WorkflowError.*?:\n((?:.+\n?)+)", output, re.MULTILINE):
        return one_line(match[1])
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line.partition("error: ")[2] for line in lines if re.match(r"(snakemake: )?error: ", line)]
    return one_line((errors or lines or ["snakemake submitted nothing and said nothing"])[-1])
