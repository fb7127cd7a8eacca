"""Tune the last stages of a network on stored activations: a large part of what fine-tuning gains, in seconds.

The stages before them stay as pretraining left them, so what they make of an image without augmentation is computed
once. The last stages are small, since their feature maps are: of MobileNetV2 14 % of the multiplications, and the
backward pass ends where they begin.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from scripts.mmcls_plugins.randomness import derive_seed

logger = logging.getLogger(__name__)

#: The part of a network's multiplications that its last stages may have.
SHARE = 0.15
#: Bytes of activations that are kept in memory; larger data sets have many steps in an epoch of fine-tuning anyway.
MOST_BYTES = 1 << 30
EPOCHS = 2
#: Small sets take many small steps: two epochs of them are worth three of batches of 64. Larger sets have steps enough.
SMALL_SET, SMALL_BATCH, BATCH_SIZE = 4096, 16, 64
#: Of the learning rate of fine-tuning all of it, for SMALL_BATCH: no augmentation that would make gradients noisy.
RATE_FACTOR = 4.0
#: Of AdamW. The second moment forgets sooner than usual: there are some hundred steps in all.
BETAS, EPSILON = (0.9, 0.99), 1e-8
#: The part of the steps in which the learning rate grows.
WARMUP = 0.1
#: What is evaluated and kept is an average of the weights over about so many epochs, back from now.
AVERAGED_EPOCHS = 0.5
#: Images at a time where nothing is learnt.
EVALUATED_AT_ONCE = 256


@dataclass(frozen=True)
class Tail:
    """The last stages of a backbone.

    Attributes
    ----------
    modules : each gets what the one before it gives, and nothing else.
    share : their part of the network's multiplications.
    in_tuple : whether the backbone gives its result in a tuple.
    image_bytes : of what it gets, for one image.
    """

    modules: list[nn.Module]
    share: float
    in_tuple: bool
    image_bytes: int = 0


@dataclass(frozen=True)
class Options:
    """How it is tuned.

    Attributes
    ----------
    rate : the highest learning rate, for SMALL_BATCH; it grows with the root of the batch size, as suits Adam.
    smoothing : the share of the target that all classes divide among them.
    fused : whether AdamW does all weights in one go.
    """

    rate: float
    weight_decay: float
    smoothing: float
    seed: int
    fused: bool

    @classmethod
    def of(cls, config: Any) -> Options:
        """Return those that go with the fine-tuning of a run's *config*."""
        batch = config.data.samples_per_gpu * config.runner.get("gpus", 1)
        return cls(
            rate=RATE_FACTOR * config.optimizer.lr * SMALL_BATCH / batch,
            weight_decay=config.optimizer.get("weight_decay", 0.0),
            smoothing=config.model.head.loss.get("label_smooth_val", 0.0),
            seed=config.seed,
            fused=config.optimizer.get("fused", False),
        )


