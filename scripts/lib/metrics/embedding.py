"""Features of images in two dimensions, by t-SNE, and how far neighbours stay neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

#: More points than this hide each other, and take long to place.
MOST_POINTS = 2000
#: Neighbours that an image is to have on the map, roughly (van der Maaten & Hinton 2008 advise 5 to 50).
PERPLEXITY = 30.0
#: Neighbours that the trustworthiness counts.
NEIGHBOURS = 12


def choose(labels: np.ndarray, seed: int, most: int) -> np.ndarray:
    """Return the indices, ascending, of at most *most* images: all of small classes, equally many of large ones.

    Parameters
    ----------
    labels : shape (n,).
    seed : draws the images of a class.
    """
    count = np.bincount(labels)
    each = quota(count, most)
    chosen = [
        np.random.default_rng((seed, label)).permutation(np.flatnonzero(labels == label))[:each]
        for label in np.flatnonzero(count).tolist()
    ]
    return np.sort(np.concatenate(chosen))[:most]


def quota(count: np.ndarray, most: int) -> int:
    """Return the largest number of images of each class with which there are no more than *most*, at least 1.

    >>> quota(np.array([5, 100, 100]), 65)
    30
    """
    each = int(count.max())
    while each > 1 and np.minimum(count, each).sum() > most:
        each -= 1
    return each


def embed(features: np.ndarray, seed: int) -> np.ndarray:
    """Place images on a plane by t-SNE: float64 of shape (images, 2).

    van der Maaten & Hinton (2008), Visualizing Data using t-SNE. It starts from the principal components, which keeps
    the large-scale order (Kobak & Berens 2019, The art of using t-SNE for single-cell transcriptomics).

    Parameters
    ----------
    features : shape (images, dims).
    """
    from sklearn.manifold import TSNE

    n = len(features)
    wide = np.pad(features.astype(np.float64), ((0, 0), (0, max(0, 2 - features.shape[1]))))
    if (wide == wide[0]).all():  # nothing tells them apart, and t-SNE would divide by zero
        return np.zeros((n, 2))
    perplexity = min(PERPLEXITY, (n - 1) / 3)
    return np.asarray(TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(wide), np.float64)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let scikit-learn compute on one thread inside the block: with several, the order of sums depends on the load."""
    import sklearn.manifold  # noqa: F401  what is loaded later would keep its threads
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


def trustworthiness_of(features: np.ndarray, embedded: np.ndarray) -> float | None:
    """Return how far neighbours on the map are neighbours among the features, 0 to 1; None of too few images.

    Venna & Kaski (2001), Neighborhood preservation in nonlinear projection methods.
    """
    from sklearn.manifold import trustworthiness

    neighbours = min(NEIGHBOURS, (len(features) - 1) // 2)
    return float(trustworthiness(features, embedded, n_neighbors=neighbours)) if neighbours else None
