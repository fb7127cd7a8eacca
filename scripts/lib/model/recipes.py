"""The numbers of both recipes, each with its reason: what the settings do not say. Measured: docs/fast.md."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tutorial:
    """The published tutorial's values (README, "Where the numbers come from")."""

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 0.005  # SGD, for MobileNetV2 and a batch of 32; it is not 0.045 / 8
    workers: int = 2  # in config.py, for training by hand: train_model sets them by the machine


@dataclass(frozen=True)
class Fast:
    """The fast recipe: a head fitted to frozen features, then fine-tuning."""

    epochs: int = 8  # at most: see patience
    batch_size: int = 32  # per GPU; the learning rate follows it
    learning_rate: float = 5e-4  # AdamW, for a batch of 32; SGD at any rate that gets somewhere loses the start
    gentle_learning_rate: float = 5e-5  # usual for families normalised by layers, not by batches; not measured here
    weight_decay: float = 0.05  # usual with AdamW
    warmup_epochs: float = 1.0  # the first steps after a fitted head must be small
    warmup_ratio: float = 0.01  # of the learning rate, at the first step
    averaged_epochs: float = 1.0  # the average of the weights is over about so many epochs, back from now
    most_momentum: float = 0.1  # share of the newest weights in it, at most: of few steps it must leave its start
    patience: int = 4  # epochs without a better accuracy or loss on val: a late gain may be missed

    image_size: int = 160  # pixels a side, half the work of 224; where neither the user nor the family says otherwise
    kept: float = 1.0  # of the shorter side, by the centre crop; ImageNet's 224 of 256 throws a quarter away
    least_crop: float = 0.5  # of the area of an image: gentler than ImageNet's 8 %, whose crops pretraining has seen
    flip_probability: float = 0.5
    label_smoothing: float = 0.1  # as most modern recipes

    # The fitted head. Weights of the squared norm that are tried, over features of a mean variance of 1, until the loss
    # on val rises. With a few hundred images 1 was chosen (elpv, 280), with 1,839 the one after it. 10 is chosen where
    # the features say next to nothing about the classes, and each fit starts from the solution before it: without 10
    # all heads have other bits.
    penalties: tuple[float, ...] = (10.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    max_iterations: int = 100  # of L-BFGS for one penalty; few fits use as many
    # The largest element of the gradient at which a fit has converged; the losses then differ in the fourth digit, and
    # a tenth of it takes twice the evaluations.
    tolerance: float = 5e-4


TUTORIAL = Tutorial()
FAST = Fast()
