"""Tuning the last stages: which they are, that nothing else changes, that it helps, and the same bits each time."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmcv import Config
from torch import nn

from scripts.lib.model import model_zoo, tail_tuning
from scripts.lib.model.tail_tuning import (
    SHARE,
    Options,
    Score,
    Tail,
    find_tail,
    noted_input,
    scores_of,
    shortened,
    tune,
)
from scripts.train.warm_start import absorbed, build_pretrained

torch.set_num_threads(1)  # two threads that wait for each other on a busy machine are ten times slower

SMALL = {
    "type": "ImageClassifier",
    "backbone": {"type": "MobileNetV2", "widen_factor": 0.25},
    "neck": {"type": "GlobalAveragePooling"},
    "head": {"type": "LinearClsHead", "num_classes": 3, "in_channels": 1280, "loss": {"type": "CrossEntropyLoss"}},
}
OPTIONS = Options(rate=1e-3, weight_decay=0.05, smoothing=0.1, seed=0, fused=False)


def small() -> nn.Module:
    """A network of random weights that sees: its statistics are those of noise."""
    model = build_pretrained(Config({"model": SMALL, "seed": 0}), {}, "cpu")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    model.train()
    with torch.no_grad():
        model.extract_feat(noise(64, 32))
    return model.eval()


def noise(images: int, side: int = 64) -> torch.Tensor:
    return torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(images))


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("mobilenet-v2_8xb32_in1k", "backbone.conv2"),
        ("resnet18_8xb32_in1k", "backbone.layer4.1"),
        ("resnet50_8xb32_in1k", "backbone.layer4.2"),
        ("mobilenet-v3-small_8xb32_in1k", "backbone.layer12"),
        ("efficientnet-b0_8xb32_in1k", "backbone.layers.6.activate"),
        ("densenet121_4xb256_in1k", "backbone.transitions.3"),
        ("swin-tiny_16xb64_in1k", None),  # its last step is a view of tokens, no module's output
        ("deit-tiny_pt-4xb256_in1k", None),  # its head gets the class token alone
    ],
)
def test_the_last_stages_of_the_zoo(name: str, last: str | None) -> None:
    config = Config.fromfile(str(model_zoo.config_path(name)))
    model = build_pretrained(Config({"model": config.model, "seed": 0}), {}, "cpu")
    images = noise(2, 224)
    tail = find_tail(model, images)
    if last is None:
        assert tail is None
        return
    assert tail is not None and 0 < tail.share <= SHARE
    assert {module: key for key, module in model.named_modules()}[tail.modules[-1]] == last
    activations: list[torch.Tensor] = []
    with torch.no_grad(), noted_input(tail, activations):
        expected = scores_of(model, images)
    assert activations[0].numel() * 4 == 2 * tail.image_bytes
    with torch.no_grad(), shortened(model, tail):
        torch.testing.assert_close(scores_of(model, activations[0]), expected, rtol=1e-3, atol=1e-5)


def test_what_an_in_place_module_changes_is_its_own() -> None:
    """A chain that skips the activation would give other scores; that of the outer modules does not."""
    tail = find_tail(model := small(), noise(2), share=1.0)
    assert tail is not None and tail.share > 0.9
    names = {module: key for key, module in model.named_modules()}
    assert "backbone.conv2" in {names[module] for module in tail.modules}
    assert not any(name.endswith("conv2.conv") for name in (names[module] for module in tail.modules))


def test_a_head_that_wants_more_than_the_last_map_has_no_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    whole = model.forward

    def forward(img: torch.Tensor, **options: Any) -> torch.Tensor:
        bright: torch.Tensor = whole(img=img, **options) + img.mean()
        return bright

    monkeypatch.setattr(model, "forward", forward)
    assert find_tail(model, noise(2)) is None


def planted(images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of three classes, each with more of its own colour."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (images,), generator=generator)
    data = torch.randn(images, 3, 32, 32, generator=generator)
    data[torch.arange(images), labels] += 2
    return data, labels


def stored(model: nn.Module, tail: Tail, images: torch.Tensor) -> torch.Tensor:
    activations: list[torch.Tensor] = []
    with torch.no_grad(), noted_input(tail, activations):
        scores_of(model, images)
    return activations[0]


@pytest.fixture(scope="module")
def tuned() -> tuple[nn.Module, nn.Module, Tail, Score, Score]:
    """A model before and after, the tail of the second, and the scores on val."""
    return tune_small(OPTIONS)


def tune_small(options: Options, **weights: Any) -> tuple[nn.Module, nn.Module, Tail, Score, Score]:
    (images, labels), (val, val_labels) = planted(600, 0), planted(90, 1)
    model = small()
    before = copy.deepcopy(model)
    tail = find_tail(model, images[:2], share=0.6)
    assert tail is not None
    activations = [stored(model, tail, one) for one in (images, val)]
    start, best = tune(model, tail, activations, [labels, val_labels], weights.get("of", [None, None]), options)
    return before, model, tail, start, best


def test_it_learns_and_the_model_on_images_is_what_was_scored(
    tuned: tuple[nn.Module, nn.Module, Tail, Score, Score],
) -> None:
    _, model, _, start, best = tuned
    assert start.accuracy < 0.6 and best.accuracy > start.accuracy + 0.2
    images, labels = planted(90, 1)
    with torch.no_grad():
        assert (scores_of(model, images).argmax(1) == labels).double().mean().item() == best.accuracy


def test_the_stages_before_and_all_statistics_stay(tuned: tuple[nn.Module, nn.Module, Tail, Score, Score]) -> None:
    before, model, tail, _, _ = tuned
    trained = {id(parameter) for part in (*tail.modules, model.head) for parameter in part.parameters()}
    assert len(trained) < len(list(model.parameters()))
    for (name, parameter), old in zip(model.named_parameters(), before.parameters(), strict=True):
        assert (id(parameter) in trained) or torch.equal(parameter, old), name
    for (name, value), old in zip(model.named_buffers(), before.buffers(), strict=True):
        assert torch.equal(value, old), name
    assert type(model.backbone).__name__ == "MobileNetV2", "the whole backbone is back in its place"


def test_the_same_bits_again_and_others_with_another_seed(
    tuned: tuple[nn.Module, nn.Module, Tail, Score, Score],
) -> None:
    first = tuned[1].state_dict()
    again = tune_small(OPTIONS)[1].state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = tune_small(replace(OPTIONS, seed=1))[1].state_dict()
    assert not torch.equal(first["head.fc.weight"], other["head.fc.weight"])


def test_what_is_kept_is_the_average_of_the_weights_of_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_tuning, "EPOCHS", 1)
    before = small()
    expected = {name: parameter.detach().clone() for name, parameter in before.head.named_parameters()}
    steps = -(-600 // tail_tuning.SMALL_BATCH)
    newest = 1 / (tail_tuning.AVERAGED_EPOCHS * steps)
    step = tail_tuning.AdamW.step

    def step_and_average(optimizer: tail_tuning.AdamW, rate: float) -> None:
        step(optimizer, rate)
        values = optimizer.parameters[-len(expected) :]  # the head's are the last
        for (name, average), value in zip(expected.items(), values, strict=True):
            expected[name] = average + newest * (value.detach() - average)

    monkeypatch.setattr(tail_tuning.AdamW, "step", step_and_average)
    _, model, _, start, best = tune_small(OPTIONS)
    assert best != start
    for name, parameter in model.head.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name])
    images, labels = planted(90, 1)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(scores_of(model, images), labels).item()
    assert loss == pytest.approx(best.loss, rel=1e-4), "what was judged is what is kept"


@pytest.mark.parametrize("fused", [False, True])
def test_its_adamw_is_torchs_bit_by_bit(fused: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(5, 7, generator=generator), torch.randn(9, generator=generator), torch.randn(3)]
    ours, theirs = ([nn.Parameter(value.clone()) for value in values] for _ in range(2))
    adamw = tail_tuning.AdamW(ours, 0.05, fused)
    reference = torch.optim.AdamW(
        theirs, lr=1.0, betas=tail_tuning.BETAS, eps=tail_tuning.EPSILON, weight_decay=0.05, fused=fused, foreach=False
    )
    for rate in (1e-3, 2e-3, 5e-4):
        for one, other in zip(ours[:2], theirs[:2], strict=True):  # the last one has no gradient, and stays
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        reference.param_groups[0]["lr"] = rate
        adamw.step(rate)
        reference.step()
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert torch.equal(ours[2], values[2]) and not torch.equal(ours[0], values[0])


def test_tuning_does_without_torchs_compiler() -> None:
    """It takes most of a second to import."""
    program = """
