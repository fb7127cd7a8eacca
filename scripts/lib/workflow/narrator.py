"""What a run says on the terminal: results as they come, how things stand, and at the very end what matters."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.cells import cell_len
from snakemake.logging import LogEvent

from scripts.lib.base.console import one_line
from scripts.lib.base.environment import Variable
from scripts.lib.base.language import speaking, tr_line
from scripts.lib.base.outcome import Ending, Outcome, is_recent, outcome_path
from scripts.lib.base.problems import STOPPED, UserError
from scripts.lib.base.screen import Screen
from scripts.lib.base.text import shorten
from scripts.lib.base.units import duration_in_words, plural
from scripts.lib.cluster import slurm
from scripts.lib.workflow.failures import OUT_OF_MEMORY, describe_end, endings, own_error
from scripts.lib.workflow.job_table import label
from scripts.lib.workflow.progress import RunProgress, State, Watcher

#: A step that is silent for longer is named; a shorter one speaks by its result.
SILENCE_SECONDS = 8.0
#: Without a terminal it is named again after as long.
AGAIN_SECONDS = 30.0
LOOK_SECONDS = 5.0
SLURM_SECONDS = 15.0
#: What Snakemake says of a failure beside the failure itself.
NOISE = re.compile(
    r"Exiting because a job execution failed|WorkflowError:\s+At least one job did not|Logfile |Remaining jobs"
)
TELLING = re.compile(r"slurmstepd: error|oom.kill|DUE TO|(?<!Workflow)error:|Killed", re.IGNORECASE)
#: What stands before Slurm's words where a full disk cut off the end of a line.
BEFORE_SLURM = re.compile(r"^.*(?=(?:srun|slurmstepd): error)")
NOTHING = "Nothing to be done"
#: What a step does is not cut to less, in columns, while something else can be left out.
SHORTEST = 20


@dataclass
class Step:
    """A step that runs: what it does, its logs, and when it began."""

    what: str
    logs: Sequence[str]
    began: float = field(default_factory=time.monotonic)
    is_named: bool = False


@dataclass(frozen=True)
class Failure:
    """A step, or the steps of one cluster job, that failed: what it did, the logs of its commands, others."""

    what: str
    logs: Sequence[str]
    others: Sequence[str] = ()

    def outcomes(self, since: float) -> list[Path]:
        """Return the files in which its commands told their ends since a time."""
        return [path for path in map(outcome_path, map(Path, self.logs)) if is_recent(path, since)]

    def reason(self, since: float, ends: Mapping[str, str]) -> str:
        """Return why, in one line, by what a command left, else by how it ended or by the cluster's own log.

        Parameters
        ----------
        since : when this run began; what earlier ones left counts for nothing.
        ends : how commands ended, by their logs.
        """
        for outcome in map(Outcome.read, self.outcomes(since)):
            if outcome and outcome.ending != Ending.INTERRUPTED:
                return str(outcome)
        text = ""
        for log in self.others:
            with suppress(OSError):
                text += Path(log).read_text(encoding="utf-8", errors="replace")
        ends = {**ends, **endings(text)}
        ended = next((log for log in self.logs if log in ends), "")
        log = ended or next(iter(self.logs), "")
        line = next((line.strip() for line in reversed(text.splitlines()) if TELLING.search(line)), "")
        words = BEFORE_SLURM.sub("", line)
        if words and not ended and not OUT_OF_MEMORY.search(text):
            return f"{self.what} ended without a word ({words}): see {self.others[0]} and run it again"
        return describe_end(self.what, log, ends.get(ended, ""), text if self.others else None)


class Narrator(logging.Handler):
    """Takes the place of Snakemake's own handler.

    Parameters
    ----------
    results : the folder with the data sets.
    dataset : the name of this one.
    language : of what is said.
    """

    def __init__(self, results: Path, dataset: str, language: str = "en") -> None:
        super().__init__(logging.INFO)
        self.results, self.dataset, self.language = results, dataset, language
        self.steps: dict[int, Step] = {}
        self.failures: list[Failure] = []
        self._began, self._ends = time.time(), dict[str, str]()
        self.withheld: list[str] = []
        self.is_slurm = False
        self.is_stopping = False
        #: What each job does, by its number: of a group, Snakemake tells only the numbers.
        self.names: dict[int, str] = {}
        self._done, self._total, self._stage = 0, 0, "looking at what is to do"
        self._left, self._training, self._looked = "", "", 0.0
        self._has_jobs = False
        self._jobs: dict[str, str] = {}
        self._spoke = self._waits_since = time.monotonic()
        self.has_warned = self.has_nothing_to_do = self.has_broken = False
        self.screen = Screen(self._to_print, self._status)
        if self.screen.is_live:
            os.environ[Variable.LIVE] = "1"
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="narrator", daemon=True).start()

    # -- what Snakemake says ---------------------------------------------------------------------------------------

    def emit(self, record: logging.LogRecord) -> None:
        """Say what a record means for the user, if anything."""
        event, fields = getattr(record, "event", None), record.__dict__
        if event == LogEvent.JOB_INFO:
            self.names[fields["jobid"]] = fields["rule_msg"] or fields["rule_name"]
            if not (self.is_slurm and fields["indent"]):  # of a job that waits in Slurm
                self.steps[fields["jobid"]] = Step(self.names[fields["jobid"]], fields["log"])
        elif event == LogEvent.JOB_FINISHED:
            self.steps.pop(fields["job_id"], None)
            self.screen.forget()
        elif event == LogEvent.PROGRESS:
            self._done, self._total = fields["done"], fields["total"]
            self._stage, self._waits_since = "", time.monotonic()
        elif event == LogEvent.RUN_INFO and not fields["stats"]["total"]:
            self.say_nothing()
        elif event == LogEvent.RUN_INFO:
            self._total, self._stage = fields["stats"]["total"], ""
            self.say(
                f"{plural(self._total, 'step')} to do; details of each: logs/, and with ARGS=--printshellcmds here"
            )
        elif event == LogEvent.GROUP_ERROR and not self.is_stopping:
            infos = fields["job_error_info"]
            job = next((info for info in infos if info["rule_name"] == "train_model"), infos[0])
            logs = [log for info in infos for log in info["log"]]
            self._fail(Failure(self.names.get(job["jobid"], job["rule_name"]), logs, fields["aux_logs"]))
        elif event == LogEvent.JOB_ERROR:
            self.steps.pop(fields["jobid"], None)
            if not (fields.get("indent") or self.is_stopping):  # else the error of its group has said it
                self._fail(Failure(self.names.get(fields["jobid"], fields["rule_name"]), fields["log"]))
        elif event == LogEvent.ERROR and not self.is_stopping:
            self._hear_error(str(record.getMessage()).strip(), fields["exception"])
        elif event is None:
            self._hear(record)

    def _hear(self, record: logging.LogRecord) -> None:
        text = str(record.getMessage()).strip()
        if text.startswith(NOTHING):
            self.say_nothing()
        elif text.startswith("Trying to restart job") and self.failures:
            failure = self.failures.pop()
            reason = failure.reason(self._began, self._ends)
            self.withheld = [line for line in self.withheld if reason not in line]
            self.say(f"{failure.what} is tried again: {reason}")
        elif record.levelno >= logging.WARNING and text and not NOISE.search(text):
            self.has_warned = True
            self.say(text)

    def _hear_error(self, text: str, kind: str) -> None:
        """Keep for the end what Snakemake itself cannot do, such as to make a file that no rule makes."""
        self._ends.update(endings(text))
        if not NOISE.search(text):
            self.has_broken = True
            self.withheld.append(f"error: {one_line(own_error(text, kind))}")

    def say_nothing(self) -> None:
        """Say that there is nothing to do."""
        self.has_nothing_to_do = True
        report = self.results / self.dataset / "report.html"
        where = f"; the report: {report}" if report.is_file() else ""
        self.say(f"nothing to do: everything is made as the settings say{where}")

    def _fail(self, failure: Failure) -> None:
        self.failures.append(failure)
        if failure.logs and not (failure.others or failure.outcomes(self._began)):  # `make watch` shows it
            reason = failure.reason(self._began, self._ends)
            Outcome(Ending.FAILED, reason, again=True).write(outcome_path(Path(failure.logs[0])))
        if self._done < self._total:
            self.say(f"failed: {failure.what}; what does not need it goes on")

    def say(self, line: str) -> None:
        """Print a line."""
        self._spoke = time.monotonic()
        self.screen.say(self.translated(line))

    def translated(self, line: str) -> str:
        """Return a line in the language that is spoken: each thread has its own."""
        with speaking(self.language):
            return tr_line(line)

    def close(self) -> None:
        """Give the terminal back."""
        self._ended.set()
        self.screen.close()
        super().close()

    def errors(self) -> list[str]:
        """Return a line for each thing that went wrong, without those that a later attempt mended."""
        reasons = [failure.reason(self._began, self._ends) for failure in self.failures]
        if not reasons and not self.is_stopping:
            return list(dict.fromkeys(self.withheld))
        return list(dict.fromkeys(f"error: {reason}" for reason in reasons))

    # -- what the steps say, and how things stand ------------------------------------------------------------------

    def _to_print(self, line: str) -> str | None:
        self._spoke = time.monotonic()
        if line.startswith("error: "):
            self.withheld.append(line)  # the errors are the last lines of all
        return None if line.startswith("error: ") or line.strip() == STOPPED else self.translated(line)

    def _status(self, rewritten: str, columns: int) -> str:
        steps = list(self.steps.values())
        say = self.translated
        count = f"{self._done} {say('of')} {self._total}" if self._total else ""
        what, left = self._stage or "waiting", self._left
        details = [duration_in_words(time.monotonic() - self._waits_since), *filter(None, [self._training])]
        more = ""
        if steps and not self._stage:
            last, more = steps[-1], f" (and {len(steps) - 1} more)" * (len(steps) > 1)
            # The time too: it goes on where a child says nothing new for long.
            what, details = one_line(last.what), [duration_in_words(time.monotonic() - last.began)]
            details += [" ".join(words.split()) for words in re.split(r" {2,}", rewritten) if words]
            if not left and details[-1].endswith(" left"):  # of the only run: of the whole, too
                left = details.pop()
        states = [text.split(" ")[0] for text in self._jobs.values()]
        slurm_jobs = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        ends = [f"{slurm_jobs} in Slurm" if states else "", left]
        return fit(count, say(what) + say(more), [*map(say, details)], [*map(say, ends)], columns)

    def _watch(self) -> None:
        """Name what is silent, and look now and then how far the runs and the Slurm jobs are."""
        asked = 0.0
        watcher = Watcher(self.results)
        while not self._ended.wait(1.0):
            now = time.monotonic()
            for step in list(self.steps.values()):
                silent = now - max(step.began, self._spoke)
                if self.screen.is_live or silent <= (AGAIN_SECONDS if step.is_named else SILENCE_SECONDS):
                    continue
                so_far = f" {duration_in_words(now - step.began)} so far" if step.is_named else ""
                step.is_named = True
                self.say(f"[{self._done} of {self._total}] {step.what} ...{so_far}")
            with suppress(OSError, ValueError, UserError):
                if self.screen.is_live and now - self._looked > LOOK_SECONDS:
                    self._looked = now
                    runs = watcher.look(self.dataset).runs
                    self._left, self._training = time_left(runs), training_now(runs)
                if self.is_slurm and now - asked > SLURM_SECONDS:
                    asked = now
                    self._ask_slurm()

    def _ask_slurm(self) -> None:
        jobs = {}
        for job in slurm.my_jobs(Path.cwd()):
            where = f"running on {job.nodes}" if job.state == "RUNNING" else job.state.lower()
            jobs[job.id] = where + f" ({job.reason})" * (job.state == "PENDING" and bool(job.reason))
            if jobs[job.id] != self._jobs.get(job.id):
                remedy = f"; it will not start by itself: {job.remedy}" if job.remedy else ""
                self.say(f"Slurm job {job.id}, {label(job, Path.cwd())}: {jobs[job.id]}{remedy}")
        if jobs and not self._has_jobs:
            self._has_jobs = True
            self.say("`make jobs` shows the jobs in Slurm, `make watch` how far each run is")
        self._jobs = jobs


def fit(count: str, what: str, details: Sequence[str], ends: Sequence[str], columns: int) -> str:
    """Return how things stand in a line of at most *columns*; what tells least is left out first, no number is cut.

    Parameters
    ----------
    count : how many steps are done.
    what : the step that runs.
    details : how long it runs, and what it says, of which the first and the last tell most.
    ends : of the whole run, such as the time left.
    """
    details, ends = list(details), list(filter(None, ends))
    while True:
        says = [f": {'  '.join(details)}"] if details else []
        rest = "".join([*says, *(f"  {end}" for end in ends)])
        room = columns - cell_len(f"{count}  {rest}" if count else rest)
        least = cell_len(what) if len(details) > 3 else min(cell_len(what), SHORTEST)
        if room >= least or not details:
            return "  ".join(filter(None, [count, shorten(what, max(room, least)) + rest]))
        # What stands between how far it is and the time it still takes; then this time; then how long it runs.
        if len(details) == 1 and len(ends) > 1:
            ends.pop(0)
        else:
            details.pop(2 if len(details) > 3 else 0 if len(details) == 2 else -1)


def training_now(runs: Sequence[RunProgress]) -> str:
    """Return at which epoch training is, of the first run that trains; empty where none does."""
    training = [run for run in runs if run.state == State.TRAINING and run.max_epochs]
    if not training:
        return ""
    first, more = training[0], f" (and {len(training) - 1} more)" * (len(training) > 1)
    return f"epoch {first.epochs_done}/{first.max_epochs} of {first.experiment}, seed {first.which}{more}"


def time_left(runs: Sequence[RunProgress]) -> str:
    """Return about how long training takes still, all runs together; empty where none has told its rate yet.

    Those that wait count as long as those that are known, and as many train at a time as do now.
    """
    training = [run for run in runs if run.state == State.TRAINING and run.seconds_left is not None]
    if not training or len(runs) == 1:
        return ""
    left = [run.seconds_left or 0.0 for run in training]
    whole = max(seconds / max(1.0 - (run.fraction or 0.0), 0.01) for run, seconds in zip(training, left, strict=True))
    waiting = sum(run.fraction is None and run.state != State.FAILED for run in runs)
    return f"about {duration_in_words(max(left) + waiting * whole / len(training))} of training left"
