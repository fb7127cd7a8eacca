"""Energy of the GPUs: added up rightly, on the attempt's record whatever ends it, and never in the way of training."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from counting_gpu import Counting

from scripts.lib.runs import energy
from scripts.lib.runs.attempts import read_attempts, recorded
from scripts.lib.runs.energy import Meter, find_gpus, metered

ROOT = Path(__file__).resolve().parents[4]


class Measuring:
    """A GPU that only tells its power."""

    def __init__(self, watts: float | None) -> None:
        self.power = watts

    def joules(self) -> float | None:
        return None

    def watts(self) -> float | None:
        return self.power


def test_counters_are_summed_over_the_gpus_and_may_start_anew() -> None:
    meter = Meter([Counting(1000, 1010, 5, 8), Counting(500, 500, 600, 600)])
    for second in range(4):
        meter.read(float(second))
    assert meter.joules == 10 + 3 + 100


def test_power_is_integrated_where_there_is_no_counter() -> None:
    meter = Meter([Measuring(200.0), Counting(0, 50, 70)])
    for moment in (10.0, 12.0, 15.0):
        meter.read(moment)
    assert meter.joules == 200 * 5 + 70


def test_a_gpu_that_tells_nothing_leaves_the_energy_unknown() -> None:
    meter = Meter([Measuring(None), Counting(0, 50)])
    meter.read(0.0)
    meter.read(1.0)
    assert meter.joules is None
    assert Meter([]).joules is None


def test_energy_and_gpus_are_in_the_end_line(tmp_path: Path) -> None:
    with recorded(tmp_path) as attempt, metered(attempt, "cuda", 2, counters=[Counting(1, 5), Counting(2, 2)]):
        pass
    with recorded(tmp_path) as attempt, metered(attempt, "cpu", 1):
        pass
    with (
        pytest.raises(ValueError),
        recorded(tmp_path) as attempt,
        metered(attempt, "cuda", 1, counters=[Counting(1, 4)]),
    ):
        raise ValueError("the end")
    attempts = read_attempts(tmp_path)
    assert [(entry["gpus"], entry.get("energy_joules")) for entry in attempts] == [(2, 4.0), (0, None), (1, 3.0)]
    assert (attempts[2]["outcome"], attempts[2]["reason"]) == ("failed", "ValueError: the end")


def test_of_a_killed_attempt_time_and_energy_stay_known(tmp_path: Path) -> None:
    code = (
        "import os, sys, time, pathlib\n"
        "from counting_gpu import Counting\n"
        "from scripts.lib.runs import energy\n"
        "from scripts.lib.runs.attempts import recorded\n"
        "from scripts.lib.runs.energy import metered\n"
        "energy.NOTE_SECONDS = energy.SAMPLE_SECONDS = 0.05\n"
        "with recorded(pathlib.Path(sys.argv[1])) as attempt, metered(attempt, 'cuda', counters=[Counting(1, 8)]):\n"
        "    time.sleep(1); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "helpers")}
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, env=environment).returncode == -9
    (attempt,) = read_attempts(tmp_path)
    assert attempt["end"] is None and attempt["seen"] >= attempt["start"]
    assert attempt["gpus"] == 1 and attempt["energy_joules"] == 7.0


class Stuck(Counting):
    def joules(self) -> float | None:
        threading.Event().wait()
        return None


class Broken(Counting):
    def joules(self) -> float | None:
        if len(self.values) == 1:
            raise OSError("fell off the bus")
        return super().joules()


@pytest.mark.parametrize("gpu", [Stuck(0), Broken(0), Broken(1, 2)])
def test_a_driver_in_trouble_does_not_disturb_the_training(
    gpu: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "PATIENCE_SECONDS", 0.2)
    begun = time.monotonic()
    trained = []
    with recorded(tmp_path) as attempt, metered(attempt, "cuda", counters=[gpu]):
        trained.append(1)
    (entry,) = read_attempts(tmp_path)
    assert trained and time.monotonic() - begun < 5
    assert entry["outcome"] == "finished" and entry["energy_joules"] is None


@pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="needs a GPU")
def test_a_real_gpu_counts() -> None:
    (gpu,) = find_gpus(1, {})
    meter = Meter([gpu])
    meter.read(time.monotonic())
    time.sleep(3)
    meter.read(time.monotonic())
    assert meter.joules is not None and 1 < meter.joules < 3 * 2000


def test_the_gpus_are_those_of_the_trainer_all_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def gpu(self, name: str) -> object:
            return None if name == "3" else name

    monkeypatch.setattr(energy, "Nvml", Library)
    assert find_gpus(2, {}) == ["0", "1"]
    assert find_gpus(1, {"CUDA_VISIBLE_DEVICES": "GPU-a,2"}) == ["GPU-a"]
    assert find_gpus(2, {"CUDA_VISIBLE_DEVICES": "2,3"}) == []


def test_gpus_that_are_not_there_are_no_error() -> None:
    assert find_gpus(0, {}) == []
    assert find_gpus(1, {"CUDA_VISIBLE_DEVICES": "MIG-1"}) == []
    assert find_gpus(2, {"CUDA_VISIBLE_DEVICES": "97,98"}) == []
