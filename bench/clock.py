"""When a command of a bench's row was ready and ended, without its start-up; and a hook that notes it for mmcv."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path

from bench.processes import card_peak
from scripts.lib.base.console import configure_logging, one_line

#: Where the hook writes its times.
OUTPUT_VARIABLE = "MIMFLOW_BENCH_OUTPUT"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.clock", description=(__doc__ or "").split(";")[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON to write: times")
    parser.add_argument(
        "--preload", nargs="*", default=[], metavar="MODULE", help="what the module imports only later, as start-up too"
    )
    parser.add_argument("--module", required=True, help="a command of mimflow, as scripts.data.pack_images")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- ARGUMENT", help="what the command is given")
    return parser


def main() -> None:
    """Import the module, note the time, run it, note the time again (seconds since 1970: processes are compared).

    The JSON has ``ready``, ``ended``, and :func:`card_peak`.
    """
    args = build_parser().parse_args()
    module = importlib.import_module(args.module)
    for name in args.preload:
        importlib.import_module(name)
    arguments = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
    parsed = module.build_parser().parse_args(arguments)
    configure_logging(None)
    ready = time.time()
    try:
        module.main(parsed)
    except Exception as error:
        sys.exit(f"error: {one_line(error)}")
    times = {"ready": ready, "ended": time.time(), "card_peak": card_peak()}
    args.output.write_text(json.dumps(times), encoding="utf-8")


if __name__ == "__main__":
    main()
else:  # as a command it must not wait for mmcv, which is no part of what it measures
    from mmcv.runner import HOOKS, Hook

    @HOOKS.register_module(force=True)
    class BenchClock(Hook):
        """Note the times of training, as seconds since 1970.

        It must run after the evaluation (mmcv's LOW, 70) and before the loggers (VERY_LOW, 90), which clear the
        accuracy: ``priority=80``. Its JSON: ``begun``, before the first batch is fetched; ``epochs``, of which each has
        ``begun``, ``trained`` (last iteration), ``done`` (stock mmcv: evaluated and saved), ``images`` and
        ``val_accuracy`` (0 to 1, stock mmcv only: the ReproducibleRunner evaluates after its hooks); ``ended``;
        and :func:`card_peak`.
        """

        def __init__(self) -> None:
            self.times: dict = {"epochs": []}

        def before_run(self, runner: object) -> None:
            self.times["begun"] = time.time()

        def before_train_epoch(self, runner: object) -> None:
            self.times["epochs"].append({"begun": time.time(), "images": 0})

        def after_train_iter(self, runner: object) -> None:
            epoch = self.times["epochs"][-1]
            epoch["images"] += runner.outputs["num_samples"]  # type: ignore[attr-defined]
            epoch["trained"] = time.time()

        def after_train_epoch(self, runner: object) -> None:
            percent = runner.log_buffer.output.get("accuracy_top-1")  # type: ignore[attr-defined]
            epoch = self.times["epochs"][-1]
            epoch["val_accuracy"] = None if percent is None else float(percent) / 100
            epoch["done"] = time.time()

        def after_run(self, runner: object) -> None:
            self.times |= {"ended": time.time(), "card_peak": card_peak()}
            Path(os.environ[OUTPUT_VARIABLE]).write_text(json.dumps(self.times), encoding="utf-8")
