"""Why jobs failed that could not say it themselves: killed, no memory, a full disk, files that cannot be replaced."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

from scripts.lib.base.console import describe_os_error
from scripts.lib.base.disks import describe_full_disk, usual_folders
from scripts.lib.base.subprocesses import memory_ran_out, was_killed

#: What Snakemake and its plugin for Slurm write of a job that was killed by SIGKILL, which is what the kernel does when
#: memory has run out.
KILLED = re.compile(
    r"died with <Signals\.SIGKILL: 9>|returned non-zero exit status 137\b|SLURM status is: '?OUT_OF_ME", re.IGNORECASE
)
#: What a traceback holds where the operating system refused something.
REFUSED = re.compile(r"\[Errno (\d+)\] [^:]*: b?'(.*?)'")
RULE = re.compile(r"^Error in (?:rule|group) ([\w-]+)", re.MULTILINE)
#: What takes the memory of a job, by its rule.
REMEDIES = {"train_model": ["lower batch_size or workers of the experiment"]}
#: How Snakemake tells the end of a command: its log, and its signal or exit status.
ENDED = re.compile(r"--log (\S+)[^\n]*' (?:died with <Signals\.(SIG\w+)|returned non-zero exit status (\d+))")
#: What shells exit with where the program of a command is missing, and where a signal ended it (more by its number).
NO_PROGRAM, BY_SIGNAL = 127, 128
SIGNALS = frozenset(map(int, signal.Signals))
#: What the log of a cluster's job says where its memory was too small.
OUT_OF_MEMORY = re.compile(r"oom.kill|OUT_OF_ME", re.IGNORECASE)


def killed_rules(log: str) -> list[str]:
    """Return the rules whose jobs were killed, by the text of Snakemake's log; "a job" where it names none."""
    rules: dict[str, None] = {}
    for match in KILLED.finditer(log):
        before = log.rfind("Error in", 0, match.start())
        # Snakemake writes the reason before the heading of the job, the plugin below it, with lines that are indented.
        below = before >= 0 and not re.search(r"^\S", log[log.find("\n", before) + 1 : match.start()], re.MULTILINE)
        rule = RULE.search(log, before if below else match.end())
        rules[rule[1] if rule else "a job"] = None
    return list(rules)


def endings(text: str) -> dict[str, str]:
    """Return how commands ended, by their logs: ``SIGKILL``, or the exit status; of a text of Snakemake's."""
    ends = {}
    for log, name, status in ENDED.findall(text):
        number = int(status or 0) - BY_SIGNAL
        ends[log] = name or (signal.Signals(number).name if number in SIGNALS else status)
    return ends


def describe_end(what: str, log: str, end: str, cluster_log: str | None = None) -> str:
    """Return why a step failed that left no outcome.

    Parameters
    ----------
    what : the step.
    log : of its command.
    end : how that ended, of :func:`endings`; empty: not known.
    cluster_log : the text of the log of its job, where it ran on another machine.
    """
    if cluster_log and OUT_OF_MEMORY.search(cluster_log):
        return ": ".join(was_killed(what, True, REMEDIES.get(Path(log).stem, ())))
    if end == signal.SIGKILL.name:
        ran_out = memory_ran_out() if cluster_log is None else None
        return ": ".join(was_killed(what, ran_out, REMEDIES.get(Path(log).stem, ())))
    if end == str(NO_PROGRAM):
        return f"{what} could not begin, since a program of it is missing: `make doctor` tells what is wrong"
    if end.startswith("SIG"):
        return f"{what} was ended by {end}: run the same command again; if it comes again, report it with its log"
    how = f" (exit status {end})" if end else ""
    return f"{what} ended without a word{how}: the lines above may tell why; run the same command again"


def causes(logs: Sequence[str], is_killed_told: bool = False) -> list[str]:
    """Return a line for each cause of a failure that Snakemake's *logs* and the disks tell.

    Parameters
    ----------
    is_killed_told : that jobs were killed is told elsewhere.
    """
    texts = [Path(log).read_text(encoding="utf-8", errors="replace") for log in logs if Path(log).is_file()]
    killed = [] if is_killed_told else dict.fromkeys(rule for text in texts for rule in killed_rules(text))
    lines = [": ".join(was_killed(rule, None, REMEDIES.get(rule, ()))) for rule in killed]
    full = describe_full_disk(usual_folders())
    return [*lines, *([str(full)] if full else [])]


def own_error(text: str, kind: str) -> str:
    """Return what is to be said of an error of Snakemake itself, whose words may be a traceback.

    Parameters
    ----------
    kind : the name of the exception.
    """
    if kind == "ProtectedOutputException" and (first := re.search(r"^\s*output: ([^,\n]+)", text, re.MULTILINE)):
        return f"{first[1]} is to be made again and is write-protected: check the mode and the disk of its folder"
    if "Traceback" in text and (refused := REFUSED.search(text)):
        return describe_os_error(OSError(int(refused[1]), os.strerror(int(refused[1])), refused[2]))
    if "Traceback (most recent call last)" in text:
        return f"Snakemake failed unexpectedly: {text.splitlines()[-1]}: the traceback is in .snakemake/log"
    # The brackets speak of functions of the rules, which are ours.
    words = re.sub(r" \(if you use input functions .*", "", text.removeprefix(f"{kind}:"))
    return words.removeprefix("\nerror: ")  # of ours
