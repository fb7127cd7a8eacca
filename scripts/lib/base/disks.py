"""Disks that are full, folders that cannot be written, or that a group shares: which one, and what to do, in a line."""

from __future__ import annotations

import errno
import os
import pwd
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from scripts.lib.base.problems import UserError

#: A disk with less than this left is full for us, and a folder must take so much to be called writable.
LEAST_BYTES = 1024 * 1024
REMEDY = (
    "free some space there (`df -h`, `df -i` for the number of files, `quota -s` for what is yours),"
    " then run the same command again"
)
#: What its owner does to let a group write in a folder, and in all that will be made in it.
SHARE = "`chgrp -R GROUP {0} && chmod -R g+rwX {0} && find {0} -type d -exec chmod g+s {{}} +`"
#: Folders of a data set that one job makes as a whole, of very many files.
LARGE = frozenset({"images", "packed"})


def user_name(number: int) -> str:
    """Return the name of a user; the number where the system knows none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def is_shared(folder: Path) -> bool:
    """Tell whether a folder is meant for a group: its members may write, and what is made in it is the group's."""
    mode = folder.stat().st_mode
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)


def share_with_group(folder: Path) -> None:
    """Where a group shares *folder*, let it write to all that this process and its children will make."""
    if not is_shared(folder):
        return
    os.umask(os.umask(0o077) & ~stat.S_IRWXG)
    for made in (folder / ".snakemake", folder / ".snakemake/log"):  # Snakemake makes them before it can be told
        with suppress(OSError):  # not there, or another's, who has done this
            made.chmod(made.stat().st_mode | stat.S_IRWXG | stat.S_ISGID)


def _closed_folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yield *folder*, or those down to *depth* levels below it, where others own them and this user may not write."""
    if not os.access(folder, os.W_OK | os.X_OK):
        if folder.stat().st_uid != os.getuid():
            yield folder
    elif depth and folder.name not in LARGE:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _closed_folders(Path(entry.path), depth - 1)


def check_open(folder: Path, depth: int) -> None:
    """Make sure that what others have made in *folder* can be replaced.

    Raises
    ------
    UserError : another user's folder, down to *depth* levels below it, is closed to this one.
    """
    for closed in _closed_folders(existing_folder(folder), depth):
        owner = user_name(closed.stat().st_uid)
        remedy = f"{owner} can share it with a group: {SHARE.format(shlex.quote(os.getcwd()))}"
        raise UserError(f"{closed} is a folder of {owner}, in which you cannot write", remedy)


def existing(path: Path) -> Path:
    """Return *path*, or the nearest folder above it that exists."""
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def existing_folder(path: Path) -> Path:
    """Return the folder of :func:`existing`."""
    nearest = existing(path)
    return nearest if nearest.is_dir() else nearest.parent


def full_disks(folders: Iterable[Path]) -> list[Path]:
    """Return those of *folders*, one a disk, on whose disk nothing more can be written."""
    full: dict[int, Path] = {}
    for folder in map(existing_folder, folders):
        disk = os.statvfs(folder)
        no_room = disk.f_bavail * disk.f_frsize < LEAST_BYTES and disk.f_blocks > 0
        if no_room or (disk.f_files > 0 and disk.f_favail == 0):
            full.setdefault(folder.stat().st_dev, folder)
    return list(full.values())


def usual_folders() -> list[Path]:
    """Return where every command writes: the working folder, the one for temporary files, and shared memory."""
    folders = [Path.cwd(), temporary_folder(), Path("/dev/shm")]
    return [folder for folder in folders if folder.is_dir()]


def temporary_folder() -> Path:
    """Return the folder for temporary files that the user chose, whether it can be used or not."""
    return Path(os.environ.get("TMPDIR") or "/tmp")


def describe_full_disk(folders: Sequence[Path], certain: bool = False) -> UserError | None:
    """Return what is to be said of full disks among those of *folders*; None where there is none.

    Parameters
    ----------
    certain : one of them was full, though an unfinished file may be gone since: then it is the one with the least room.
    """
    full = full_disks(folders)
    if certain and not full:
        full = [min(map(existing_folder, folders), key=lambda folder: shutil.disk_usage(folder).free)]
    if not full:
        return None
    return UserError(f"no space left on the disk of {' and of '.join(map(str, full))}", REMEDY)


def check_writable(folder: Path, what: str) -> None:
    """Write to *folder*, or where it will be made, and remove it again.

    Raises
    ------
    UserError : the disk is full or read-only, the folder is somebody else's, there is a file in its way, or a link to
        what is not there.
    """
    for link in (folder, *folder.parents):
        if link.is_symlink() and not os.path.exists(link):
            where = f"{what}: {link} is a link to {os.readlink(link)}, which is not there"
            raise UserError(where, "mount that disk or make that folder, or remove the link")
    here = existing(folder)
    if not here.is_dir():
        raise UserError(f"{what}: {here} is a file, no folder", "move it away")
    try:
        with tempfile.NamedTemporaryFile(dir=here, prefix=".mimflow-") as file:
            file.write(bytes(LEAST_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        full = describe_full_disk([here])
        remedy = REMEDY if error.errno == errno.EDQUOT else f"choose another, or ask {user_name(here.stat().st_uid)}"
        reason, remedy = (full.what, full.remedy) if full else (error.strerror, remedy)
        raise UserError(f"{what}: {here} cannot be written: {reason}", remedy) from error


def check_folders(results: Path) -> None:
    """Make sure that a workflow can write its results, its logs, Snakemake's own files and temporary ones.

    Raises
    ------
    UserError : it cannot.
    """
    here = Path.cwd()
    if is_shared(here) or here.stat().st_uid != os.getuid():
        for folder in (results, Path("logs", results.name), Path(".snakemake")):
            check_open(folder, depth=2)
    check_writable(results, "the folder of the results")
    check_writable(Path("logs"), "the folder of the logs")
    check_writable(Path(".snakemake"), "Snakemake's folder")
    folder = temporary_folder()
    if not folder.is_dir():
        raise UserError(
            f"the folder of temporary files: there is no folder {folder}", "make it, or set TMPDIR to another"
        )
    try:
        check_writable(folder, "the folder of temporary files")
    except UserError as error:
        raise UserError(error.what, f"{error.remedy}, or set TMPDIR to another folder") from error
