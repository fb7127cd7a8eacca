"""Weights of candidates that could not be had before: asked for again before it is planned what is to do.

Here, not by a job: what Snakemake runs a job for is made again with all that depends on it, also where the weights are
as missing as before.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

from scripts.lib.base import products
from scripts.lib.base.units import plural
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.options import RuleOptions

RULE = "fetch_checkpoint"
#: Bytes that a checkpoint without weights stays below; only such files are opened, since that loads torch.
SMALL = 1 << 16
#: Options by which Snakemake is asked for a part of the workflow by the names of rules.
OF_RULES = frozenset({"--until", "-U", "--omit-from", "-O"})


def is_to_ask(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Tell whether a start of Snakemake may ask: not within a job, which has mostly no internet and is paid for.

    Parameters
    ----------
    arguments : the command line after the program's name.
    """
    is_partial = not OF_RULES.isdisjoint(word.split("=")[0] for word in arguments)
    wants_weights = any(RULE in word for word in arguments)
    return "SLURM_JOB_ID" not in environment and (wants_weights or not is_partial)


def find_missing(layout: Layout) -> dict[str, str]:
    """Return the checkpoints, by their names, of candidates whose weights may be had another time."""
    names = dict.fromkeys(filter(None, (candidate.checkpoint_name() for candidate in layout.all_candidates())))
    small = {name: path for name in names if is_small(path := layout.checkpoint.format(checkpoint=name))}
    if not small:
        return {}
    from scripts.lib.model.checkpoint_file import AGAIN, read_meta  # here, since it imports torch

    return {name: path for name, path in small.items() if read_meta(Path(path)).get(AGAIN)}


def is_small(path: str) -> bool:
    """Tell whether there is a file, and it may be a checkpoint without weights."""
    return os.path.isfile(path) and os.path.getsize(path) < SMALL


def ask_again(layout: Layout, options: RuleOptions, say: Callable[[str], None]) -> None:
    """Fetch the weights of the candidates that are left out for want of them; what cannot be had stays as it is.

    Parameters
    ----------
    say : prints a line.
    """
    missing = find_missing(layout)
    if not missing:
        return
    say(f"the weights of {plural(len(missing), 'candidate')} could not be had before: they are asked for again")
    for name, path in missing.items():
        of_rule = SimpleNamespace(checkpoint=name)
        words = [sys.executable, "-m", f"scripts.train.{RULE}", "--checkpoint", options.checkpoint_json(of_rule)]
        words += ["--base-config", options.checkpoint_base(of_rule), *shlex.split(options.optional(of_rule))]
        words += ["--output", path, "--makes", path, "--log", f"logs/checkpoints/{name}.log"]
        made = products.origin(Path(path))
        if subprocess.run(words, env=dict(os.environ), check=False).returncode == 0 and made:
            products.describe([Path(path)], made)
    still = find_missing(layout)
    if fetched := [name for name in missing if name not in still]:
        say(f"fetched now: {', '.join(fetched)}; what the search tries with them may change which model it chooses")
