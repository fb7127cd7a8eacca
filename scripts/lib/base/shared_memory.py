"""The memory through which data-loader workers hand over their batches: how many fit, and what torch says if none."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
#: What torch says where it is full; none of its words speak of /dev/shm.
FULL = re.compile(
    r"out of shared memory|Bus error|(write to|open|allocate|mmap|resize).{0,60}(/?torch_\d+_|shared memory)"
)
REMEDY = "start the container with --shm-size=1g, or free what fills it"
#: A worker hands over by a socket in the folder for temporary files, `pymp-xxxxxxxx/listener-xxxxxxxx`; the path of a
#: socket has 107 bytes at most (unix(7)), and where it is longer, the reader of the batches waits for ever.
LONGEST_FOLDER = 107 - 32
#: Batches that a worker prepares ahead (torch's default), and those that are handed over meanwhile.
AHEAD, UNDERWAY = 2, 2


def free_shared_memory(folder: Path = SHARED_MEMORY) -> float:
    """Return the free bytes of shared memory: none where it cannot be written, infinity where it is kept elsewhere."""
    if not folder.is_dir():
        return 0 if sys.platform == "linux" else float("inf")
    return shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0


def fitting_workers(workers: int, batch_bytes: int, loaders: int = 1, free: float | None = None) -> int:
    """Return the data-loader workers, *workers* at most, whose batches fit into shared memory, and say if it is fewer.

    With 0, images are read in the process itself: the result is the same.

    Parameters
    ----------
    batch_bytes : size of a batch.
    loaders : data loaders at work at the same time, each with as many workers.
    free : free bytes of shared memory; None: as it is now.
    """
    folder = tempfile.gettempdir()
    if workers and len(os.fsencode(folder)) > LONGEST_FOLDER:
        what = "the path of the folder for temporary files is too long for the sockets by which workers load images"
        logger.warning("%s: none is used, which takes longer; set TMPDIR to one of %d bytes", what, LONGEST_FOLDER)
        return 0
    free = free_shared_memory() if free is None else free
    room = free / max(loaders * batch_bytes, 1)
    fitting = workers if room >= AHEAD * workers + UNDERWAY else max(int((room - UNDERWAY) // AHEAD), 0)
    if fitting < workers:
        what = f"shared memory ({SHARED_MEMORY}) has {free / 1e6:.0f} MB free: room for {fitting} of {workers} workers"
        logger.warning("%s that load images, which takes longer; %s", what, REMEDY)
    return fitting
