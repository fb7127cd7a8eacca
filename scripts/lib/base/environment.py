"""Where mimflow itself lies, and the environment variables by which its processes tell each other something."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from scripts.lib.base.problems import UserError

#: The repository.
ROOT = Path(__file__).resolve().parents[3]


class Variable(StrEnum):
    """The environment variables, and what each is for."""

    # What a user may set.
    #: Folder with site.yaml. Jobs inherit it: Slurm hands the environment on (--export=ALL).
    SITE = "MIMFLOW_SITE"
    #: Slurm jobs of a workflow that was killed: ``cancel`` them (their state is saved), or ``wait`` for their end.
    ORPHANS = "MIMFLOW_ORPHANS"
    #: When a trainer will be ended, as by a job's limit, in seconds since 1970; train_model sets it where Slurm tells.
    END_TIME = "MIMFLOW_END_TIME"

    # What a workflow tells its jobs.
    #: The configuration files, for messages.
    CONFIG_FILES = "MIMFLOW_CONFIG_FILES"
    #: Set where standard error is a pipe into `Screen` on a terminal: lines may be rewritten there.
    LIVE = "MIMFLOW_LIVE"

    # What train_model tells its trainer.
    #: The process id of train_model, which a trainer must not outlive.
    PARENT = "MIMFLOW_TRAIN_MODEL_PID"
    #: Folder with a copy of the images on a faster disk.
    IMAGES = "MIMFLOW_IMAGES"
    #: Folder with a copy of the pixel cache on a faster disk.
    PIXEL_CACHE = "MIMFLOW_PACKED"


def expand(path: str, environment: Mapping[str, str]) -> str:
    """Return *path* with ~ and $VARIABLES replaced.

    Raises
    ------
    UserError : a variable in it is not set here.
    """
    words = path.replace("${", "$").replace("}", "").split("/")
    for word in words:
        if word.startswith("$") and word[1:] not in environment:
            raise UserError(f"site.yaml: {path}: {word} is not set on this machine: name another folder")
    return os.path.expanduser("/".join(environment[word[1:]] if word.startswith("$") else word for word in words))
