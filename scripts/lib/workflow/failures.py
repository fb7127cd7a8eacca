"""Why jobs failed that could not say it themselves: no memory, a full disk, or files that Snakemake cannot replace."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from scripts.lib.base.console import describe_os_error
from scripts.lib.base.disks import describe_full_disk, usual_folders

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
OF_ALL = "run fewer jobs at once (ARGS='--cores 1'), or with Slurm ask for more memory (mem_mb in the profile)"


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


def causes(logs: Sequence[str]) -> list[str]:
    """Return a line for each cause of a failure that Snakemake's *logs* and the disks tell."""
    texts = [Path(log).read_text(encoding="utf-8", errors="replace") for log in logs if Path(log).is_file()]
    killed = dict.fromkeys(rule for text in texts for rule in killed_rules(text))
    lines = [
        f"{rule} was killed, most likely because memory ran out: " + "; ".join([*REMEDIES.get(rule, ()), OF_ALL])
        for rule in killed
    ]
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
