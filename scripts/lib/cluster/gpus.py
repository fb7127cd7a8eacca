"""Which GPU a run trains on where several were given: each card is one process's at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scripts.lib.base.problems import UserError

logger = logging.getLogger(__name__)

#: Longest wait for a card: Snakemake starts no more runs than there are cards, but one may take a while to end.
PATIENCE_SECONDS = 300.0


def given_cards(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """Return the cards that this process may use, as CUDA_VISIBLE_DEVICES names them: numbers, or UUIDs."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [card for card in visible.split(",") if card not in ("", "-1", "NoDevFiles")]
    return sorted((path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")), key=int)


@contextmanager
def claimed_cards(count: int, environment: Mapping[str, str]) -> Iterator[list[str]]:
    """Hold *count* of the given cards for the block, so that runs beside this one take others; yield their names.

    A lock on a file holds a card, so that it is free again however its holder ends.

    Raises
    ------
    UserError : fewer cards were given, or none gets free.
    """
    cards = given_cards(environment)
    if count and cards and len(cards) < count:
        raise UserError(f"this run wants {count} GPUs, and {len(cards)} were given: lower `gpus`, or ask for more")
    if not count or len(cards) <= count:
        yield cards[:count]
        return
    job = environment.get("SLURM_JOB_ID", "machine")
    folder = Path(tempfile.gettempdir()) / f"mimflow-cards-{os.getuid()}-{job}"
    folder.mkdir(mode=0o700, exist_ok=True)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with ExitStack() as locks:
            mine: list[str] = []
            for card in cards:
                if len(mine) < count and _lock(folder / card, locks):
                    mine.append(card)
            if len(mine) == count:
                logger.info("training on GPU %s of %s", ", ".join(mine), ", ".join(cards))
                yield mine
                return
        if time.monotonic() > deadline:
            raise UserError(f"none of the GPUs {', '.join(cards)} got free: other runs hold them ({folder})")
        time.sleep(1)


def _lock(file: Path, locks: ExitStack) -> bool:
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    locks.callback(os.close, descriptor)
    return True


def cores_of_this_job(environment: Mapping[str, str]) -> int:
    """Return the cores of this process: what the system lets it use, and what Slurm counts on this node."""
    cores = len(os.sched_getaffinity(0))
    given = environment.get("SLURM_CPUS_ON_NODE", "")
    return min(cores, int(given)) if given.isdecimal() else cores
