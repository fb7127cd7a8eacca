"""What a dry run prints: its steps by rule and experiment, and why; each step with its files only when asked for."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from snakemake.logging import LogEvent
from snakemake.settings.enums import Quietness

from scripts.lib.base.language import speaking, tr_line
from scripts.lib.base.units import plural
from scripts.lib.workflow.reasons import why

#: So many experiments with equally many steps of a rule are named.
MOST = 3
DETAILS = "nothing has been run; each step with its files and its command: ARGS='-n --printshellcmds'"


def summarize(workflow: Any, handler: logging.Handler, language: str) -> None:
    """Have Snakemake's dry run end with a table in place of a page of each step, which takes longer than the plan.

    Parameters
    ----------
    workflow : Snakemake's.
    handler : prints what it says.
    language : of the reasons.
    """

    def replace(record: logging.LogRecord) -> bool:
        if getattr(record, "event", None) == LogEvent.RUN_INFO:
            steps = defaultdict[str, Counter[str]](Counter)
            for job in workflow.dag.needrun_jobs():
                steps[str(job)][job.wildcards_dict.get("experiment", "")] += 1
            reasons = [f"because {line}" for line in why(workflow)]
            in_order = {name: steps[name] for name in record.__dict__["stats"] if name in steps}
            with speaking(language):
                record.msg = "\n".join(map(tr_line, [*table(in_order), *reasons, DETAILS]))
        return True

    handler.addFilter(replace)
    workflow.output_settings.quiet = {Quietness.RULES, Quietness.PROGRESS}  # its own word for: no more than that


def table(steps: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return lines of how often each rule runs, and for which experiments.

    Parameters
    ----------
    steps : by rule, the number of its steps by experiment; of none: "".
    """
    names = max(map(len, steps))
    counts = {name: f"{sum(shares.values()):,}" for name, shares in steps.items()}
    width = max(map(len, counts.values()))
    rows = [f"{name:{names}}  {counts[name]:>{width}}  {spread(shares)}".rstrip() for name, shares in steps.items()]
    return [*rows, f"{plural(sum(sum(shares.values()) for shares in steps.values()), 'step')} to do"]


def spread(shares: Mapping[str, int]) -> str:
    """Return how the steps of a rule are spread over experiments; empty where they belong to none.

    >>> spread({"a": 2, "b": 2, "c": 1})
    '2 each of a, b; 1 of c'
    """
    alike = defaultdict[int, list[str]](list)
    for name, count in shares.items():
        alike[count] += [name] if name else []
    parts = []
    for count, names in sorted(alike.items(), reverse=True):
        if names:
            more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
            parts.append(f"{count:,} {'each ' * (len(names) > 1)}of {', '.join(sorted(names)[:MOST])}{more}")
    return "; ".join(parts)
