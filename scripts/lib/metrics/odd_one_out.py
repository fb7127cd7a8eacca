"""Images unlike all others of their data set, by the features of a pretrained backbone.

An image is judged by the distance to the k-th nearest of the others (Ramaswamy et al., "Efficient algorithms for mining
outliers from large data sets", 2000), so that up to k images that belong together and nowhere else are found. The
logarithms of these distances have about a normal distribution; what lies beyond its upper fence (Tukey, "Exploratory
Data Analysis", 1977) is odd. Where pictures of all kinds are collected, hardly anything does.
"""

from __future__ import annotations

import numpy as np

from scripts.lib.data.spectra import chunks, draw, normalised

#: Which of the nearest counts; and with how many images each is compared at most, drawn by their number alone.
NEIGHBOUR, ASKED = 10, 8192
#: Beyond the upper quartile of the logarithms by this many interquartile ranges.
FENCE = 1.5
#: Fewer images than these say nothing about a collection.
FEWEST = 50


def strangeness(features: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return how far each image is from its NEIGHBOUR-th nearest: 1 - cosine, 2 where it has none, (images,).

    Parameters
    ----------
    features : float (images, features).
    units : (images,), int; images of one unit (copies, known groups) are not compared.
    """
    vectors = normalised(features.astype(np.float32))
    asked = draw("odd one out", len(vectors), ASKED)
    distances = np.zeros(len(vectors))
    for chunk in chunks(np.arange(len(vectors))):
        to_asked = 1 - vectors[chunk] @ vectors[asked].T
        to_asked[units[chunk, None] == units[asked]] = 2
        distances[chunk] = np.partition(to_asked, NEIGHBOUR - 1, axis=1)[:, NEIGHBOUR - 1]
    return distances


def odd_ones_out(features: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return the positions of the images that are unlike all others, the oddest first; arguments: see `strangeness`."""
    if len(features) < FEWEST:
        return np.zeros(0, np.intp)
    distances = strangeness(features, units)
    logarithms = np.log(np.maximum(distances, 1e-6))
    quartiles = np.quantile(logarithms, [0.25, 0.75])
    beyond = logarithms > quartiles[1] + FENCE * (quartiles[1] - quartiles[0])
    return np.array(sorted(np.flatnonzero(beyond), key=lambda index: (-distances[index], index)), np.intp)
