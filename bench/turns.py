"""A hook that lets the limit's bare loop and a training take turns, in one process.

A shared machine computes a tenth more or less from one minute to the next. What is measured an hour apart cannot tell
95 % from 100; what takes turns of some seconds can.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from mmcv.runner import HOOKS, Hook

from bench.clock import OUTPUT_VARIABLE
from bench.peers.limit import BareLoop


@HOOKS.register_module(force=True)
class BareLoopInTurns(Hook):
    """Measure the bare loop before each epoch and after the last, while the data loader's processes have no work.

    Its JSON: ``plain`` and ``absorbed`` (normalisation, as recipe fast does it), images/s of each turn, one more than
    there are epochs.

    Parameters
    ----------
    size, batch_size : of the training.
    steps : of the bare loop, in one turn.
    """

    def __init__(self, size: int, batch_size: int, steps: int) -> None:
        self.size, self.batch_size, self.steps = size, batch_size, steps
        self.rates: dict[str, list[float]] = {"plain": [], "absorbed": []}

    def before_run(self, runner: object) -> None:
        from mmcv import Config

        from scripts.lib.model.inference import build_classifier

        model = Config.fromstring(runner.meta["config"], ".py").model  # type: ignore[attr-defined]
        device = next(runner.model.parameters()).device.type  # type: ignore[attr-defined]
        self.loops = {
            name: BareLoop(build_classifier(model), self.size, self.batch_size, device, absorbed=name == "absorbed")
            for name in self.rates
        }

    def before_train_epoch(self, runner: object) -> None:
        for name, loop in self.loops.items():
            self.rates[name].append(loop.rate(self.steps))

    def after_run(self, runner: object) -> None:
        self.before_train_epoch(runner)
        Path(os.environ[OUTPUT_VARIABLE]).write_text(json.dumps(self.rates), encoding="utf-8")
