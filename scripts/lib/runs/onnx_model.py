"""A model.onnx at work, without torch and mmcls: its metadata, images prepared as these say, probabilities."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from scripts.lib.base import ranges
from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.data.decoding import Undecodable, decode_image
from scripts.lib.data.image_formats import HEAD, in_words
from scripts.lib.data.reading import FULL_DEPTH, WHITE, Reading
from scripts.lib.data.squares import make_square
from scripts.lib.runs.certainty import Certainty

#: Names of what goes in and of what comes out.
INPUT, OUTPUT, DISTANCE = "images", "probabilities", "distance"
#: Of the metadata: the thresholds of certainty.json.
CERTAINTY = "certainty"
#: Orders of the channels of an image; GREY, as pillow names it, is one channel.
RGB, BGR, GREY = "RGB", "BGR", "L"
#: Where the normalisation is done: by whoever calls the model, or by the model, which then takes bytes.
OUTSIDE, INSIDE = "outside", "inside"
#: Resampling filters by the library that resizes and by mmcls's names of them.
_PILLOW = {
    name: Image.Resampling[name.upper()] for name in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
}
_OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


@dataclass(frozen=True)
class Preprocessing:
    """What becomes of an image before the model gets it. The metadata of a model.onnx hold it.

    Attributes
    ----------
    steps : resizes, centre crops and bars, in their order; see :func:`resize`, :func:`crop` and :func:`pad`.
    mean, std : of each channel in the order of ``channel_order``, 0 to 255.
    channel_order : RGB, BGR or GREY.
    normalisation : OUTSIDE (the model takes float32 of shape (n, channels, height, width), normalised) or INSIDE (it
        takes bytes of shape (n, height, width, channels)).
    bit_depth : bits that images of 16 bits a channel use.
    background : what shows through where an image is transparent: red, green, blue, 0 to 255.
    """

    steps: list[dict[str, Any]]
    mean: list[float]
    std: list[float]
    channel_order: str
    normalisation: str
    bit_depth: int = FULL_DEPTH
    background: Sequence[int] = WHITE

    @property
    def reading(self) -> Reading:
        """How files become pixels."""
        return Reading.of_arguments({"bit_depth": self.bit_depth, "background": self.background})

    def metadata(self) -> dict[str, str]:
        """Return it as the texts that go into a model."""
        numbers = {
            name: json.dumps(getattr(self, name)) for name in ("steps", "mean", "std", "bit_depth", "background")
        }
        return {**numbers, "channel_order": self.channel_order, "normalisation": self.normalisation}

    @staticmethod
    def of_metadata(metadata: Mapping[str, str]) -> Preprocessing:
        """Read what :meth:`metadata` returned; KeyError or ValueError where it is not there, or is something else."""
        order, normalisation = metadata["channel_order"], metadata["normalisation"]
        if order not in (RGB, BGR, GREY) or normalisation not in (OUTSIDE, INSIDE):
            raise ValueError(f"channel_order {order!r}, normalisation {normalisation!r}")
        steps, mean, std = (json.loads(metadata[key]) for key in ("steps", "mean", "std"))
        reading = Reading.of_arguments(
            {name: json.loads(metadata[name]) for name in ("bit_depth", "background") if name in metadata}
        )
        return Preprocessing(steps, mean, std, order, normalisation, reading.bit_depth, reading.background)

    def prepare(self, content: bytes) -> np.ndarray:
        """Return the image in the bytes of a file as the model wants it, without the axis of the batch.

        Raises
        ------
        OSError : it cannot be decoded.
        """
        try:
            image = decode_image(content, self.channel_order == GREY, reading=self.reading)
        except Undecodable as error:
            raise OSError(str(error)) from error
        for step in self.steps:
            image = STEPS[step["step"]](image, step)
        if image.ndim == 2:
            image = image[..., None]
        if self.channel_order == RGB:
            image = image[..., ::-1]
        if self.normalisation == INSIDE:
            return np.ascontiguousarray(image)
        normalised = (image - np.array(self.mean)) * (1 / np.array(self.std))
        return np.ascontiguousarray(normalised.transpose(2, 0, 1), dtype=np.float32)


def resize(image: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
    """Resize *image*, bytes of shape (height, width) or (height, width, 3), as mmcls's ``Resize`` does.

    Parameters
    ----------
    step : ``shorter_side``, or ``height`` and ``width``, in pixels; ``library`` (pillow, which averages over all pixels
        of a larger image, or opencv, which does not) and its ``interpolation``.
    """
    height, width = image.shape[:2]
    if "shorter_side" in step:
        shorter = step["shorter_side"]
        size = (width * shorter // min(height, width), height * shorter // min(height, width))
    else:
        size = step["width"], step["height"]
    if step["library"] == "pillow":
        return np.asarray(Image.fromarray(image).resize(size, _PILLOW[step["interpolation"]]))
    return cv2.resize(image, size, interpolation=_OPENCV[step["interpolation"]])


def crop(image: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
    """Return the middle of *image*, as mmcls's ``CenterCrop`` does; a side that is too short stays as it is.

    Parameters
    ----------
    step : ``height`` and ``width`` in pixels, or ``share``: the side of a square, as a share of the shorter side.
    """
    height, width = image.shape[:2]
    if "share" in step:
        wanted_height = wanted_width = step["share"] * min(height, width)
    else:
        wanted_height, wanted_width = step["height"], step["width"]
    top = max(0, round((height - wanted_height) / 2))
    left = max(0, round((width - wanted_width) / 2))
    return image[top : top + int(wanted_height), left : left + int(wanted_width)]


def pad(image: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
    """Return all of *image* as a square, with bars beside it.

    Parameters
    ----------
    step : ``pixels`` of its sides, Pillow's ``interpolation``, ``background``: red, green, blue, 0 to 255.
    """
    return make_square(image, step["pixels"], "pad", step["background"], step["interpolation"])


STEPS = {"resize": resize, "crop": crop, "pad": pad}


@dataclass(frozen=True)
class Batch:
    """What one batch of images, given by their files, became.

    Attributes
    ----------
    indices : positions of the files that are images.
    probabilities : float32 array of shape (len(indices), classes).
    failures : position and reason of each of the others.
    distances : from the training images, float32 of shape (len(indices),); None of a model that does not know them.
    """

    indices: list[int]
    probabilities: np.ndarray
    failures: list[tuple[int, str]]
    distances: np.ndarray | None = None


class OnnxModel:
    """A model.onnx that export_model wrote.

    Attributes
    ----------
    classes : the class names in the order of the columns of the probabilities.
    preprocessing : what becomes of an image before.
    input_shape : of one image, as the model wants it.
    certainty : when it can be relied on; None of a model that does not say.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        """Open *path*; 0 *threads* are as many as this process has cores.

        Raises
        ------
        UserError : there is no such file, it is no ONNX model, or it has not our metadata.
        """
        if not path.is_file():
            raise UserError(f"{path}: no such file; give the model.onnx of a finished run")
        self.session = open_session(path, threads)
        self._outputs = [output.name for output in self.session.get_outputs()]
        metadata = self.session.get_modelmeta().custom_metadata_map
        try:
            self.classes: list[str] = json.loads(metadata["class_names"])
            self.preprocessing = Preprocessing.of_metadata(metadata)
            self.input_shape: list[int] = self.session.get_inputs()[0].shape[1:]
            text = metadata.get(CERTAINTY)
            self.certainty = None if text is None else Certainty.of_json(json.loads(text))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(
                f"{path}: does not say how to prepare images ({one_line(error)}); give a model.onnx that mimflow wrote"
            ) from error

    def prepare(self, content: bytes) -> np.ndarray:
        """Return the image in the bytes of a file, of ``input_shape``; OSError where that cannot be made of it."""
        image = self.preprocessing.prepare(content)
        if list(image.shape) != self.input_shape:
            raise OSError(f"becomes an array of shape {image.shape}, and the model takes {tuple(self.input_shape)}")
        return image

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return float32 probabilities of shape (n, classes) for n prepared images."""
        return self.session.run([OUTPUT], {INPUT: images})[0]

    def answer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return :meth:`predict`'s probabilities, and the distances from the training images, (n,), where it has them.

        See :func:`scripts.lib.runs.certainty.distances`.
        """
        outputs = [OUTPUT, *(name for name in self._outputs if name == DISTANCE)]
        probabilities, *distances = self.session.run(outputs, {INPUT: images})
        return probabilities, distances[0] if distances else None


