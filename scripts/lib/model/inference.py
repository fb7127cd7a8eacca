"""A trained model at work: the classifier of a config with its weights, and images through its test pipeline."""

from __future__ import annotations

import ctypes
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from scripts.lib.base import ranges, tensor_file
from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.base.shared_memory import fitting_workers
from scripts.lib.data.decoding import Undecodable, decode_image
from scripts.lib.model.checkpoint_file import printable
from scripts.lib.runs import config_file
from scripts.lib.runs.certainty import distances
from scripts.lib.runs.onnx_model import Batch
from scripts.mmcls_plugins.hooks import forward_hooks

with warnings.catch_warnings():  # mmcv 1 announces on every import that mmcv 2 exists
    warnings.simplefilter("ignore")
    import mmcv
    from mmcls.models import build_classifier
    from mmcv.parallel import collate
    from mmcv.runner import load_state_dict

logger = logging.getLogger(__name__)
#: What mmcls's pipelines raise for a file that is no image (cv2 answers None, which then has no shape).
PIPELINE_ERRORS = (OSError, AttributeError, TypeError, ValueError, cv2.error)


class OrReason(Dataset):
    """A data set of mmcls whose items are (index, sample, None), or (index, None, why) for an unreadable image."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Any, str | None]:
        try:
            return index, self.dataset[index], None
        except PIPELINE_ERRORS as error:
            if isinstance(error, OSError):
                return index, None, one_line(error.strerror or error)
            info = self.dataset.data_infos[index]
            if is_decodable(Path(info["img_prefix"] or "") / info["img_info"]["filename"]):
                raise  # the image is fine: it is the pipeline that is not
            return index, None, "not an image, or a broken one"


def is_decodable(path: Path) -> bool:
    """Say whether *path* is an image that can be decoded."""
    try:
        decode_image(ranges.read_bytes(path))
    except Undecodable:
        return False
    return True


def load_config(path: Path, *, trust: bool = False) -> Any:
    """Read a run's config as plain values; it is not executed, and only values that may be are built from.

    Parameters
    ----------
    trust : accept any values; the word of the person who typed the command.

    Raises
    ------
    UserError : there is no such file, or one that is not to be trusted (:func:`config_file.read_trusted`).
    """
    if not path.is_file():
        raise UserError(f"{path}: no such config; train the run first")
    values = config_file.read_trusted(path, trust=trust)
    if not all(isinstance(values.get(name), dict) for name in ("model", "data")):
        raise UserError(f"{path}: it has no model or no data; give the config.py of a run")
    try:
        mmcv.utils.import_modules_from_strings(**values.get("custom_imports", {"imports": ["scripts.mmcls_plugins"]}))
        return mmcv.Config(values)
    except (ImportError, KeyError, TypeError) as error:
        raise UserError(f"{path}: mmcv cannot use it: {one_line(error)[:200]}", "train the run again") from error


def keep_freed_memory() -> None:
    """Tell glibc to reuse freed memory instead of handing it back to the kernel after every layer.

    Each forward pass on a CPU otherwise maps and zeroes its activations anew: 5 instead of 70 images/s were measured
    for MobileNetV2 on two virtual cores. The results are the same.
    """
    if sys.platform == "linux":
        m_trim_threshold, m_mmap_max = -1, -4  # /usr/include/malloc.h
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt:
            mallopt(m_mmap_max, 0)
            mallopt(m_trim_threshold, 2**31 - 1)


def choose_device(name: str) -> str:
    """Turn ``auto`` into ``cuda`` or ``cpu``, and refuse ``cuda`` where torch cannot use a GPU."""
    usable = torch.cuda.is_available()
    if name == "cuda" and not usable:
        raise UserError("--device cuda: torch sees no usable GPU here; see `make doctor`, or use --device cpu")
    return ("cuda" if usable else "cpu") if name == "auto" else name


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the weights and the metadata (``meta``) of a checkpoint, as data only: no code in it is run.

    Raises
    ------
    UserError : the file is missing, broken, or holds more than tensors and plain values.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; train the run first")
    try:
        content = tensor_file.read(path)
    except tensor_file.Unreadable as error:
        raise UserError(
            f"{path}: damaged, or no checkpoint of plain tensors ({printable(error)}); train the run again"
        ) from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise UserError(f"{path}: holds no weights; give the best.pth of a run")
    tensors = {str(name).removeprefix("module."): value for name, value in weights.items() if torch.is_tensor(value)}
    meta = content.get("meta")
    return tensors, meta if isinstance(meta, dict) else {}


def build_model(config: Any, weights: dict[str, torch.Tensor], device: str, threads: int = 0) -> torch.nn.Module:
    """Return the classifier of *config* with *weights*, ready to predict on *device*.

    Predictions are made in float32 even where training used half precision: they must not depend on a GPU's kernels.

    Raises
    ------
    UserError : the weights are another model's.
    """
    if threads:
        torch.set_num_threads(threads)
    if device == "cpu":
        keep_freed_memory()
    cv2.setNumThreads(0)  # the data loader's processes are the parallelism
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False  # else a GPU rounds to 10 bits, and model.onnx does not
    config.model.pretrained = None
    try:
        model = build_classifier(config.model)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"config.py: its model cannot be built: {one_line(error)[:300]}", "train the run again"
        ) from error
    # EMAHook keeps a second copy of the weights in the model; the averaged ones are under the plain names.
    averaged = {name: tensor for name, tensor in weights.items() if not name.startswith("ema_")}
    try:
        load_state_dict(model, averaged, strict=True)
    except RuntimeError as error:
        raise UserError(f"the checkpoint does not fit the config: {one_line(error)[:300]}") from error
    return model.to(device).eval()


def image_batches(
    dataset: Any, batch_size: int, workers: int, device: str
) -> Iterable[tuple[list[int], torch.Tensor | None, list[tuple[int, str]]]]:
    """Return batches of *dataset* (one of mmcls's, in test mode) in its order.

    Each is (indices, images, failures): float32 of shape (len(indices), channels, height, width), None without any;
    index and reason of each image that could not be read.
    """
    items = OrReason(dataset)
    workers = min(workers, -(-len(dataset) // batch_size))
    if workers:
        sample = items[0][1]
        size = sample["img"].numel() * sample["img"].element_size() if sample else 3 * 224 * 224 * 4
        workers = fitting_workers(workers, batch_size * size)
    return DataLoader(
        items,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=partial(_collate, batch_size=batch_size),
        pin_memory=device == "cuda",
    )


def unreadable(image: Path, reason: str) -> UserError:
    """Return the error for an image without which a step cannot go on."""
    return UserError(f"{image}: {reason}; repair it or leave it out of the data")


def iterate(model: torch.nn.Module, dataset: Any, batch_size: int, workers: int, device: str) -> Iterator[Batch]:
    """Yield the predictions for *dataset* (one of mmcls's, in test mode) in its order, batch by batch.

    mmcls's own loop is not used since it writes a carriage-return bar and stops at the first unreadable image.
    """
    for indices, images, failures in image_batches(dataset, batch_size, workers, device):
        if images is None:
            yield Batch([], np.empty((0, 0), np.float32), failures)
            continue
        with torch.no_grad():
            rows = model(return_loss=False, img=images.to(device, non_blocking=True))
        yield Batch(indices, np.stack(rows).astype(np.float32, copy=False), failures)


def iterate_with_distances(
    model: torch.nn.Module, num_classes: int, batches: Iterable[Batch], known: np.ndarray
) -> Iterator[Batch]:
    """Yield *batches* of :func:`iterate`, each with how far its images are from the *known* ones."""
    noted: list[np.ndarray] = []
    with noted_features(model, num_classes, noted):
        for batch in batches:
            features = np.concatenate(noted) if batch.indices else np.empty((0, known.shape[1]), np.float32)
            noted.clear()
            yield replace(batch, distances=distances(features, known))


@contextmanager
def noted_features(model: torch.nn.Module, num_classes: int, features: list[np.ndarray]) -> Iterator[None]:
    """Have every batch that *model* sees inside the block add to *features*: float32, (images, dims)."""
    with feature_hooks(model, num_classes, lambda tensor: features.append(tensor.detach().cpu().numpy())):
        yield


def feature_hooks(
    model: torch.nn.Module, num_classes: int, note: Callable[[torch.Tensor], None]
) -> AbstractContextManager[None]:
    """Have *note* called inside the block with the features of every batch that *model* sees: float32, (images, dims).

    They are the inputs of the linear layer that makes the logits, and where there is not exactly one such layer, the
    pooled output of the backbone. Hooks take note of them; what the model computes stays the same.
    """
    layer, backbone = classifier_layer(model, num_classes), cast(torch.nn.Module, model.backbone)
    if layer is not None:
        return forward_hooks(before=[(layer, lambda _layer, inputs: note(pooled(inputs[0])))])
    return forward_hooks(after=[(backbone, lambda _layer, _inputs, output: note(pooled(output)))])


def classifier_layer(
    model: torch.nn.Module, num_classes: int, trained: Mapping[str, torch.Tensor] | None = None
) -> torch.nn.Linear | None:
    """Return the linear layer of *num_classes* outputs that makes the logits: in the head, or if none, anywhere.

    None where there are several (a distilled DeiT has two) or none. VGG has it in its backbone.

    Parameters
    ----------
    trained : weights of training before, where the layer is to be fitted to what it gets. Then it must be in the head,
        and these must bring all other layers of the head: there is nothing to fit to what layers without training make.
    """
    modules = [getattr(model, "head", None), model if trained is None else None]
    for module in modules:
        if module is None:
            continue
        layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
        layers = [layer for layer in layers if layer.out_features == num_classes]
        if layers:
            return layers[0] if len(layers) == 1 and _is_built_on(model, layers[0], trained) else None
    return None


def _is_built_on(model: torch.nn.Module, layer: torch.nn.Linear, trained: Mapping[str, torch.Tensor] | None) -> bool:
    """Tell whether *trained* has all tensors of the head of *model* but those of *layer*."""
    if trained is None:
        return True
    layer_name = next(name for name, module in model.named_modules() if module is layer)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items() if name.startswith("head.")}
    return all(
        name.startswith(f"{layer_name}.") or (name in trained and trained[name].shape == shape)
        for name, shape in shapes.items()
    )


def pooled(output: Any) -> torch.Tensor:
    """Return a backbone's output as one vector an image: float32, (images, dims).

    Of several stages the last one counts. Its parts (maps, tokens, of a transformer also the class token) are averaged
    over their positions and put side by side.
    """
    last = output[-1] if isinstance(output, list | tuple) else output
    parts = last if isinstance(last, list | tuple) else [last]
    vectors = []
    for output_part in parts:
        if output_part is None:  # a class token that a transformer does without
            continue
        # (n, dims), (n, tokens, dims) or (n, dims, height, width)
        positions = (1,) if output_part.dim() == 3 else tuple(range(2, output_part.dim()))
        vectors.append(output_part.float().mean(positions) if positions else output_part.float())
    return torch.cat(vectors, dim=1)


def _collate(items: list[tuple[int, Any, str | None]], batch_size: int) -> tuple[list[int], Any, list[tuple[int, str]]]:
    failures = [(index, reason) for index, _, reason in items if reason is not None]
    good = [(index, sample) for index, sample, reason in items if reason is None]
    if not good:
        return [], None, failures
    images = collate([{"img": sample["img"]} for _, sample in good], samples_per_gpu=batch_size)["img"]
    return [index for index, _ in good], images, failures


def trained_on_cpu(config: Any) -> bool:
    """Say whether *config* trains on a CPU: what was asked for there is meant here too, whatever GPUs there are."""
    return (config.get("runner") or {}).get("device") == "cpu"
