"""A row of the bench: fastai's fine_tune with its documented defaults, transforms as in its vision tutorial."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import torch
from torch import nn

common.import_torchvision()
from fastai.callback.core import Callback  # noqa: E402
from fastai.callback.fp16 import to_fp16  # noqa: E402, F401  (a method of Learner from here on)
from fastai.callback.schedule import fine_tune  # noqa: E402, F401  (a method of Learner from here on)
from fastai.data.transforms import get_image_files  # noqa: E402
from fastai.learner import Learner  # noqa: E402
from fastai.metrics import accuracy  # noqa: E402
from fastai.vision.augment import Resize, aug_transforms  # noqa: E402
from fastai.vision.core import imagenet_stats  # noqa: E402
from fastai.vision.data import ImageDataLoaders, Normalize  # noqa: E402
from fastai.vision.learner import vision_learner  # noqa: E402
from torchvision import models  # noqa: E402

#: The tutorial resizes to 460 pixels first, then augments to 224.
TUTORIAL_RESIZE = 460 / 224


def learner(job: SimpleNamespace) -> Learner:
    """Return a learner of torchvision's model of the job, with the bench's pretrained weights."""
    # 0 workers would be fastai's own choice in notebooks; the bench gives every row the same.
    options = {"bs": job.batch_size, "num_workers": job.workers, "device": torch.device(job.device)}
    options["item_tfms"] = Resize(round(job.size * TUTORIAL_RESIZE))
    options["batch_tfms"] = [*aug_transforms(size=job.size), Normalize.from_stats(*imagenet_stats)]
    data = ImageDataLoaders.from_folder(Path(job.folder), train="train", valid="val", **options)

    def architecture(pretrained: bool) -> nn.Module:
        model = getattr(models, job.architecture)()
        reference = torch.load(job.reference, weights_only=True)
        common.take_weights(model, reference)
        # A pooling layer after the features: it is where fastai cuts a model to put its own head on.
        layers = [model.features] if hasattr(model, "features") else [*model.children()][:-2]
        whole = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1)).eval()
        common.check_features(lambda x: whole(x).flatten(1), reference)
        return whole.train()

    learn = vision_learner(data, architecture, metrics=accuracy, path=Path(job.weights_folder))
    return learn.to_fp16() if job.device == "cuda" else learn


class Clock(Callback):
    """Note each epoch and its accuracy on val."""

    order = 60  # after Recorder, which has the accuracy

    def __init__(self, record: common.Record) -> None:
        self.record = record

    def before_train(self) -> None:
        self.started, self.count = time.time(), 0

    def after_batch(self) -> None:
        if self.training:
            self.count += len(self.xb[0])

    def after_train(self) -> None:
        self.record.rates.append(self.count / (time.time() - self.started))

    def after_epoch(self) -> None:
        number = len(self.record.checkpoints) + 1
        self.record.add(f"epoch {number}", float(self.learn.recorder.values[-1][-1]), self.learn.model.state_dict())


def train(job: SimpleNamespace) -> dict[str, Any]:
    """Fine-tune: one epoch of the head, then the job's epochs of all."""
    learn = learner(job)
    record = common.Record(job)
    with learn.no_bar():
        record.begin()
        learn.fine_tune(job.epochs, cbs=Clock(record))
    # The head's own epoch does not train the model: it would count as faster than fastai is.
    return record.result() | {"images_per_second": record.rates[1:] or record.rates}


def test(job: SimpleNamespace) -> dict[str, Any]:
    """Read the accuracy of the job's weights on test."""
    learn = learner(job)
    learn.model.load_state_dict(torch.load(job.weights, weights_only=True))
    files = get_image_files(Path(job.folder) / "test").sorted()
    with learn.no_bar():
        _, value = learn.validate(dl=learn.dls.test_dl(files, with_labels=True))
    return {"accuracy": float(value)}


if __name__ == "__main__":
    common.run({"train": train, "test": test})