def open_session(path: Path, threads: int = 0) -> Any:
    """Return an onnxruntime.InferenceSession on the CPU.

    Raises
    ------
    UserError : onnxruntime cannot use the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Left to itself, onnxruntime takes the cores of the machine, and this process may have fewer.
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options.intra_op_num_threads = threads or available
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Between two calls its threads would wait in a loop, which takes the cores from whoever prepares images.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no base class of their own
        what = in_words(path.read_bytes()[:HEAD]) if path.is_file() else ""
        reason = f"it is {what}" if what else one_line(error).replace(f" from {path}", "")[:300]
        remedy = "give the model.onnx of a finished run, whole"
        raise UserError(f"{path}: onnxruntime cannot open it: {reason}", remedy) from error


def predict_files(
    model: OnnxModel,
    paths: Sequence[Path],
    batch_size: int,
    readers: int = 2,
    check: Callable[[Path], None] | None = None,
) -> Iterator[Batch]:
    """Yield what *model* says about image files, in their order, batch by batch.

    Parameters
    ----------
    readers : threads that read and prepare images; what they do leaves Python's lock alone.
    check : raises OSError for a file that is not to be used.
    """

    def read(path: Path) -> np.ndarray:
        if check:
            check(path)
        return model.prepare(ranges.read_bytes(path))

    def finish(batch: list[tuple[int, Future[np.ndarray]]]) -> Batch:
        images: dict[int, np.ndarray] = {}
        failures = []
        for index, future in batch:
            try:
                images[index] = future.result()
            except OSError as error:
                failures.append((index, one_line(error.strerror or error)))
        if not images:
            return Batch([], np.empty((0, 0), np.float32), failures)
        rows, distances = model.answer(np.stack(list(images.values())))
        return Batch(list(images), rows, failures, distances)

    waiting: deque[list[tuple[int, Future[np.ndarray]]]] = deque()
    with ThreadPoolExecutor(max(1, readers)) as pool:
        for start in range(0, len(paths), batch_size):
            indices = range(start, min(start + batch_size, len(paths)))
            waiting.append([(index, pool.submit(read, paths[index])) for index in indices])
            if len(waiting) > 1:  # one is read while the one before is predicted: never more in memory
                yield finish(waiting.popleft())
        while waiting:
            yield finish(waiting.popleft())
