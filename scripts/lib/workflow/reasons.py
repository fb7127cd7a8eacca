"""Why steps run again, in the user's words: ``mobilenet-v2: epochs 2 -> 3``."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from typing import Any

from scripts.lib.base.units import plural

#: The reasons that are said; the rest follows from them.
MOST = 6


def changed_values(old: Iterable[Any], new: Iterable[Any]) -> list[str]:
    """Return what differs between parameters as Snakemake records them: ``epochs 2 -> 3``; of others, nothing.

    Those of mimflow's rules that hold settings are JSON. A key that stands on one side only has its default on the
    other.
    """
    befores, afters = _mappings(old), _mappings(new)
    lines = []
    for before, after in zip(befores, afters, strict=False):
        for key in dict.fromkeys([*before, *after]):
            left, right = before.get(key, "default"), after.get(key, "default")
            if left != right:
                lines.append(f"{key} {_shown(left)} -> {_shown(right)}")
    return lines


def _mappings(values: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the JSON objects among recorded parameters, of which each is the repr of a text."""
    mappings = []
    for value in sorted(map(str, values)):
        try:
            content = json.loads(ast.literal_eval(value))
        except (ValueError, TypeError, SyntaxError):
            continue
        mappings += [content] if isinstance(content, dict) else []
    return mappings


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def why(workflow: Any) -> list[str]:
    """Return why steps that were done before are to be done again, the causes only, each once."""
    lines: dict[str, None] = {}
    told = set(map(str, workflow.persistence.changes))  # in red, when they were found
    for job in workflow.dag.needrun_jobs():
        reason, who = workflow.dag.reason(job), job.wildcards_dict.get("experiment") or job.message or job.rule.name
        if change := reason.params_changed:
            values = changed_values(change.only_old, change.only_new)
            lines |= {f"{who}: {', '.join(values) or 'other settings'}": None}
        if reason.code_changed:
            lines |= {"mimflow itself has changed": None}
        if reason.input_changed:
            lines |= dict.fromkeys(line for line in workflow.persistence.difference(job).files if line not in told)
        for file in sorted(set(reason.updated_input) - set(reason.updated_input_run)):
            lines |= {f"{file} is newer than what was made of it": None}
        if reason.incomplete_output or workflow.persistence.difference(job).is_interrupted:
            lines |= {f"{job.message or job.rule.name}: it was interrupted": None}
    more = [f"of {plural(len(lines) - MOST, 'more reason')}"] if len(lines) > MOST else []
    return [*list(lines)[:MOST], *more]
