"""Copy the images of a run to the node's own memory or disk for as long as the run needs them, if they fit."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from scripts.lib.base import ranges
from scripts.lib.base.environment import expand
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data.splits import listed_images

logger = logging.getLogger(__name__)

#: Part of the free space of a folder that images may take: /dev/shm is memory, which the trainer needs too.
FRACTION_OF_FREE = 0.5
#: Files that are copied at a time: reading many small files from a network file system is waiting, not work.
COPIES_AT_A_TIME = 16
#: Held while the copy's process lives.
LOCK_NAME = ".lock"
PREFIX = f"mimflow-{os.getuid()}-"


def staged(
    images: Path, splits: Sequence[Path], scratch: Sequence[str], limit_gb: float | None = None
) -> AbstractContextManager[Path]:
    """Yield the folder to read the images of *splits* from: a copy in a scratch folder, else *images* itself.

    The copy is removed at the end; one that a killed process left behind is removed by the next on that node.

    Parameters
    ----------
    images : the folder that the splits refer to.
    splits : annotation files, ``path label`` lines.
    scratch : folders on a node's own memory or disk, best first, with ``~`` and ``$VARIABLES``; without any, nothing
        is copied.
    limit_gb : the most that may be copied, in GB.
    """
    return _staged_files(images, sorted(listed_images(splits)), scratch, limit_gb)


def staged_pixel_cache(
    cache: Path, scratch: Sequence[str], limit_gb: float | None = None
) -> AbstractContextManager[Path]:
    """Yield the folder to read a pixel cache from: a copy in a scratch folder, as of :func:`staged`, or *cache*."""
    return _staged_files(cache, sorted(path.name for path in cache.iterdir()), scratch, limit_gb)


@contextmanager
def _staged_files(root: Path, names: Sequence[str], scratch: Sequence[str], limit_gb: float | None) -> Iterator[Path]:
    folder = _stage(root, names, scratch, limit_gb) if scratch else None
    try:
        yield folder.path if folder else root
    finally:
        if folder:
            folder.remove()


class _Folder:
    """A folder in scratch that belongs to this process while it lives, by a lock: process ids mean little there."""

    def __init__(self, parent: Path) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            self._lock = os.open(self.path / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if (self.path / LOCK_NAME).exists():
                return
            os.close(self._lock)  # another process swept the folder before the lock was held

    def remove(self) -> None:
        _remove(self.path)
        os.close(self._lock)


def _stage(root: Path, names: Sequence[str], scratch: Sequence[str], limit_gb: float | None) -> _Folder | None:
    size = sum(_size(root / name) for name in names)
    if limit_gb is not None and size > limit_gb * 1e9:
        logger.info("the images take %.1f GB, more than scratch_gb allows: reading them where they are", size / 1e9)
        return None
    parent = _folder_with_room(scratch, size)
    if parent is None:
        return None
    _sweep(parent)
    folder = _Folder(parent)
    began = time.monotonic()
    try:
        with ThreadPoolExecutor(COPIES_AT_A_TIME) as pool:
            ordered = [names[index] for index in ranges.reading_order(root, names)]
            list(pool.map(lambda name: _copy(root / name, folder.path / name), ordered))
    except OSError as error:
        folder.remove()
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        logger.warning("%s filled up meanwhile (%s): reading the images from %s", parent, error.strerror, root)
        return None
    except BaseException:
        folder.remove()
        raise
    logger.info(
        "%s, %.1f MB, copied to %s in %.1f s",
        *(plural(len(names), "image file"), size / 1e6, parent, time.monotonic() - began),
    )
    return folder


def _folder_with_room(scratch: Sequence[str], size: int) -> Path | None:
    """Return the first of the scratch folders that has room for *size* bytes; say so, if there is none."""
    for word in scratch:
        try:
            folder = Path(expand(word, os.environ))
        except UserError:  # $TMPDIR, say, is set on some nodes only: the next one may do
            continue
        usable = folder.is_dir() and os.access(folder, os.W_OK)
        if usable and size <= FRACTION_OF_FREE * shutil.disk_usage(folder).free:
            return folder
    logger.info("no room for %.1f MB of images in %s: reading them where they are", size / 1e6, ", ".join(scratch))
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        if image := ranges.find(path):
            return image.size
        raise


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copyfile(source, target)
    else:
        target.write_bytes(ranges.read_bytes(source))


def _sweep(parent: Path) -> None:
    """Remove copies whose process has ended: memory that nobody frees is lost to the whole node."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder / LOCK_NAME, os.O_RDWR)
        except OSError:  # being made or removed at this moment
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a copy, its lock last: without it, nobody would sweep what a process killed here has left."""
    with suppress(OSError):  # removed by somebody else: a copy is no result
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != LOCK_NAME:
                os.unlink(entry.path)
    shutil.rmtree(folder, ignore_errors=True)
