"""The linear probe: how well it fits, which penalty it chooses, and the same bits each time."""

from __future__ import annotations

import pytest
import torch

from scripts.lib.base.problems import UserError
from scripts.lib.model.fast_recipe import FAST
from scripts.lib.model.linear_probe import extract, fit_probes

torch.set_num_threads(1)  # two threads that wait for each other on a busy machine are ten times slower


def clouds(per_class: int, seed: int, distance: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features and labels of three clouds of points; one feature says nothing, one is always the same."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat_interleave(per_class)
    features = torch.randn(len(labels), 8, generator=generator, dtype=torch.float64)
    features[torch.arange(len(labels)), labels] += distance
    scale = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1e-6, 0.0], dtype=torch.float64)
    return 0.01 * features * scale + 5.0, labels


def test_the_probe_separates_what_is_separable_whatever_the_unit_of_the_features() -> None:
    (train, labels), (val, val_labels) = clouds(100, 0), clouds(50, 1)
    probe = fit_probes(train, labels, val, val_labels, 3)[-1]
    logits = val @ probe.weight.T + probe.bias  # on the features as they are
    accuracy = (logits.argmax(1) == val_labels).double().mean().item()
    assert accuracy == probe.accuracy > 0.93
    assert probe.penalty in FAST.penalties
    assert torch.nn.functional.cross_entropy(logits, val_labels).item() == pytest.approx(probe.loss)


def test_a_feature_that_hardly_varies_gets_no_large_weight() -> None:
    (train, labels), (val, val_labels) = clouds(100, 0), clouds(50, 1)
    weight = fit_probes(train, labels, val, val_labels, 3)[-1].weight
    assert weight[:, 6:].abs().max() < 1e-2 * weight[:, :3].abs().max()


def test_noise_asks_for_more_regularisation_than_signal() -> None:
    def chosen(distance: float) -> float:
        (train, labels), (val, val_labels) = clouds(20, 0, distance), clouds(200, 1, distance)
        return fit_probes(train, labels, val, val_labels, 3)[-1].penalty

    assert chosen(0.0) == max(FAST.penalties) > chosen(3.0)


def test_the_penalty_falls_until_the_loss_on_val_rises() -> None:
    (train, labels), (val, val_labels) = clouds(20, 0, 2.0), clouds(200, 1, 2.0)
    probes = fit_probes(train, labels, val, val_labels, 3)
    assert [probe.penalty for probe in probes] == list(FAST.penalties[: len(probes)])
    assert 1 < len(probes) < len(FAST.penalties)
    losses = [probe.loss for probe in probes]
    assert losses == sorted(losses, reverse=True)
    norms = [probe.weight.norm().item() for probe in probes]
    assert norms == sorted(norms)


def test_the_same_features_give_the_same_bits() -> None:
    (train, labels), (val, val_labels) = clouds(100, 0), clouds(50, 1)
    first, second = (fit_probes(train.clone(), labels, val, val_labels, 3)[-1] for _ in range(2))
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)


@pytest.mark.parametrize("failure", ["an error", "nan", "skew axes"])
def test_axes_that_are_wrong_are_computed_with_more_digits(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (train, labels), (val, val_labels) = clouds(100, 0), clouds(50, 1)
    usual = fit_probes(train, labels, val, val_labels, 3)[-1]
    original = torch.linalg.eigh

    def eigh(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # LAPACK's own failure depends on processor and threads: this stands for it.
        values, axes = original(matrix)
        if matrix.dtype == torch.float64:
            return values, axes
        if failure == "an error":
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return (values, axes * float("nan")) if failure == "nan" else (values, axes + 0.1)

    monkeypatch.setattr(torch.linalg, "eigh", eigh)
    again = fit_probes(train, labels, val, val_labels, 3)[-1]
    assert again.penalty == usual.penalty and again.loss == pytest.approx(usual.loss, abs=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_no_numbers_are_refused(value: float) -> None:
    class Broken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, img: torch.Tensor, **_options: bool) -> torch.Tensor:
            return self.layer(img * value).softmax(1)

    model = Broken()
    with pytest.raises(UserError, match="the features of these weights are not finite numbers"):
        extract(model, model.layer, [torch.ones(3, 4)])
