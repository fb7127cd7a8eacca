"""The training loop: the same bits whether left alone or killed, since all it draws is a function of (seed, index)."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, cast

import numpy as np
import torch
from mmcv.runner import RUNNERS, EpochBasedRunner, EvalHook
from mmcv.runner.checkpoint import get_state_dict, weights_to_cpu
from mmcv.runner.hooks import Hook
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from scripts.lib.base.console import describe_os_error
from scripts.lib.base.environment import Variable
from scripts.lib.base.files import atomic_path
from scripts.lib.base.outcome import Ending, Outcome
from scripts.lib.base.problems import UserError
from scripts.lib.base.subprocesses import EXIT_STOPPED
from scripts.lib.runs.run_folder import WorkFolder
from scripts.mmcls_plugins import checkpoints, folding, processes
from scripts.mmcls_plugins.images import Normalizer
from scripts.mmcls_plugins.randomness import derive_seed, seed_generators, use_deterministic_kernels
from scripts.mmcls_plugins.sampler import EpochSampler

#: Seconds before its end (Variable.END_TIME) at which training stops: enough to save a large model on a slow disk.
END_MARGIN_SECONDS = 60.0
#: Why training stops before its end; processes that train together tell each other the number. The last one wins.
STOP_REASONS = ("", "the end of train_model", "the end of its time", "SIGINT", "SIGTERM")
#: Columns of train_log.csv, one row an epoch.
LOG_COLUMNS = (
    "epoch",
    "iteration",
    "learning_rate",
    "train_loss",
    "val_accuracy",
    "val_loss",
    "images_per_second",
    "train_seconds",
    "val_seconds",
    "is_best",
)
#: What balanced validation adds to them: the means over the classes, by which it judges.
BALANCED_COLUMNS = ("val_accuracy_balanced", "val_loss_balanced")


@RUNNERS.register_module()
class ReproducibleRunner(EpochBasedRunner):
    """An EpochBasedRunner that owns its randomness, its checkpoints and its evaluation, and never sleeps.

    mmcv's runner sleeps two seconds an epoch, saves no random state, writes ``.pth`` files in place, and removes the
    old best checkpoint before it writes the new one. Here:

    * the generators are seeded by (seed, iteration) before each training step, samples by (seed, epoch, index);
    * a state is saved every epoch, every *checkpoint_minutes*, and at once on SIGTERM or SIGINT; a start in the
      same work_dir goes on from the newest good one;
    * evaluation is taken over from mmcls's EvalHook; ``best.pth`` changes only for a strictly better top-1 accuracy,
      so that ties keep the earlier epoch.

    Where several processes train together (DDP, a card each), the first one writes all files, and all of them save,
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
    gpus : processes that train together; the number determines the result, so another one is refused.
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
        keep_states: int = 2,
        deterministic: bool = True,
        device: str = "cpu",
        gpus: int = 1,
        evaluate_first: bool = False,
        patience: int = 0,
        channels_last: bool = False,
        normalize: dict[str, Any] | None = None,
        fold_norm: bool = False,
        balanced_validation: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        torch.set_num_threads(threads)
        if deterministic:
            use_deterministic_kernels()
            torch.backends.cudnn.benchmark = False
        self.folder = Path(self.work_dir or ".")
        self.processes = processes.Processes()
        if self.processes.count != gpus or isinstance(self.model, DistributedDataParallel):
            self._fail(
                f"this config has gpus: {gpus}, but mmcls was started for {self.processes.count} process(es), or by a"
                " launcher of its own: train it by the command in its first line"
            )
        actual = next(self.model.parameters()).device.type
        if actual != device:
            self._fail(f"this config is for device {device}, but it would train on {actual}: `make doctor` says why")
        if channels_last:
            self.model.to(memory_format=torch.channels_last)
        self._device = torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else torch.device("cpu")
        self._normalizer = Normalizer(**normalize).to(self._device) if normalize else None
        self.seed = int((self.meta or {}).get("seed") or 0)
        self.states = checkpoints.StateStore(self.folder / "states", keep_states)
        self.checkpoint_seconds = 60 * checkpoint_minutes
        self.evaluate_first, self.patience = evaluate_first, patience
        self.fold_norm = fold_norm
        self.balanced_validation = balanced_validation
        self.log_columns = (*LOG_COLUMNS, *(BALANCED_COLUMNS if balanced_validation else ()))
        self.keep_weights_every = 0
        self.evaluator: EvalHook | None = None
        self.val_loader: DataLoader | None = None
        self.records: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.stage = "train"
        self._inner_iter: int = 0
        self._unfinished: dict[str, Any] | None = None
        self._train_step: nn.Module | None = None
        self._stop_reason = self._agreed_stop = 0
        self._parent = int(os.environ.get(Variable.PARENT, "0"))
        self._end_time = float(os.environ.get(Variable.END_TIME, "inf"))
        self._loss_sum = self._loss_count = self._train_seconds = 0.0
        self._saved_at = self._progress_at = time.monotonic()

    # -- what mmcls's train_model registers ---------------------------------------------------------------------

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

    # -- the loop ---------------------------------------------------------------------------------------------

    def run(self, data_loaders: list[DataLoader], workflow: list, max_epochs: int | None = None, **_: Any) -> None:
        """Train to max_epochs, from the newest good state in work_dir if there is one.

        Raises
        ------
        SystemExit
            With status 75 after a signal (the state is saved), 1 when training cannot go on (outcome.json says why).
        """
        loader = data_loaders[0]
        if not isinstance(loader.sampler, EpochSampler):
            self._fail("the config has no `sampler = dict(type='EpochSampler')`: ReproducibleRunner needs it")
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.rank == 0:
            WorkFolder(self.folder).outcome.unlink(missing_ok=True)
        self._max_iters = self._max_epochs * len(loader)
        self.data_loader, self.mode = loader, "train"
        self.call_hook("before_run")
        if self.fold_norm:
            self._fold(loader.dataset)
        if self.processes.distributed:
            self._train_step = processes.share_gradients(self.model)
        # After before_run: hooks add to the model and the optimizer there (EMA buffers, initial_lr, the loss scaler).
        try:
            self._restore()
        except UserError as error:
            self._fail(str(error))
        try:
            with self._signals_noticed():
                if self.evaluate_first and not self.records:
                    self._evaluate_start()
                while self._epoch < self._max_epochs and not self._has_lost_patience():
                    if self.stage == "train":
                        self.train(loader)
                        self.stage = "evaluate"
                    self._finish_epoch()
                    self.stage = "train"
                    self._agree_to_save()
                    self._save_state()
                    self._stop_if_asked()
            self._save_weights("last.pth", epoch=self._epoch)
            self.call_hook("after_run")
            self.processes.wait_for_all()
        finally:
            self._end_workers()

    def _fold(self, dataset: Any) -> None:
        """Before all that computes, so that a run that goes on computes in the same way from its start on."""
        model = self.model.module if hasattr(self.model, "module") else self.model
        batch = self._normalized({"img": dataset[0]["img"][None]})
        pairs = folding.normalised_convolutions(model, batch["img"].to(self._device))
        self.logger.info("%d normalisations folded into their convolutions", folding.compute_folded(pairs))

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
        if self._unfinished:
            # Hooks act on the start of an epoch that is past its start already: EMAHook exchanges the weights there.
            self._load_tensors(self._unfinished)
            self._unfinished = None
        done = self._inner_iter
        started = time.monotonic()
        with _signals_held_back():
            batches = iter(data_loader) if done < len(data_loader) else ()
        for data_batch in batches:
            data_batch = self._normalized(data_batch)
            self.data_batch = data_batch
            self.call_hook("before_train_iter")
            seed_generators(derive_seed(self.seed, "iteration", self._iter, self.rank))
            lacking = False
            try:
                self.run_iter(data_batch, train_mode=True, **kwargs)
                self._note_loss()
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
            self._train_seconds, started = self._train_seconds + now - started, now
            self._write_progress()
            if self._agree_to_save(now - self._saved_at > self.checkpoint_seconds):
                self._save_state()
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

    def _note_loss(self) -> None:
        loss, count = self.outputs["log_vars"]["loss"], self.outputs["num_samples"]
        if not math.isfinite(loss):
            rate = _first(self.current_lr())
            self._fail(
                f"the loss became {loss} in epoch {self._epoch + 1}, iteration {self._inner_iter + 1}, at learning rate"
                f" {rate:.3g}: lower `learning_rate` (a tenth is a good next try), or look at the data of that batch"
            )
        self._loss_sum += loss * count
        self._loss_count += count

    def _fail_for_want_of_memory(self, batch: dict[str, Any]) -> NoReturn:
        """Say how many images a step fits, by trying; the weights are spoilt by it, and none of them is saved."""
        count = len(batch["img"])
        fitting = count // 2 if self.processes.count == 1 else 0
        while fitting and not self._fits(
            {key: value[:fitting] for key, value in batch.items() if torch.is_tensor(value)}
        ):
            fitting //= 2
        if fitting:
            self._fail(
                f"{count} images a step need more memory than {self._device} has; {fitting} fit: set batch_size:"
                f" {fitting} (learning_rate: auto follows it)"
            )
        remedy = "halve batch_size" if self.processes.count > 1 else "no fewer fit either: choose a smaller base_config"
        self._fail(f"{count} images a step need more memory than {self._device} has; {remedy}, or lower image_size")

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

    # -- the end of an epoch ------------------------------------------------------------------------------------

    def _evaluate_start(self) -> None:
        """Record the weights that training starts from as epoch 0, the first to be the best."""
        if self.evaluator is None:
            self._fail("the config asks to evaluate first, but mmcls was started with --no-validate: leave it out")
        started = time.monotonic()
        measured = self._evaluate(self.evaluator)
        record = dict.fromkeys(self.log_columns) | {
            "epoch": 0,
            "iteration": 0,
            "train_seconds": 0.0,
            **measured,
            "val_seconds": time.monotonic() - started,
            "is_best": True,
        }
        self._save_weights("best.pth", epoch=0)
        self.best = {"epoch": 0, "val_accuracy": record["val_accuracy"]}
        self.records = [record]
        self._write_log()
        self.logger.info("Before training: %s", json.dumps(record))

    def _has_lost_patience(self) -> bool:
        """Tell whether the last *patience* epochs brought neither better weights nor a lower loss on val.

        Of the records alone, so a restart agrees. The loss too: a lucky accuracy on few images would else end early
        a training that is still getting better.
        """
        known = [record for record in self.records if record["val_loss"] is not None]
        if not self.patience or self.best is None or not known:
            return False
        lowest = min(known, key=lambda record: _judged(record)[1])
        return self._epoch - max(self.best["epoch"], lowest["epoch"]) >= self.patience

    def _is_better(self, record: Mapping[str, Any]) -> bool:
        """Tell whether an epoch is better than the best so far: by accuracy on val and, of equal ones, by loss.

        Of a hundred images several epochs get as many right; the loss tells them apart.
        """
        best = next((earlier for earlier in reversed(self.records) if earlier["is_best"]), None)
        if best is None:
            return True
        (accuracy, loss), (best_accuracy, least_loss) = _judged(record), _judged(best)
        return accuracy > best_accuracy if accuracy != best_accuracy else loss < least_loss

    def _finish_epoch(self) -> None:
        """Evaluate, record the epoch, keep the best weights."""
        record: dict[str, Any] = {
            "epoch": self._epoch + 1,
            "iteration": self._iter,
            "learning_rate": _first(self.current_lr()),
            "train_loss": self._loss_sum / max(self._loss_count, 1),
            "images_per_second": self._loss_count * self.world_size / max(self._train_seconds, 1e-9),
            "train_seconds": self._train_seconds,
            "val_accuracy": None,
            "val_loss": None,
            "val_seconds": 0.0,
            "is_best": False,
            **(dict.fromkeys(BALANCED_COLUMNS) if self.balanced_validation else {}),
        }
        last = self._epoch + 1 == self._max_epochs
        if self.evaluator is not None and (last or (self._epoch + 1) % self.evaluator.interval == 0):
            started = time.monotonic()
            record |= self._evaluate(self.evaluator)
            record["val_seconds"] = time.monotonic() - started
            record["is_best"] = self._is_better(record)
        if record["is_best"] or (self.evaluator is None and last):
            # In place before it is remembered: a kill between the two repeats the epoch's end, and its result.
            self._save_weights("best.pth")
            self.best = {"epoch": self._epoch + 1, "val_accuracy": record["val_accuracy"]}
        if self.keep_weights_every and (self._epoch + 1) % self.keep_weights_every == 0 and not last:
            self._save_weights(f"epoch_{self._epoch + 1}.pth")
        self.records = [*self.records, record]
        self._write_log()
        self.logger.info("Epoch %d: %s", self._epoch + 1, json.dumps(record))
        self._epoch += 1
        self._inner_iter = 0
        self._loss_sum = self._loss_count = self._train_seconds = 0.0
        self._write_progress(force=True)

    def _evaluate(self, hook: EvalHook) -> dict[str, float]:
        """Return top-1 accuracy (0-1) and mean cross-entropy on the validation split, by their columns of the log.

        Not mmcls's single_gpu_test: it draws a carriage-return bar into the log.
        """
        if self.processes.count > 1:
            processes.copy_normalisation(self.model)
        self.model.eval()
        own: list[list[np.ndarray]] = []
        with torch.no_grad():
            with _signals_held_back():
                batches = iter(cast(DataLoader, self.val_loader))
            for _ in range(-(-len(hook.dataloader) // self.processes.count)):
                batch = next(batches, None)  # the last round may have none for the last processes
                if batch is not None:
                    own.append([np.asarray(row) for row in self.model(return_loss=False, **self._normalized(batch))])
                if self._agree_to_save():
                    self._save_state()
                    self._stop_if_asked()
        self.model.train()
        shares = self.processes.to_first(own)
        return self.processes.from_first(self._measure(hook, shares) if shares else {})

    def _measure(self, hook: EvalHook, shares: list[list[list[np.ndarray]]]) -> dict[str, float]:
        """Return accuracy and loss of the scores, which are by process, batch and image."""
        results = [row for batch in processes.merge_batches(shares) for row in batch]
        scores = np.stack(results)
        labels = hook.dataloader.dataset.get_gt_labels()
        metrics = hook.dataloader.dataset.evaluate(results, logger=self.logger, **hook.eval_kwargs)
        self.logger.info("Validation: %s", {name: round(float(value), 4) for name, value in metrics.items()})
        right = scores.argmax(axis=1) == labels
        likelihood = scores[np.arange(len(labels)), labels].astype(np.float64)
        logarithm = np.log(np.maximum(likelihood, np.finfo(np.float32).tiny))
        measured = {"val_accuracy": float(np.mean(right)), "val_loss": float(-np.mean(logarithm))}
        if self.balanced_validation:
            classes = [labels == label for label in np.unique(labels)]
            means = (np.mean([values[chosen].mean() for chosen in classes]) for values in (right, -logarithm))
            measured |= dict(zip(BALANCED_COLUMNS, map(float, means), strict=True))
        return measured

    # -- states -------------------------------------------------------------------------------------------------

    def _save_state(self) -> None:
        replicas = processes.collect_buffers(self.model, self.processes) if self.processes.count > 1 else []
        self._saved_at = time.monotonic()
        if self.rank:
            return
        content = {
            "identity": self._identity(),
            "model": weights_to_cpu(get_state_dict(self.model)),
            "optimizer": self.optimizer.state_dict(),
            "loss_scalers": [hook.loss_scaler.state_dict() for hook in self._scaled_hooks()],
            "epoch": self._epoch,
            "iteration": self._iter,
            "inner_iteration": self._inner_iter,
            "stage": self.stage,
            "best": self.best,
            "records": self.records,
            "sums": [self._loss_sum, self._loss_count, self._train_seconds],
            "replicas": replicas,
        }
        try:
            self.states.save(self._iter, content)
        except OSError as error:  # a full disk: the states before this one are whole, and training can go on
            self.logger.warning("the state of iteration %d could not be saved: %s", self._iter, error)

    def _restore(self) -> None:
        """Go on from the newest good state, if there is one.

        Raises
        ------
        UserError
            The states in work_dir belong to another config.
        """
        # Read once, for all: two processes must never go on from different states.
        state = self.processes.from_first(self.states.load_newest() if self.rank == 0 else None)
        if state is None:
            return
        if state["identity"] != self._identity():
            raise UserError(
                f"{self.folder} holds the states of another config: choose another --work-dir, or remove it"
            )
        self._load_tensors(state)
        for hook, scaler in zip(self._scaled_hooks(), state["loss_scalers"], strict=True):
            hook.loss_scaler.load_state_dict(scaler)
        self._epoch, self._iter, self._inner_iter = state["epoch"], state["iteration"], state["inner_iteration"]
        self.stage, self.best, self.records = state["stage"], state["best"], state["records"]
        self._loss_sum, self._loss_count, self._train_seconds = state["sums"]
        if self.stage == "train" and self._inner_iter:
            self._unfinished = state
        self.logger.info("going on from epoch %d, iteration %d", self._epoch + 1, self._iter)

    def _load_tensors(self, state: dict[str, Any]) -> None:
        model = self.model.module if hasattr(self.model, "module") else self.model
        model.load_state_dict(state["model"], strict=True)
        processes.restore_buffers(self.model, state.get("replicas", []), self.processes)
        self.optimizer.load_state_dict(state["optimizer"])

    def _identity(self) -> str:
        """Return what the states belong to: the config without what does not determine a result."""
        from mmcv import Config

        config = Config.fromstring((self.meta or {})["config"], ".py")._cfg_dict.to_dict()
        for name in ("work_dir", "gpu_ids", "resume_from", "device", "seed", "log_level"):
            config.pop(name, None)
        for name in ("workers_per_gpu", "persistent_workers", "pin_memory"):
            config.get("data", {}).pop(name, None)
        return json.dumps([self.seed, config], sort_keys=True, default=str)

    def _scaled_hooks(self) -> list[Any]:
        return [hook for hook in self._hooks if hasattr(hook, "loss_scaler")]

    def _save_weights(self, name: str, epoch: int | None = None) -> None:
        if self.rank:
            return
        epoch = self._epoch + 1 if epoch is None else epoch
        meta = {"epoch": epoch, "iter": self._iter, "CLASSES": list((self.meta or {}).get("CLASSES") or ())}
        weights = weights_to_cpu(get_state_dict(self.model))
        for key in [key for key in weights if key.startswith("ema_")]:
            del weights[key]  # where weights are averaged, the average has the plain names now, and these are the rest
        content = {"meta": meta, "state_dict": weights}
        try:
            checkpoints.save(self.folder / name, content)
        except OSError as error:
            self._fail(f"{name} could not be saved: {describe_os_error(error)}")

    # -- stopping -------------------------------------------------------------------------------------------------

    @contextmanager
    def _signals_noticed(self) -> Iterator[None]:
        """Turn SIGTERM and SIGINT into a request that is met at the end of the iteration."""

        def notice(number: int, _frame: FrameType | None) -> None:
            self._stop_reason = STOP_REASONS.index(signal.Signals(number).name)

        previous = {number: signal.signal(number, notice) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _agree_to_save(self, due: bool = False) -> bool:
        """Tell whether any process is asked to stop, or finds that saving is *due*: one answer for all of them.

        Asked to stop is a process that got a signal, whose job ends soon, or whose train_model, which passes signals
        on, is gone.
        """
        if self._parent and not _is_alive(self._parent):
            self._stop_reason = self._stop_reason or STOP_REASONS.index("the end of train_model")
        if time.time() > self._end_time - END_MARGIN_SECONDS:
            self._stop_reason = self._stop_reason or STOP_REASONS.index("the end of its time")
        # A signal that comes after this line waits for the next round: all processes know the same.
        self._agreed_stop, saving = self.processes.highest(self._stop_reason, due)
        return bool(self._agreed_stop or saving)

    def _stop_if_asked(self) -> None:
        """Stop, if the last round of :meth:`_agree_to_save` said so; the state is saved then."""
        if not self._agreed_stop:
            return
        self.processes.wait_for_all()  # the first one has saved
        self.logger.info("stopped by %s; the state is saved", STOP_REASONS[self._agreed_stop])
        if self.rank == 0:
            Outcome(Ending.STOPPED).write(WorkFolder(self.folder).outcome)
        raise SystemExit(EXIT_STOPPED)

    def _fail(self, message: str) -> NoReturn:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.logger.error(message)
        Outcome(Ending.FAILED, message).write(WorkFolder(self.folder).outcome)
        raise SystemExit(1)

    # -- what people and rules read ---------------------------------------------------------------------------------

    def _write_log(self) -> None:
        if self.rank:
            return
        try:
            with atomic_path(self.folder / "train_log.csv") as temporary, open(temporary, "w", newline="") as file:
                writer = csv.DictWriter(file, self.log_columns)
                writer.writeheader()
                writer.writerows({**record, "is_best": int(record["is_best"])} for record in self.records)
        except OSError as error:
            self._fail(f"train_log.csv could not be saved: {describe_os_error(error)}")

    def _write_progress(self, force: bool = False) -> None:
        """Tell, at most once a second, how far training is; losing it costs nothing, so no fsync."""
        now = time.monotonic()
        if self.rank or (now - self._progress_at < 1 and not force):
            return
        self._progress_at = now
        loss = self._loss_sum / self._loss_count if self._loss_count else None
        rate = self._loss_count * self.world_size / self._train_seconds if self._train_seconds else None
        if self.records:
            loss = self.records[-1]["train_loss"] if loss is None else loss
            rate = self.records[-1]["images_per_second"] if rate is None else rate
        spent = sum(record["train_seconds"] + record["val_seconds"] for record in self.records) + self._train_seconds
        progress = {
            "epochs_done": self._epoch,
            "max_epochs": self._max_epochs,
            "iteration": self._iter,
            "max_iterations": self._max_iters,
            "loss": loss,
            "val_accuracy": self.records[-1]["val_accuracy"] if self.records else None,
            "best_accuracy": self.best["val_accuracy"] if self.best else None,
            "images_per_second": rate,
            "seconds_left": spent / self._iter * (self._max_iters - self._iter) if self._iter else None,
        }
        temporary = self.folder / "progress.json.tmp"
        with suppress(OSError):  # a full disk stops training where something would be lost by it, not here
            temporary.write_text(json.dumps(progress))
            os.replace(temporary, self.folder / "progress.json")


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Keep SIGTERM and SIGINT from this process during the block, and from those that start in it for ever.

    A data-loader worker would die of the signal that asks its trainer to save and stop, before it has read anything
    (``SeededCustomDataset`` shields it from then on), and with it the trainer.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether CUDA, or the CPU's allocator, had no memory left."""
    return "out of memory" in str(error) or "can't allocate memory" in str(error)


def _judged(record: Mapping[str, Any]) -> tuple[float, float]:
    """Return the accuracy and the loss on val by which an epoch is judged: means over the classes, if it has them."""
    ending = "_balanced" if "val_accuracy_balanced" in record else ""
    return record[f"val_accuracy{ending}"], record[f"val_loss{ending}"]


def _first(value: Any) -> float:
    """Return the first number of mmcv's nested learning rates (groups, perhaps of several optimizers)."""
    while isinstance(value, dict | list):
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return float(value)
