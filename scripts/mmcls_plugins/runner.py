"""The training loop: the same bits whether left alone or killed, since all it draws is a function of (seed, index)."""

from __future__ import annotations

import json
import math
import time
from typing import Any, NoReturn, cast

import numpy as np
import torch
from mmcv.runner import RUNNERS, EvalHook
from mmcv.runner.hooks import Hook
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from scripts.lib.base.console import describe_os_error
from scripts.lib.base.outcome import Ending, Outcome
from scripts.lib.base.problems import UserError
from scripts.lib.base.seeds import derive_seed
from scripts.lib.base.subprocesses import EXIT_STOPPED
from scripts.lib.base.units import plural
from scripts.mmcls_plugins import folding, processes, training_log
from scripts.mmcls_plugins.checkpoints import ResumableRunner
from scripts.mmcls_plugins.dataset import EpochSampler
from scripts.mmcls_plugins.images import Normalizer
from scripts.mmcls_plugins.processes import StopRequests, signals_held_back
from scripts.mmcls_plugins.randomness import seed_generators, use_deterministic_kernels


@RUNNERS.register_module()
class ReproducibleRunner(ResumableRunner):
    """An EpochBasedRunner that owns its randomness, its checkpoints and its evaluation, and never sleeps.

    mmcv's runner sleeps two seconds an epoch, saves no random state, writes ``.pth`` files in place, and removes the
    old best checkpoint before it writes the new one. Here:

    * the generators are seeded by (seed, iteration) before each training step, samples by (seed, epoch, index);
    * a state is saved every epoch, every *checkpoint_minutes*, and at once on SIGTERM or SIGINT; a start in the
      same work_dir goes on from the newest good one;
    * evaluation is taken over from mmcls's EvalHook; ``best.pth`` changes only for a better top-1 accuracy, or for
      a lower loss at the same accuracy (``training_log.is_better``).

    Where several processes train together (DDP, a GPU each), the first one writes all files, and all of them save,
    stop and go on at the same iteration. Each has its own share of every epoch and its own statistics of batch
    normalisation, which a state holds too; validation is of the first one's.

    Files in work_dir: ``states/``, ``best.pth``, ``last.pth`` (both: weights, classes, epoch), ``train_log.csv``,
    ``progress.json``, ``outcome.json`` (when it stopped, or cannot go on).

    Parameters
    ----------
    threads : CPU compute threads. They change the order of sums, so they are part of the config, not of the machine.
    checkpoint_minutes : longest time between two saved states.
    keep_states : how many states are kept.
    deterministic : ask torch for deterministic kernels; an operation that has none is named in the log.
    device : where the config means to train. mmcls falls back to the CPU silently where torch finds no GPU.
    gpus, nodes : processes of each node that train together, and nodes; the numbers determine the result, so others
        are refused.
    evaluate_first : evaluate the weights that training starts from, as epoch 0: best.pth is never worse on val.
    patience : epochs without a better val accuracy or loss after which training ends; 0: never before max_epochs.
    channels_last : keep weights and images in this memory format.
    normalize : arguments of a :class:`Normalizer`, for images that come as bytes.
    fold_norm : where statistics of batch normalisation are frozen and absorbed (folding.py), let the convolutions add.
    balanced_validation : judge an epoch by the means over the classes of their accuracy and loss on val, in which a
        class counts the same however many images it has there.
    """

    def __init__(
        self,
        *args: Any,
        threads: int = 2,
        checkpoint_minutes: float = 5.0,
        deterministic: bool = True,
        device: str = "cpu",
        gpus: int = 1,
        nodes: int = 1,
        evaluate_first: bool = False,
        patience: int = 0,
        channels_last: bool = False,
        normalize: dict[str, Any] | None = None,
        fold_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        torch.set_num_threads(threads)
        if deterministic:
            use_deterministic_kernels()
            torch.backends.cudnn.benchmark = False
        if self.processes.count != gpus * nodes or isinstance(self.model, DistributedDataParallel):
            wanted = f"gpus: {gpus}" + (f" and nodes: {nodes}" if nodes > 1 else "")
            self.fail(
                f"this config has {wanted}, but mmcls was started for {self.processes.count} process(es), or by a"
                " launcher of its own: train it by the command in its first line"
            )
        actual = next(self.model.parameters()).device.type
        if actual != device:
            self.fail(f"this config is for device {device}, but it would train on {actual}: `make doctor` says why")
        if channels_last:
            self.model.to(memory_format=torch.channels_last)
        self._device = torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device("cpu")
        self._normalizer = Normalizer(**normalize).to(self._device) if normalize else None
        self.checkpoint_seconds = 60 * checkpoint_minutes
        self.evaluate_first, self.patience = evaluate_first, patience
        self.fold_norm = fold_norm
        self.keep_weights_every = 0
        self.evaluator: EvalHook | None = None
        self.val_loader: DataLoader | None = None
        self.stop = StopRequests(self.processes)
        self._train_step: nn.Module | None = None

    def register_checkpoint_hook(self, checkpoint_config: Any) -> None:
        """Take ``checkpoint_config.interval`` as the epochs whose weights stay as epoch_<n>.pth; write them here."""
        self.keep_weights_every = int((checkpoint_config or {}).get("interval", 0))

    def register_hook(self, hook: Hook, priority: Any = "NORMAL") -> None:
        """Take mmcls's EvalHook over: its loader and options are used, its checkpoint handling is not."""
        if isinstance(hook, EvalHook):
            self.evaluator = hook
            self.val_loader = hook.dataloader
            if self.processes.count > 1:
                self.val_loader = processes.share_batches(hook.dataloader, self.processes)
        else:
            super().register_hook(hook, priority)

    def run(self, data_loaders: list[DataLoader], workflow: list, max_epochs: int | None = None, **_: Any) -> None:
        """Train to max_epochs, from the newest good state in work_dir if there is one.

        Raises
        ------
        SystemExit
            With status 75 after a signal (the state is saved), 1 when training cannot go on (outcome.json says why).
        """
        loader = data_loaders[0]
        if not isinstance(loader.sampler, EpochSampler):
            self.fail("the config has no `sampler = dict(type='EpochSampler')`: ReproducibleRunner needs it")
        self.folder.path.mkdir(parents=True, exist_ok=True)
        if self.rank == 0:
            self.folder.outcome.unlink(missing_ok=True)
        self._max_iters = self._max_epochs * len(loader)
        self.data_loader, self.mode = loader, "train"
        self.call_hook("before_run")
        if self.fold_norm:
            self._fold(loader.dataset)
        if self.processes.distributed:
            self._train_step = processes.share_gradients(self.model)
        # After before_run: hooks add to the model and the optimizer there (EMA buffers, initial_lr, the loss scaler).
        try:
            self.restore_state()
        except UserError as error:
            self.fail(str(error))
        try:
            with self.stop.signals_noticed():
                if self.evaluate_first and not self.training_log.records:
                    self._evaluate_start()
                while self._epoch < self._max_epochs and not self._has_lost_patience():
                    if self.stage == "train":
                        self.train(loader)
                        self.stage = "evaluate"
                    self._finish_epoch()
                    self.stage = "train"
                    self.stop.agree()
                    self.save_state()
                    self._stop_if_asked()
            self.save_weights(self.folder.last, self._epoch)
            self.call_hook("after_run")
            self.processes.wait_for_all()
        finally:
            self._end_workers()

    def _fold(self, dataset: Any) -> None:
        """Before all that computes, so that a run that goes on computes in the same way from its start on."""
        batch = self._normalized({"img": dataset[0]["img"][None]})
        pairs = folding.normalised_convolutions(self.bare_model, batch["img"].to(self._device))
        self.logger.info("%s folded into convolutions", plural(folding.compute_folded(pairs), "normalisation"))

    def _end_workers(self) -> None:
        """End the persistent workers: after an uncaught error Python would wait for them for ever.

        The traceback keeps the loaders alive then, so torch does not end their workers, and Python's own end sends
        them SIGTERM, which they ignore (``SeededCustomDataset._shield_worker``).
        """
        for loader in (self.data_loader, self.val_loader):
            workers = getattr(loader, "_iterator", None)
            if workers is not None:
                workers._shutdown_workers()

    def run_iter(self, data_batch: Any, train_mode: bool, **kwargs: Any) -> None:
        """Compute the loss of a batch; where processes train together, its backward pass exchanges the gradients."""
        if self._train_step is None:
            super().run_iter(data_batch, train_mode, **kwargs)
        else:
            self.outputs = self._train_step(data_batch)
            self.log_buffer.update(self.outputs["log_vars"], self.outputs["num_samples"])

    def train(self, data_loader: DataLoader, **kwargs: Any) -> None:
        """Run what is left of the current epoch."""
        self.model.train()
        self.mode = "train"
        batch_size = data_loader.batch_size or 1
        sampler = cast(EpochSampler, data_loader.sampler)
        sampler.set_position(self._epoch, self._inner_iter * batch_size)
        self.call_hook("before_train_epoch")
        self.restore_unfinished_epoch()
        done = self._inner_iter
        started = time.monotonic()
        with signals_held_back():
            batches = iter(data_loader) if done < len(data_loader) else ()
        for data_batch in batches:
            data_batch = self._normalized(data_batch)
            self.data_batch = data_batch
            self.call_hook("before_train_iter")
            seed_generators(derive_seed(self.seed, "iteration", self._iter, self.rank))
            lacking = False
            try:
                self.run_iter(data_batch, train_mode=True, **kwargs)
                self._record_loss()
                self.call_hook("after_train_iter")
            except RuntimeError as error:
                lacking = _is_out_of_memory(error)
                if not lacking:
                    raise
            if lacking:  # not in the except block: the error's frames hold on to what does not fit
                self._fail_for_want_of_memory(data_batch)
            self._iter += 1
            self._inner_iter += 1
            now = time.monotonic()
            self.training_log.train_seconds += now - started
            started = now
            self._write_progress()
            if self.stop.agree(now - self._saved_at > self.checkpoint_seconds):
                self.save_state()
                self._stop_if_asked()
        # Logger hooks see the epoch's last iteration as mmcv shows it: 0-based, before the epoch is counted.
        self._inner_iter = len(data_loader) - 1
        sampler.set_position(self._epoch)  # a hook that reads the loader again (PreciseBN) sees the whole epoch
        self.call_hook("after_train_epoch")
        self._inner_iter = len(data_loader)

    def _normalized(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return *batch* with its images on the device and normalised, if they came as bytes."""
        if self._normalizer is None:
            return batch
        return {**batch, "img": self._normalizer(batch["img"].to(self._device, non_blocking=True))}

    def _record_loss(self) -> None:
        loss, count = self.outputs["log_vars"]["loss"], self.outputs["num_samples"]
        if not math.isfinite(loss):
            rate = _first(self.current_lr())
            self.fail(
                f"the loss became {loss} in epoch {self._epoch + 1}, iteration {self._inner_iter + 1}, at learning rate"
                f" {rate:.3g}: lower `learning_rate` (a tenth is a good next try), or look at the data of that batch"
            )
        self.training_log.add_loss(loss, count)

    def _fail_for_want_of_memory(self, batch: dict[str, Any]) -> NoReturn:
        """Say how many images a step fits, by trying; the weights are spoilt by it, and none of them is saved."""
        count = len(batch["img"])
        fitting = count // 2 if self.processes.count == 1 else 0
        while fitting and not self._fits(
            {key: value[:fitting] for key, value in batch.items() if torch.is_tensor(value)}
        ):
            fitting //= 2
        if fitting:
            self.fail(
                f"{count} images a step need more memory than {self._device} has; {fitting} fit: set batch_size:"
                f" {fitting} (learning_rate: auto follows it)"
            )
        remedy = "halve batch_size" if self.processes.count > 1 else "no fewer fit either: choose a smaller base_config"
        self.fail(f"{count} images a step need more memory than {self._device} has; {remedy}, or lower image_size")

    def _fits(self, batch: dict[str, Any]) -> bool:
        self.outputs = None
        self.optimizer.zero_grad(set_to_none=True)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            self.model.train_step(batch, self.optimizer)["loss"].backward()
            self.optimizer.step()  # whose own memory is taken at the first step
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            return False
        return True

    def _evaluate_start(self) -> None:
        """Record the weights that training starts from as epoch 0, the first to be the best."""
        if self.evaluator is None:
            self.fail("the config asks to evaluate first, but mmcls was started with --no-validate: leave it out")
        record = self.training_log.start_record() | self._evaluate(self.evaluator)
        self._keep_best(record)
        self._add_record(record)
        self.logger.info("Before training: %s", json.dumps(record))
        self._write_progress(force=True)

    def _has_lost_patience(self) -> bool:
        log = self.training_log
        return log.best is not None and training_log.has_lost_patience(
            log.records, log.best["epoch"], self._epoch, self.patience
        )

    def _finish_epoch(self) -> None:
        """Evaluate, record the epoch, keep the best weights."""
        epoch = self._epoch + 1
        record = self.training_log.epoch_record(epoch, self._iter, _first(self.current_lr()))
        is_last = epoch == self._max_epochs
        if self.evaluator is not None and (is_last or epoch % self.evaluator.interval == 0):
            record |= self._evaluate(self.evaluator)
            record["is_best"] = training_log.is_better(record, self.training_log.records)
        if record["is_best"] or (self.evaluator is None and is_last):
            self._keep_best(record)
        if self.keep_weights_every and epoch % self.keep_weights_every == 0 and not is_last:
            self.save_weights(self.folder.path / f"epoch_{epoch}.pth", epoch)
        self._add_record(record)
        self.logger.info("Epoch %d: %s", epoch, json.dumps(record))
        self._epoch = epoch
        self._inner_iter = 0
        self.training_log.start_epoch()
        self._write_progress(force=True)

    def _keep_best(self, record: dict[str, Any]) -> None:
        """Save the weights of an epoch, and only then remember it: a kill between the two repeats the epoch's end."""
        self.save_weights(self.folder.best, record["epoch"])
        self.training_log.best = {"epoch": record["epoch"], "val_accuracy": record["val_accuracy"]}

    def _add_record(self, record: dict[str, Any]) -> None:
        self.training_log.records = [*self.training_log.records, record]
        try:
            self.training_log.write()
        except OSError as error:
            self.fail(f"train_log.csv could not be saved: {describe_os_error(error)}")

    def _write_progress(self, force: bool = False) -> None:
        self.training_log.write_progress(self._epoch, self._max_epochs, self._iter, self._max_iters, force)

    def _evaluate(self, hook: EvalHook) -> dict[str, float]:
        """Return what was measured on the validation split, and the seconds that it took, by columns of the log.

        Not mmcls's single_gpu_test: it draws a carriage-return bar into the log.
        """
        started = time.monotonic()
        with signals_held_back():  # before the processes exchange anything: a fork of CPython 3.11 hangs now and then
            batches = iter(cast(DataLoader, self.val_loader))  # while a thread of gloo lets go of what was sent
        if self.processes.count > 1:
            processes.copy_normalisation(self.model)
        self.model.eval()
        share: list[list[np.ndarray]] = []
        with torch.no_grad():
            for _ in range(-(-len(hook.dataloader) // self.processes.count)):
                batch = next(batches, None)  # the last round may have none for the last processes
                if batch is not None:
                    share.append([np.asarray(row) for row in self.model(return_loss=False, **self._normalized(batch))])
                if self.stop.agree():
                    self.save_state()
                    self._stop_if_asked()
        self.model.train()
        shares = self.processes.to_first(share)
        measured = self.processes.from_first(self._measure(hook, shares) if shares else {})
        return {**measured, "val_seconds": time.monotonic() - started}

    def _measure(self, hook: EvalHook, shares: list[list[list[np.ndarray]]]) -> dict[str, float]:
        """Return accuracy and loss of the probabilities, which are by process, batch and image."""
        results = [row for batch in processes.merge_batches(shares) for row in batch]
        dataset = hook.dataloader.dataset
        metrics = dataset.evaluate(results, logger=self.logger, **hook.eval_kwargs)
        self.logger.info("Validation: %s", {name: round(float(value), 4) for name, value in metrics.items()})
        return training_log.measure(np.stack(results), dataset.get_gt_labels(), self.balanced_validation)

    def _stop_if_asked(self) -> None:
        """Stop, if the last round of ``self.stop.agree`` said so; the state is saved then."""
        if not self.stop.agreed:
            return
        self.processes.wait_for_all()  # the first one has saved
        self.logger.info("stopped by %s; the state is saved", self.stop.agreed)
        if self.rank == 0:
            Outcome(Ending.STOPPED).write(self.folder.outcome)
        raise SystemExit(EXIT_STOPPED)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether CUDA, or the CPU's allocator, had no memory left."""
    return "out of memory" in str(error) or "can't allocate memory" in str(error)


def _first(value: Any) -> float:
    """Return the first number of mmcv's nested learning rates (groups, perhaps of several optimizers)."""
    while isinstance(value, dict | list):
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return float(value)