@dataclass(frozen=True)
class Score:
    """What a model is worth on val; the greater one is the better: by accuracy, then by loss."""

    accuracy: float
    loss: float

    def better_than(self, other: Score) -> bool:
        return (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


class _Shortened(nn.Module):
    """A backbone that takes activations for images."""

    def __init__(self, tail: Tail) -> None:
        super().__init__()
        self.stages = nn.Sequential(*tail.modules)
        self.in_tuple = tail.in_tuple

    def forward(self, activations: torch.Tensor) -> Any:
        features = self.stages(activations)
        return (features,) if self.in_tuple else features


def scores_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the class scores before the softmax, (images, classes)."""
    scores: torch.Tensor = model(img=images, return_loss=False, softmax=False, post_process=False)
    return scores


@torch.no_grad()
def find_tail(model: nn.Module, images: torch.Tensor, share: float = SHARE) -> Tail | None:
    """Return the longest chain of modules at the end of the backbone that has at most *share* of the work.

    None where the network does not end in such a chain (a head that gets part of the last output, as a class token),
    and where the chain alone does not give the scores that the network gives.

    Parameters
    ----------
    model : one of mmcls's classifiers, in eval mode.
    images : a few, as the model takes them; they are passed to see what feeds what.
    """
    made: dict[int, list[tuple[nn.Module, torch.Tensor]]] = {}  # what gave a tensor, and from what; inner modules first
    work: Counter[nn.Module] = Counter()
    calls: Counter[nn.Module] = Counter()
    last: list[Any] = []
    kept: list[Any] = []  # no tensor may get the id of another

    def note(module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        kept.append((given, result))
        calls[module] += 1
        if isinstance(module, nn.Conv2d | nn.Linear):
            work[module] += result.numel() * module.weight[0].numel()
        if len(given) != 1 or not all(isinstance(one, torch.Tensor) for one in (given[0], result)):
            return
        if given[0] is result:  # changed in place: what gave it until now, gave something else
            made.pop(id(result), None)
        else:
            made.setdefault(id(result), []).append((module, given[0]))

    backbone: nn.Module = model.backbone  # type: ignore[assignment]
    handles = [module.register_forward_hook(note) for module in model.modules() if module is not backbone]
    handles.append(backbone.register_forward_hook(lambda _module, _given, result: last.append(result)))
    try:
        expected = scores_of(model, images)
    finally:
        for handle in handles:
            handle.remove()
    whole = {module: sum(work[part] for part in module.modules()) for module in model.modules()}

    @cache
    def longest(end: int) -> tuple[int, tuple[nn.Module, ...]]:
        """Return the chain to a tensor that has the most of the work, of equal ones that in the most steps."""
        found: tuple[int, tuple[nn.Module, ...]] = (0, ())
        for module, given in made.get(end, ()):
            if calls[module] == 1:
                before = longest(id(given))
                found = max(found, (before[0] + whole[module], (*before[1], module)), key=lambda c: (c[0], len(c[1])))
        return found

    in_tuple = isinstance(last[0], tuple)
    chain = list(longest(id(last[0][-1] if in_tuple else last[0]))[1])
    while chain and (
        sum(whole[module] for module in chain) > share * work.total() or not any(True for _ in chain[0].parameters())
    ):
        del chain[0]
    if not chain:
        return None
    tail = Tail(chain, sum(whole[module] for module in chain) / work.total(), in_tuple)
    activations: list[torch.Tensor] = []
    with noted_input(tail, activations):
        scores_of(model, images)
    with shortened(model, tail):
        try:
            same = torch.allclose(scores_of(model, activations[0]), expected, rtol=1e-3, atol=1e-5)
        except Exception as error:  # whatever a neck or head does that wants more than the last feature map
            logger.debug("the last stages do not make the scores by themselves: %s", error)
            same = False
    size = activations[0].numel() * activations[0].element_size() // len(images)
    return replace(tail, image_bytes=size) if same else None


@contextmanager
def noted_input(tail: Tail, activations: list[torch.Tensor]) -> Iterator[None]:
    """Append what the tail gets to *activations* whenever the network is run, in the memory format that it has."""

    def note(_module: nn.Module, given: tuple[torch.Tensor]) -> None:
        activations.append(given[0].detach().clone())  # a later module may write into it

    handle = tail.modules[0].register_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def shortened(model: nn.Module, tail: Tail) -> Iterator[None]:
    """Let *model* take what its tail gets, in the place of images."""
    whole = model.backbone
    model.backbone = _Shortened(tail).eval()
    try:
        yield
    finally:
        model.backbone = whole


class AdamW:
    """torch.optim.AdamW's steps, bit by bit, without importing torch's compiler: 0.8 s of a tuning that takes three.

    "Decoupled weight decay regularization" (Loshchilov and Hutter, 2019).

    Parameters
    ----------
    parameters : float32; one that has no gradient is left alone.
    fused : whether all weights are done in one go.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], weight_decay: float, fused: bool) -> None:
        self.parameters, self.weight_decay, self.fused = parameters, weight_decay, fused
        self.means = [torch.zeros_like(parameter) for parameter in parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in parameters]
        self.counts = [torch.zeros((), device=parameter.device) for parameter in parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the parameters by their gradients, at a learning rate of *rate*."""
        states = zip(self.parameters, self.means, self.squares, self.counts, strict=True)
        given = [(values, values.grad, *state) for values, *state in states if values.grad is not None]
        for values, gradient, mean, square, count in given:
            count += 1
            if self.fused:
                continue
            values.mul_(1 - rate * self.weight_decay)
            mean.lerp_(gradient, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            first, second = (1 - beta ** count.item() for beta in BETAS)
            values.addcdiv_(mean, square.sqrt().div_(math.sqrt(second)).add_(EPSILON), value=-rate / first)
        if self.fused:
            parameters, gradients, means, squares, counts = (list(one) for one in zip(*given, strict=True))
            torch._fused_adamw_(
                parameters, gradients, means, squares, [], counts, lr=rate, beta1=BETAS[0], beta2=BETAS[1],
                weight_decay=self.weight_decay, eps=EPSILON, amsgrad=False, maximize=False,
            )  # fmt: skip


def tune(
    model: nn.Module,
    tail: Tail,
    activations: Sequence[torch.Tensor],
    labels: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor | None],
    options: Options,
    departure: Mapping[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[Score, Score]:
    """Train the tail and the head in place; what is kept is what was best on val, the start included.

    The learning rate grows for a tenth of the steps, then falls as a cosine. It is large enough to leave a good start,
    which the average of the weights does not.

    Parameters
    ----------
    model : in eval mode, which it keeps: statistics of normalisation stay as they are.
    activations : of train and val, as the tail gets them: (images, channels, rows, columns).
    labels : int64, (images,).
    weights : what each image counts, 1 on average; None: all the same.
    departure : values from which some parameters learn, where not from their own; these are what it is measured by.

    Returns
    -------
    tuple : on val, at the start and at the best point.
    """
    head: nn.Module = model.head  # type: ignore[assignment]
    parameters = [parameter for part in (*tail.modules, head) for parameter in part.parameters()]
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    optimizer = AdamW(trained, options.weight_decay, options.fused)
    generator = torch.Generator().manual_seed(derive_seed(options.seed, "tail"))
    batch_size = SMALL_BATCH if len(labels[0]) <= SMALL_SET else BATCH_SIZE
    rate = options.rate * math.sqrt(batch_size / SMALL_BATCH)
    steps = EPOCHS * -(-len(labels[0]) // batch_size)
    step = 0
    loss_of = partial(nn.functional.cross_entropy, reduction="none", label_smoothing=options.smoothing)
    newest = min(1.0, EPOCHS / (AVERAGED_EPOCHS * steps))  # its share in the average
    evaluate = partial(_evaluate, model, activations[1], labels[1], weights[1])
    with shortened(model, tail):
        start = best = evaluate()
        kept = [parameter.detach().clone() for parameter in trained]
        if departure:
            _copy(list(departure.values()), list(departure))
        average = [parameter.detach().clone() for parameter in trained]
        for _ in range(EPOCHS):
            order = torch.randperm(len(labels[0]), generator=generator)
            for places in order.split(batch_size):
                chosen, wanted = activations[0][places], labels[0][places].to(activations[0].device)
                losses = loss_of(scores_of(model, chosen), wanted)
                loss = losses.mean() if weights[0] is None else (losses * weights[0][places].to(losses)).mean()
                for parameter in trained:
                    parameter.grad = None
                loss.backward()
                optimizer.step(rate * _factor(step, steps))
                step += 1
                with torch.no_grad():
                    torch._foreach_lerp_(average, [parameter.detach() for parameter in trained], newest)
            with _replaced(trained, average):
                reached = evaluate()
            logger.info("last stages: val accuracy %.2f %%, val loss %.4f", 100 * reached.accuracy, reached.loss)
            if reached.better_than(best):
                best, kept = reached, [value.clone() for value in average]
    _copy(kept, trained)
    return start, best


@torch.no_grad()
def _copy(values: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


@contextmanager
def _replaced(parameters: Sequence[nn.Parameter], values: Sequence[torch.Tensor]) -> Iterator[None]:
    """Let *parameters* have other *values* inside the block."""
    own = [parameter.detach().clone() for parameter in parameters]
    _copy(values, parameters)
    try:
        yield
    finally:
        _copy(own, parameters)


def _factor(step: int, steps: int) -> float:
    growing = max(1, round(WARMUP * steps))
    if step < growing:
        return (step + 1) / growing
    return 0.5 * (1 + math.cos(math.pi * (step - growing) / max(1, steps - growing)))


@torch.no_grad()
def _evaluate(model: nn.Module, activations: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> Score:
    scores = torch.cat([scores_of(model, part) for part in activations.split(EVALUATED_AT_ONCE)]).cpu().double()
    right = (scores.argmax(1) == labels).double()
    losses = nn.functional.cross_entropy(scores, labels, reduction="none")
    if weights is not None:
        right, losses = weights * right, weights * losses
    return Score(right.mean().item(), losses.mean().item())
