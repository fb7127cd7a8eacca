"""Labels that may be wrong, by the probabilities of a model that was not trained on these images.

Northcutt, Jiang & Chuang (2021), Confident Learning: Estimating Uncertainty in Dataset Labels, J. Artif. Intell. Res.
70. The threshold of a class is the mean probability that its own images have. An image belongs to the most probable
class whose threshold it reaches; where that is not its label, it is off the diagonal of the confident joint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from scripts.lib.metrics.metrics import row_blocks

#: Two classes of FEWEST images or more each that are told apart (`told_apart`) less well than this may be one.
FEWEST, AS_ONE = 20, 0.6


@dataclass(frozen=True)
class Judgement:
    """What confident learning says of each image.

    Attributes
    ----------
    suggested : int64, (images,): the class that it belongs to; -1 where it reaches the threshold of none.
    margin : float64, (images,): the probability of its label less that of the most probable other class, -1 to 1.
    """

    suggested: np.ndarray
    margin: np.ndarray

    def is_off_diagonal(self, labels: np.ndarray) -> np.ndarray:
        """Return which images belong to another class than their label, bool (images,)."""
        return (self.suggested >= 0) & (self.suggested != labels)

    def suspects(self, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Return the images off the diagonal of which another class is more probable, int64, the most striking first.

        Those come first whose label has the least probability, the paper's self-confidence.

        Parameters
        ----------
        labels, probabilities : what was judged.
        """
        rows = np.flatnonzero(self.is_off_diagonal(labels) & (self.margin < 0))
        return rows[np.argsort(probabilities[rows, labels[rows]], kind="stable")]


@dataclass(frozen=True)
class MixedPair:
    """Two classes, and the suspects among the images of each that may be of the other.

    ``share``: of the images of both classes, 0 to 1.
    """

    first: int
    second: int
    there: int
    back: int
    share: float


def judge(probabilities: np.ndarray, labels: np.ndarray) -> Judgement:
    """Judge the labels.

    Parameters
    ----------
    probabilities : float64, (images, classes).
    labels : int, (images,).
    """
    each = np.arange(len(labels))
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=probabilities[each, labels], minlength=classes)
    # Of a class without images nothing is known.
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    suggested, margin = np.zeros(len(labels), np.int64), np.zeros(len(labels))
    for block in row_blocks(probabilities):
        of_block, block_labels = probabilities[block], labels[block]
        reached = np.where(of_block >= thresholds, of_block, -1.0)
        suggested[block] = np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)
        of_label = (np.arange(len(of_block)), block_labels)
        others = of_block.copy()
        others[of_label] = -1.0
        margin[block] = of_block[of_label] - others.max(axis=1)
    return Judgement(suggested, margin)


def mixed_pairs(labels: np.ndarray, suspects: np.ndarray, suggested: np.ndarray, fewest: int = 3) -> list[MixedPair]:
    """Return the pairs of classes with *fewest* suspects or more between them, those with the largest share first.

    Parameters
    ----------
    labels : int, (images,), of all images.
    suspects : rows of *labels*; *suggested*: the class that each of them may be of.
    """
    classes = int(max(labels.max(), suggested.max(initial=0))) + 1
    sizes = np.bincount(labels, minlength=classes)
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels[suspects], suggested), 1)
    pairs = []
    for first, second in np.argwhere(np.triu(counts + counts.T, 1) >= fewest).tolist():
        there, back = int(counts[first, second]), int(counts[second, first])
        pairs.append(MixedPair(first, second, there, back, (there + back) / int(sizes[first] + sizes[second])))
    return sorted(pairs, key=lambda pair: (-pair.share, pair.first, pair.second))


def told_apart(labels: np.ndarray, probabilities: np.ndarray, first: int, second: int) -> float:
    """Return how well the probabilities tell two classes apart: the area under the ROC curve, 0 to 1.

    That is how often the ratio of both probabilities is larger for an image of the first class than for one of the
    second. It is 0.5 where nothing tells the classes apart.

    Parameters
    ----------
    labels : int, (images,); *probabilities*: float64, (images, classes).
    """
    rows = np.isin(labels, (first, second))
    both = np.log(np.maximum(probabilities[rows][:, [first, second]], np.finfo(float).tiny))
    return float(roc_auc_score(labels[rows] == first, both[:, 0] - both[:, 1]))


def are_one(labels: np.ndarray, probabilities: np.ndarray, first: int, second: int) -> bool:
    """Tell whether the probabilities cannot tell two classes apart; no, where one has too few images to know."""
    sizes = [int((labels == label).sum()) for label in (first, second)]
    return min(sizes) >= FEWEST and told_apart(labels, probabilities, first, second) < AS_ONE
