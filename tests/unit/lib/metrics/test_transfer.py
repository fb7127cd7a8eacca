"""Other images beside the run's own: the difference of two accuracies, the mix of classes, and what lies far away."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.lib.metrics import transfer
from scripts.lib.runs.predictions import Predictions


def predictions(counts: list[tuple[int, int]]) -> Predictions:
    """Return predictions with so many images of each class, of which so many are right."""
    labels = np.repeat(np.arange(len(counts)), [images for images, _ in counts])
    right = np.concatenate([np.arange(images) < correct for images, correct in counts])
    predicted = np.where(right, labels, (labels + 1) % len(counts))
    probabilities = np.eye(len(counts))[predicted]
    names = [chr(ord("a") + label) for label in range(len(counts))]
    return Predictions([f"{number}.jpg" for number in range(len(labels))], labels, predicted, probabilities, names)


@pytest.mark.parametrize(
    ("other", "reference", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, 873-890, table II, method 10. Of its rows with 1 to 3 right of few
    # images ours differ: the end of Wilson's interval is corrected there (see wilson_interval).
    [((56, 70), (48, 80), 0.0524, 0.3339), ((0, 10), (0, 20), -0.1611, 0.2775), ((10, 10), (0, 20), 0.6791, 1.0),
     ((5, 56), (0, 29), -0.0381, 0.1926)],
)  # fmt: skip
def test_the_interval_is_the_published_one(
    other: tuple[int, int], reference: tuple[int, int], low: float, high: float
) -> None:
    sets = [predictions([(images, right), (0, 0)]) for right, images in (other, reference)]
    compared = transfer.compare(*sets)
    assert compared.difference == pytest.approx(other[0] / other[1] - reference[0] / reference[1])
    assert compared.interval == pytest.approx((low, high), abs=6e-5)


def test_another_mix_of_classes_is_told_from_a_worse_model() -> None:
    reference = predictions([(90, 81), (10, 5)])
    other = predictions([(10, 9), (90, 45)])
    compared = transfer.compare(other, reference)
    assert (compared.accuracy, compared.reference) == (0.54, 0.86)
    assert compared.same_mix == pytest.approx(0.86), "of each class as many are right as before"


def test_a_class_without_images_leaves_the_mix_open() -> None:
    assert transfer.same_mix(predictions([(10, 9), (0, 0)]), predictions([(5, 5), (5, 5)])) is None
    assert transfer.same_mix(predictions([(10, 9), (0, 0)]), predictions([(5, 5), (0, 0)])) == pytest.approx(0.9)


def test_images_like_the_run_s_own_are_near_and_others_are_far(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    reference, like = (rng.normal(2, 1, size=(2000, 8)).astype(np.float32) for _ in range(2))
    share = transfer.far_share(like, reference)
    assert share is not None and 0.03 < share < 0.08
    assert transfer.far_share(-like, reference) == 1.0
    assert transfer.far_share(9 * like, reference) == pytest.approx(share, abs=1e-3), "directions count, not lengths"
    monkeypatch.setattr(transfer, "BLOCK_NUMBERS", 7)
    assert transfer.far_share(like, reference) == share, "blocks do not change it"
    assert transfer.far_share(like, reference[:19]) is None


def test_the_nearest_is_the_one_that_a_plain_loop_finds() -> None:
    rng = np.random.default_rng(1)
    features, reference = (rng.normal(size=(size, 5)).astype(np.float32) for size in (30, 40))
    plain = [min(((row - other) ** 2).sum() for other in reference) for row in features]
    np.testing.assert_allclose(transfer.nearest(features, reference), plain, rtol=1e-5)
    alone = [min(((row - other) ** 2).sum() for other in np.delete(reference, n, 0)) for n, row in enumerate(reference)]
    np.testing.assert_allclose(transfer.nearest(reference, reference, is_same=True), alone, rtol=1e-5)
