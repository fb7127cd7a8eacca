"""A row of the bench: a training loop of timm's own parts, as its documentation shows, with its script's defaults."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import torch
from torch import nn

common.import_torchvision()
import timm  # noqa: E402
from timm.data import create_dataset, create_loader, resolve_data_config  # noqa: E402
from timm.loss import LabelSmoothingCrossEntropy  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.scheduler import create_scheduler_v2  # noqa: E402

#: Defaults of timm's train.py: SGD with momentum, 0.1 for a batch of 256, scaled linearly; but its warm-up, five epochs
#: of three hundred, would be all of these five.
OPTIMIZER = {"opt": "sgd", "momentum": 0.9, "weight_decay": 2e-5}
LEARNING_RATE, OF_BATCH = 0.1, 256
WARMUP_EPOCHS = 1
SMOOTHING = 0.1
#: --channels-last of train.py: not its default, but without it timm would be slower than it can be on a CPU.
MEMORY_FORMAT = torch.channels_last


def build(job: SimpleNamespace, pretrained: bool = True) -> nn.Module:
    """Return the job's model for its classes, with the bench's pretrained weights, on its device."""
    model = timm.create_model(job.timm_name, pretrained=False, num_classes=job.classes)
    if pretrained:
        reference = torch.load(job.reference, weights_only=True)
        common.take_weights(model, reference)
        model.eval()
        common.check_features(lambda x: model.forward_head(model.forward_features(x), pre_logits=True), reference)
    return model.to(job.device, memory_format=MEMORY_FORMAT)


def make_loader(job: SimpleNamespace, model: nn.Module, split: str) -> Any:
    """Return timm's loader of a split; batches are normalised float32 (batch, 3, size, size)."""
    config = resolve_data_config({"input_size": (3, job.size, job.size)}, model=model)
    training = split == "train"
    classes = str(Path(job.folder) / "classes.txt")
    dataset = create_dataset("", root=job.folder, split=split, is_training=training, class_map=classes)
    options = {name: config[name] for name in ("input_size", "mean", "std", "crop_pct")}
    options |= {"batch_size": job.batch_size, "num_workers": job.workers, "device": torch.device(job.device)}
    interpolation = "random" if training else config["interpolation"]
    return create_loader(dataset, is_training=training, interpolation=interpolation, **options)


def accuracy(model: nn.Module, loader: Any) -> float:
    """Return top-1, 0 to 1."""
    model.eval()
    right = count = 0
    with torch.no_grad():
        for images, labels in loader:
            right += (model(images.to(memory_format=MEMORY_FORMAT)).argmax(1) == labels).sum().item()
            count += len(labels)
    return right / count


def steps(job: SimpleNamespace, model: nn.Module, loader: Any, epochs: int) -> Iterator[tuple[int, float]]:
    """Train; yield (epoch, images/s of it) after each."""
    rate = LEARNING_RATE * job.batch_size / OF_BATCH
    optimizer = create_optimizer_v2(model, lr=rate, **OPTIMIZER)
    length = {"num_epochs": epochs, "updates_per_epoch": len(loader), "warmup_epochs": min(WARMUP_EPOCHS, epochs - 1)}
    scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", step_on_epochs=False, **length)
    loss_function = LabelSmoothingCrossEntropy(SMOOTHING)
    # --amp of train.py: on a GPU nobody would go without it, and recipe fast does not.
    amp = job.device == "cuda"
    scaler = torch.amp.GradScaler(job.device, enabled=amp)
    updates = 0
    for epoch in range(epochs):
        model.train()
        started, count = time.time(), 0
        for images, labels in loader:
            optimizer.zero_grad()
            with torch.autocast(job.device, torch.float16, enabled=amp):
                loss = loss_function(model(images.to(memory_format=MEMORY_FORMAT)), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            updates += 1
            scheduler.step_update(num_updates=updates)
            count += len(labels)
        yield epoch, count / (time.time() - started)
        scheduler.step(epoch + 1)


def train(job: SimpleNamespace) -> dict[str, Any]:
    """Train for the job's epochs, with validation after each."""
    model = build(job)
    loader, val = make_loader(job, model, "train"), make_loader(job, model, "val")
    record = common.Record(job)
    record.begin()
    for epoch, rate in steps(job, model, loader, job.epochs):
        record.rates.append(rate)
        record.add(f"epoch {epoch + 1}", accuracy(model, val), model.state_dict())
    return record.result()


def test(job: SimpleNamespace) -> dict[str, Any]:
    """Read the accuracy of the job's weights on test."""
    model = build(job, pretrained=False)
    model.load_state_dict(torch.load(job.weights, weights_only=True))
    return {"accuracy": accuracy(model, make_loader(job, model, "test"))}


def throughput(job: SimpleNamespace) -> dict[str, Any]:
    """Train for the job's epochs without validation, for the images/s of each."""
    model = build(job)
    return {"images_per_second": [rate for _, rate in steps(job, model, make_loader(job, model, "train"), job.epochs)]}


if __name__ == "__main__":
    common.run({"train": train, "test": test, "throughput": throughput})
