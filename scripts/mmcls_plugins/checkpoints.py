"""States from which a training goes on after a kill, a full disk or a damaged file: whole or absent, hashed."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmcv.runner import EpochBasedRunner
from mmcv.runner.checkpoint import CheckpointLoader, get_state_dict, weights_to_cpu
from torch import nn

from scripts.lib.base import tensor_file
from scripts.lib.base.console import describe_os_error
from scripts.lib.base.files import atomic_path, is_whole, sum_of, tensors_sha256, write_sum
from scripts.lib.base.outcome import Ending, Outcome
from scripts.lib.base.problems import UserError
from scripts.lib.runs.run_folder import WorkFolder
from scripts.mmcls_plugins import processes
from scripts.mmcls_plugins.training_log import TrainingLog

__all__ = ["ResumableRunner", "StateStore", "load", "save", "tensors_sha256"]
logger = logging.getLogger(__name__)
#: Of a state: ``state_`` and the iteration, as a pattern of names.
STATE_PATTERN = "state_" + 9 * "[0-9]" + ".pth"


def save(path: Path, content: dict[str, Any]) -> None:
    """Write *content* with torch.save so that *path* is always either the old file or the whole new one.

    Its hash is beside it before it has its name: what can be seen can be checked.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_sum(path, hashlib.sha256(buffer.getbuffer()).hexdigest())
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU; nothing but tensors and plain values is accepted."""
    return tensor_file.read(path)


def load_from_file(filename: str, map_location: Any = None, **_options: Any) -> Any:
    """Read weights for mmcv, wherever a config names some (``load_from``, ``init_cfg``, ...): a local file, as data.

    Raises
    ------
    UserError : no local file, or none that holds tensors and plain values only.
    """
    path = Path(str(filename)).expanduser()
    if not path.is_file():
        remedy = "give a local file, or let mimflow fetch it: checkpoint: {url: ...}"
        raise UserError(f"weights {filename}: there is no such file", remedy)
    try:
        return tensor_file.read(path)
    except tensor_file.Unreadable as error:
        what = f"weights {filename}: not opened, since they are damaged or hold more than weights ({error})"
        raise UserError(
            what, "make them tensors only: checkpoint: {path: ..., sha256: ..., trust_pickle: true}"
        ) from error


def replace_loaders() -> None:
    """Have mmcv read all weights by :func:`load_from_file`; its own loaders unpickle, and download where they like."""
    schemes = CheckpointLoader._schemes
    for prefix in list(schemes):
        CheckpointLoader.register_scheme(prefix, load_from_file, force=True)


class StateStore:
    """The resumable states of a run: ``state_<iteration>.pth`` with ``.sha256`` beside it, the newest *keep*."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, iteration: int, content: dict[str, Any]) -> None:
        """Add a state; drop the oldest ones only when it is safe on disk."""
        save(self.folder / f"state_{iteration:09d}.pth", content)
        for old in self.paths()[: -self.keep]:
            old.unlink(missing_ok=True)
            sum_of(old).unlink(missing_ok=True)

    def load_newest(self) -> dict[str, Any] | None:
        """Return the newest state whose hash is right, or None; say which ones were damaged."""
        for path in reversed(self.paths()):
            if is_whole(path):
                return load(path)
            logger.warning("checkpoint %s is damaged: going back to the one before it", path)
        return None

    def paths(self) -> list[Path]:
        """Return the states, oldest first."""
        return sorted(self.folder.glob(STATE_PATTERN))


class ResumableRunner(EpochBasedRunner):
    """An EpochBasedRunner whose whole state is saved and restored: weights, optimizer, position, log.

    Parameters
    ----------
    keep_states : how many states are kept.
    balanced_validation : as :class:`ReproducibleRunner` has it; it adds columns to the log.
    """

    def __init__(self, *args: Any, keep_states: int = 2, balanced_validation: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.folder = WorkFolder(Path(self.work_dir or "."))
        self.processes = processes.Processes()
        self.seed = int((self.meta or {}).get("seed") or 0)
        self.balanced_validation = balanced_validation
        self.training_log = TrainingLog(self.folder, self.processes, balanced_validation)
        self.states = StateStore(self.folder.states, keep_states)
        self.stage = "train"
        self._inner_iter: int = 0
        self._unfinished: dict[str, Any] | None = None
        self._saved_at = time.monotonic()

    @property
    def bare_model(self) -> nn.Module:
        """The model without mmcv's wrapper."""
        return self.model.module if hasattr(self.model, "module") else self.model

    def save_state(self) -> None:
        """Save all that determines how training goes on; every process must call it."""
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
            **self.training_log.state(),
            "replicas": replicas,
        }
        try:
            self.states.save(self._iter, content)
        except OSError as error:  # a full disk: the states before this one are whole, and training can go on
            self.logger.warning("the state of iteration %d could not be saved: %s", self._iter, error)

    def restore_state(self) -> None:
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
                f"{self.folder.path} holds the states of another config: choose another --work-dir, or remove it"
            )
        self._load_tensors(state)
        for hook, scaler in zip(self._scaled_hooks(), state["loss_scalers"], strict=True):
            hook.loss_scaler.load_state_dict(scaler)
        self._epoch, self._iter, self._inner_iter = state["epoch"], state["iteration"], state["inner_iteration"]
        self.stage = state["stage"]
        self.training_log.load_state(state)
        if self.stage == "train" and self._inner_iter:
            self._unfinished = state
        self.logger.info("going on from epoch %d, iteration %d", self._epoch + 1, self._iter)

    def restore_unfinished_epoch(self) -> None:
        """Load the tensors again, after the hooks have acted on the start of an epoch that is past its start already.

        EMAHook exchanges the weights there.
        """
        if self._unfinished:
            self._load_tensors(self._unfinished)
            self._unfinished = None

    def _load_tensors(self, state: dict[str, Any]) -> None:
        self.bare_model.load_state_dict(state["model"], strict=True)
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

    def save_weights(self, path: Path, epoch: int) -> None:
        """Save the weights of *epoch* as a checkpoint that stock mmcls loads; only the first process does."""
        if self.rank:
            return
        meta = {"epoch": epoch, "iter": self._iter, "CLASSES": list((self.meta or {}).get("CLASSES") or ())}
        weights = weights_to_cpu(get_state_dict(self.model))
        for key in [key for key in weights if key.startswith("ema_")]:
            del weights[key]  # where weights are averaged, the average has the plain names now, and these are the rest
        try:
            save(path, {"meta": meta, "state_dict": weights})
        except OSError as error:
            self.fail(f"{path.name} could not be saved: {describe_os_error(error)}")

    def fail(self, message: str) -> NoReturn:
        """End training with status 1; outcome.json says why it cannot go on."""
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.logger.error(message)
        Outcome(Ending.FAILED, message).write(self.folder.outcome)
        raise SystemExit(1)
