"""When a command of a bench's row began and ended, without its start-up; and a hook that notes it for mmcv."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

from bench.processes import OUTPUT_VARIABLE, Row, gpu_peak
from scripts.lib.base.console import configure_logging, one_line
from scripts.lib.base.files import write_json


def main() -> None:
    """Import the module, note the time, run it, note the time again (seconds since 1970: processes are compared).

    The JSON has ``begun``, ``ended``, and :func:`gpu_peak`.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.clock", description=(__doc__ or "").split(";")[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON to write: times")
    parser.add_argument("--preload", nargs="*", default=[], metavar="MODULE", help="imported late: start-up, too")
    parser.add_argument("--module", required=True, help="a command of mimflow, as scripts.data.pack_images")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- ARGUMENT", help="the command's arguments")
    args = parser.parse_args()
    module, *_ = map(importlib.import_module, [args.module, *args.preload])
    parsed = module.build_parser().parse_args(args.arguments[args.arguments[:1] == ["--"] :])
    configure_logging(None)
    begun = time.time()
    try:
        module.main(parsed)
    except Exception as error:
        sys.exit(f"error: {one_line(error)}")
    write_json(args.output, {"begun": begun, "ended": time.time(), "gpu_peak": gpu_peak()})


if __name__ == "__main__":
    main()
else:  # as a command it must not wait for mmcv, which is no part of what it measures
    from mmcv.runner import HOOKS, Hook

    @HOOKS.register_module(force=True)
    class BenchClock(Hook):
        """Note the times of training, as seconds since 1970.

        To see the accuracy it must run after the evaluation (mmcv's LOW, 70) and before the loggers (VERY_LOW, 90),
        which clear it: ``priority=80``. Its JSON: ``begun``, before the first batch is fetched; ``epochs``, of which
        each has ``begun``, ``stepping`` (the first batch is there), ``trained`` (last iteration), ``done`` (stock
        mmcv: evaluated and saved), ``images`` and ``val_accuracy`` (0 to 1, stock mmcv only: the ReproducibleRunner
        evaluates after its hooks); ``ended``; and :func:`gpu_peak`.
        """

        def __init__(self) -> None:
            self.times: Row = {"epochs": []}

        def before_run(self, runner: object) -> None:
            self.times["begun"] = time.time()

        def before_train_epoch(self, runner: object) -> None:
            self.times["epochs"].append({"begun": time.time(), "images": 0})

        def before_train_iter(self, runner: object) -> None:
            self.times["epochs"][-1].setdefault("stepping", time.time())

        def after_train_iter(self, runner: object) -> None:
            epoch = self.times["epochs"][-1]
            epoch["images"] += runner.outputs["num_samples"]  # type: ignore[attr-defined]
            epoch["trained"] = time.time()

        def after_train_epoch(self, runner: object) -> None:
            percent = runner.log_buffer.output.get("accuracy_top-1")  # type: ignore[attr-defined]
            accuracy = None if percent is None else float(percent) / 100
            self.times["epochs"][-1] |= {"val_accuracy": accuracy, "done": time.time()}

        def after_run(self, runner: object) -> None:
            write_json(os.environ[OUTPUT_VARIABLE], self.times | {"ended": time.time(), "gpu_peak": gpu_peak()})
