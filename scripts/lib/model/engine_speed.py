"""How fast engines are at the same model: one image at a time, and in batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

BATCH_SIZE = 32
#: Of a measurement: seconds, if the model is that fast; turns of a few calls, engines taking turns; calls that suffice.
SECONDS, CALLS_A_TURN, ENOUGH_SINGLE, ENOUGH_BATCHES = 2.0, 5, 40, 6
#: Seconds that a batch may take; a slower model is timed with single images only.
LONGEST_BATCH = 8.0


def interleaved(calls: Mapping[str, Callable[[], Any]], seconds: float, turn: int, enough: int) -> dict[str, float]:
    """Return the median seconds of each of *calls*, made by turns so that all see the same state of the machine.

    Parameters
    ----------
    seconds : when to stop; each is timed once at least.
    turn : calls in a row; one more before them is not counted, since the caches are the other's.
    enough : calls of each after which to stop.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while True:
        for name, call in calls.items():
            call()
            for _ in range(turn):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
                if time.perf_counter() > end:
                    break
        if time.perf_counter() > end or all(len(each) >= enough for each in times.values()):
            return {name: statistics.median(each) for name, each in times.items()}


def measure(calls: Mapping[str, Callable[[np.ndarray], Any]], images: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Return for each engine the milliseconds of one image and the images a second of batches.

    Parameters
    ----------
    calls : engines by name, functions of images.
    images : one or more; repeated to a batch of BATCH_SIZE.
    """
    batch = np.resize(images, (BATCH_SIZE, *images.shape[1:]))
    single = interleaved(
        {name: partial(call, batch[:1]) for name, call in calls.items()}, SECONDS, CALLS_A_TURN, ENOUGH_SINGLE
    )
    batches: dict[str, float] = {}
    if BATCH_SIZE * max(single.values()) < LONGEST_BATCH:
        batches = interleaved({name: partial(call, batch) for name, call in calls.items()}, SECONDS, 1, ENOUGH_BATCHES)
    return {
        name: {
            "milliseconds_single": round(1000 * single[name], 3),
            "images_per_second": round(BATCH_SIZE / batches[name], 2) if name in batches else None,
        }
        for name in calls
    }
