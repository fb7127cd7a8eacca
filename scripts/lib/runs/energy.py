"""What the GPUs of an attempt take in energy: the driver's own counter, read through NVIDIA's management library."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from scripts.lib.runs.attempts import Attempt

logger = logging.getLogger(__name__)
LIBRARY = "libnvidia-ml.so.1"
#: Seconds between two readings; the power of a GPU without a counter is taken as constant between them.
SAMPLE_SECONDS = 2.0
#: Seconds between two notes in the attempt's record, which are all that a kill leaves.
NOTE_SECONDS = 300.0
#: Longest wait for the last reading: a driver in trouble may not answer, and training must end all the same.
PATIENCE_SECONDS = 5.0


class Gpu(Protocol):
    """A GPU that can be asked."""

    def joules(self) -> float | None:
        """Return the energy since the driver was loaded, None where the GPU does not count it."""

    def watts(self) -> float | None:
        """Return the power now, None where the GPU does not measure it."""


class Nvml:
    """NVIDIA's management library, which comes with the driver (API: docs.nvidia.com/deploy/nvml-api)."""

    def __init__(self) -> None:
        """Load it.

        Raises
        ------
        OSError : this machine has no NVIDIA driver, or it does not answer.
        """
        self._library = ctypes.CDLL(LIBRARY)
        if self._library.nvmlInit_v2() != 0:
            raise OSError(f"{LIBRARY}: nvmlInit_v2 failed")

    def gpu(self, name: str) -> NvmlGpu | None:
        """Return the GPU that CUDA_VISIBLE_DEVICES calls *name*, a number or ``GPU-<uuid>``; None for none.

        Numbers are those of the PCI bus. CUDA's may differ where the GPUs of one machine do; a slice of a GPU (MIG)
        has no energy of its own.
        """
        handle = ctypes.c_void_p()
        if name.isdecimal():
            status = self._library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
        elif name.startswith("GPU-"):
            status = self._library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        else:
            return None
        return NvmlGpu(self._library, handle) if status == 0 else None


@dataclass(frozen=True)
class NvmlGpu:
    """One GPU of the management library."""

    library: ctypes.CDLL
    handle: ctypes.c_void_p

    def joules(self) -> float | None:
        """Return the energy since the driver was loaded; GPUs before Volta do not count it."""
        return self._thousandths("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())

    def watts(self) -> float | None:
        """Return the power now."""
        return self._thousandths("nvmlDeviceGetPowerUsage", ctypes.c_uint())

    def _thousandths(self, function: str, number: ctypes.c_ulonglong | ctypes.c_uint) -> float | None:
        status = getattr(self.library, function)(self.handle, ctypes.byref(number))
        return None if status else number.value / 1000


class Meter:
    """Adds up the energy of some GPUs from one reading to the next."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._gpus = gpus
        self._counters: list[float | None] = [None] * len(gpus)
        self._read_at: float | None = None
        self._measured = [False] * len(gpus)
        self._joules = 0.0

    @property
    def joules(self) -> float | None:
        """Return the energy between the first and the last reading, None unless every GPU could be measured."""
        return self._joules if self._gpus and all(self._measured) else None

    def read(self, now: float) -> None:
        """Read all GPUs at the time *now*, in seconds of any clock that does not go back."""
        seconds = 0.0 if self._read_at is None else now - self._read_at
        for index, gpu in enumerate(self._gpus):
            counter, before = gpu.joules(), self._counters[index]
            power = None
            if counter is None:
                power = gpu.watts()
                self._joules += (power or 0.0) * seconds
            elif before is not None:
                self._joules += max(0.0, counter - before)  # the counter starts anew with the driver
            self._counters[index] = counter
            self._measured[index] |= counter is not None or power is not None
        self._read_at = now


@contextmanager
def metered(
    attempt: Attempt,
    device: str,
    gpus: int = 1,
    environment: Mapping[str, str] = os.environ,
    counters: Sequence[Gpu] | None = None,
) -> Iterator[None]:
    """Put the GPUs that the block uses, and their energy, on the attempt's record: ``gpus``, ``energy_joules``.

    The record is noted every few minutes, so that of an attempt that is killed its time and energy stay known.
    Nothing that goes wrong in here disturbs the block.

    Parameters
    ----------
    attempt : as ``attempts.recorded`` yields it.
    device : ``cpu`` or ``cuda``.
    gpus : how many the block uses.
    environment : the trainer's: its CUDA_VISIBLE_DEVICES says which GPUs these are.
    counters : the GPUs, where they are known already.
    """
    attempt.extra["gpus"] = gpus if device == "cuda" else 0
    stop = threading.Event()

    def work() -> None:
        try:
            measured = counters if counters is not None else find_gpus(attempt.extra["gpus"], environment)
            _measure(attempt, Meter(measured), stop)
        except Exception as error:  # whatever a driver does, it is the training that counts
            logger.debug("energy is not measured: %r", error)
            attempt.extra["energy_joules"] = None  # not the part of it that was measured before

    thread = threading.Thread(target=work, name="energy", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)
        if thread.is_alive():
            attempt.extra["energy_joules"] = None


def find_gpus(count: int, environment: Mapping[str, str]) -> list[Gpu]:
    """Return the *count* GPUs that a trainer with this environment uses; none where they cannot be told."""
    if not count:
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if visible is None else visible.split(",")[:count]
    try:
        library = Nvml()
    except (OSError, AttributeError) as error:
        logger.debug("energy is not measured: %s", error)
        return []
    gpus = [gpu for gpu in (library.gpu(name.strip()) for name in names) if gpu is not None]
    return list(gpus) if len(gpus) == count else []


def _measure(attempt: Attempt, meter: Meter, stop: threading.Event) -> None:
    noted_at = -float("inf")  # at once, so that of a kill in the first minutes there is a note too
    while True:
        meter.read(time.monotonic())
        if meter.joules is not None:
            attempt.extra["energy_joules"] = round(meter.joules, 1)
        if stop.is_set():
            return
        if time.monotonic() - noted_at >= NOTE_SECONDS:
            attempt.note()
            noted_at = time.monotonic()
        stop.wait(SAMPLE_SECONDS)
