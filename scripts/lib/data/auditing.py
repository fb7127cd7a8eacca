"""Check all images of a data set, each content once, and tell how far it is."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from scripts.lib.data.audit_cache import RECORD, AuditCache, decode, encode
from scripts.lib.data.check_workers import check_files
from scripts.lib.data.image_checks import Checked, Status
from scripts.lib.data.splits import Image

logger = logging.getLogger(__name__)

#: Seconds between two lines of progress where stderr is no terminal.
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Audited:
    """The images, what is known of each, and how many were decoded now: the others' checks were known.

    ``grey`` (images, 256) and ``colour`` (images, 128) are thumbnails; ``digests``: sha256, "" where unknown.
    """

    checks: list[Checked]
    digests: list[bytes]
    grey: np.ndarray
    colour: np.ndarray
    decoded: int


def check_all(folder: Path, images: Sequence[Image], cache: AuditCache, processes: int) -> Audited:
    """Check all images; new results are in *cache* as soon as they are there."""
    names = [image.path for image in images]
    digests = np.zeros((len(names), 32), np.uint8)
    failures: dict[int, str] = {}
    decoded = 0
    with _progress(len(names)) as advance:
        for outcomes in check_files(folder, names, np.array(cache.records()["sha256"]), processes):
            for outcome in outcomes:
                if outcome.failure:
                    failures[outcome.index] = outcome.failure
                else:
                    digests[outcome.index] = np.frombuffer(outcome.digest, np.uint8)
            new = [outcome.record for outcome in outcomes if outcome.record]
            cache.append(new)
            decoded += len(new)
            advance(len(outcomes))
    records = _find_records(cache.records(), digests, failures)
    return Audited(
        decode(records),
        [b"" if index in failures else digest.tobytes() for index, digest in enumerate(digests)],
        np.array(records["grey"]),
        np.array(records["colour"]),
        decoded,
    )


def _find_records(records: np.ndarray, digests: np.ndarray, failures: Mapping[int, str]) -> np.ndarray:
    """Return the record of each image; for those without one, a record of the failure."""
    of_images = np.zeros(len(digests), RECORD)
    keys = np.ascontiguousarray(records["sha256"]).view("S32").ravel()
    order = np.argsort(keys, kind="stable")
    have = np.array([index for index in range(len(digests)) if index not in failures], np.intp)
    if len(have):
        wanted = np.ascontiguousarray(digests[have]).view("S32").ravel()
        of_images[have] = records[order[np.searchsorted(keys, wanted, sorter=order)]]
    for index, reason in failures.items():
        failed = Checked(Status.UNREADABLE, detail=reason[:100])
        of_images[index] = np.frombuffer(encode(b"", failed), RECORD)[0]
    return of_images


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Yield a function that counts images: a bar on a terminal, elsewhere a line every few seconds."""
    with tqdm(total=total, unit=" images", leave=False, dynamic_ncols=True, disable=not sys.stderr.isatty()) as bar:
        began = logged = time.monotonic()
        done = 0

        def advance(count: int) -> None:
            nonlocal done, logged
            done += count
            bar.update(count)
            now = time.monotonic()
            if bar.disable and now - logged >= PROGRESS_SECONDS and done < total:
                logged = now
                logger.info(
                    "checked %d of %d images (%d %%), %.0f images/s",
                    done, total, 100 * done // total, done / (now - began),
                )  # fmt: skip

        yield advance