import sys
sys.path[:0] = sys.argv[1:]
from test_tail_tuning import OPTIONS, tune_small
tune_small(OPTIONS)
sys.exit("torch._dynamo" in sys.modules)
"""
    tests = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", program, str(tests), str(tests.parents[1])], check=False)
    assert done.returncode == 0


def test_many_images_are_tuned_in_larger_batches_at_a_larger_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = tail_tuning.AdamW.step
    monkeypatch.setattr(tail_tuning.AdamW, "step", lambda own, rate: (rates.append(rate), step(own, rate)))
    tune_small(OPTIONS)
    assert len(rates) == 2 * 38 and max(rates) == OPTIONS.rate
    rates.clear()
    monkeypatch.setattr(tail_tuning, "SMALL_SET", 599)
    tune_small(OPTIONS)
    assert len(rates) == 2 * 10 and max(rates) == 2 * OPTIONS.rate


def test_what_gets_worse_is_not_kept(tuned: tuple[nn.Module, nn.Module, Tail, Score, Score]) -> None:
    (images, labels), (val, val_labels) = planted(600, 0), planted(90, 1)
    model = copy.deepcopy(tuned[1])
    tail = find_tail(model, images[:2], share=0.6)
    assert tail is not None
    before = copy.deepcopy(model.state_dict())
    activations = [stored(model, tail, one) for one in (images, val)]
    start, best = tune(model, tail, activations, [labels, val_labels], [None, None], replace(OPTIONS, rate=1e3))
    assert best == start and start.accuracy == tuned[4].accuracy
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_it_can_learn_from_another_head_and_is_measured_by_its_own(
    tuned: tuple[nn.Module, nn.Module, Tail, Score, Score], monkeypatch: pytest.MonkeyPatch
) -> None:
    (images, labels), (val, val_labels) = planted(600, 0), planted(90, 1)
    model = copy.deepcopy(tuned[1])
    tail = find_tail(model, images[:2], share=0.6)
    assert tail is not None
    activations = [stored(model, tail, one) for one in (images, val)]
    head = model.head.fc
    own = copy.deepcopy(model.state_dict())
    other = {head.weight: torch.full_like(head.weight, 100.0), head.bias: torch.tensor([0.0, 0.0, 1e4])}
    seen = []
    scored = scores_of

    def noted(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and not seen:
            seen.append([value.detach().clone() for value in (head.weight, head.bias)])
        return scored(model, images)

    monkeypatch.setattr(tail_tuning, "scores_of", noted)
    # From a head that says the third class of anything nothing is learnt in two epochs: the own one is kept.
    start, best = tune(model, tail, activations, [labels, val_labels], [None, None], OPTIONS, other)
    assert all(torch.equal(*pair) for pair in zip(seen[0], other.values(), strict=True))
    assert best == start and start.accuracy == tuned[4].accuracy
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_images_count_by_their_weights() -> None:
    """Where only the images of one class count, on val too, that class is all that is said."""
    weights = [3.0 * (labels == 2).double() for _, labels in (planted(600, 0), planted(90, 1))]
    _, model, _, _, best = tune_small(OPTIONS, of=weights)
    images, labels = planted(90, 1)
    with torch.no_grad():
        said = scores_of(model, images).argmax(1)
    assert (said == 2).all() and best.accuracy == pytest.approx((3.0 * (labels == 2)).mean().item())


def test_a_folded_model_is_tuned_in_what_is_saved_of_it() -> None:
    """The biases of absorbed normalisations are trained where the convolution computes them."""
    model = small()
    images, labels = planted(64, 0)
    model = absorbed(model, images[:4])
    tail = find_tail(model, images[:2], share=0.6)
    assert tail is not None
    old = model.backbone.conv2.bn.bias.detach().clone()
    activations = stored(model, tail, images)
    tune(model, tail, [activations, activations], [labels, labels], [None, None], OPTIONS)
    assert not torch.equal(model.backbone.conv2.bn.bias, old)
    with torch.no_grad():
        said = scores_of(model, images)
        plain = small()
        plain.load_state_dict(model.state_dict())
        assert torch.allclose(scores_of(plain, images), said, rtol=1e-3, atol=1e-4)
