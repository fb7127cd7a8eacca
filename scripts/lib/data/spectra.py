"""Describe pictures by their lowest frequencies, freed of what all pictures of a collection have in common.

The cosine transform of a thumbnail is whitened by the mean and the covariance of the collection's (principal
components, each divided by its deviation). So a pattern that all have, such as the frame of a solar cell, says
nothing, and what sets one picture apart counts most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from scripts.lib.data.image_checks import GREY_EDGE

#: Pictures from which the mean and the covariance are estimated.
SAMPLE = 8192
#: So many pictures count as if they were of the spectrum that photographs have, so that few give no wild covariance.
PRIOR = 50
#: Pictures that are worked on at a time.
CHUNK = 1 << 11


@dataclass(frozen=True)
class Window:
    """A part of a picture, as shares of its height and width, and how it is turned (see :data:`TURNS`).

    ``degrees``: by which the part is rotated about its centre.
    """

    top: float = 0.0
    bottom: float = 1.0
    left: float = 0.0
    right: float = 1.0
    turn: str = ""
    degrees: float = 0.0

    @property
    def matrix(self) -> np.ndarray:
        """Return float32 (2, 3): from pixels of the window, seen as a thumbnail, to those of the whole thumbnail."""
        centre = (GREY_EDGE - 1) / 2
        turn = np.diag([-1.0 if "x" in self.turn else 1.0, -1.0 if "y" in self.turn else 1.0])
        turn = np.array([[0.0, 1.0], [1.0, 0.0]]) @ turn if "t" in self.turn else turn
        size = np.array([self.right - self.left, self.bottom - self.top])
        middle = np.array([self.left + self.right, self.top + self.bottom]) / 2 * GREY_EDGE - 0.5
        cosine, sine = np.cos(np.deg2rad(self.degrees)), np.sin(np.deg2rad(self.degrees))
        linear = size[:, None] * (np.array([[cosine, -sine], [sine, cosine]]) @ turn)
        return np.column_stack([linear, middle - linear @ [centre, centre]]).astype(np.float32)


#: Ways to turn a picture: transposed (t), then mirrored left to right (x), then upside down (y); in words.
TURNS = {
    "x": "one is mirrored",
    "y": "one is mirrored and rotated by 180 degrees",
    "xy": "one is rotated by 180 degrees",
    "t": "one is mirrored and rotated by 90 degrees",
    "tx": "one is rotated by 90 degrees",
    "ty": "one is rotated by 90 degrees",
    "txy": "one is mirrored and rotated by 90 degrees",
}
WHOLE = Window()


def seeded(purpose: str, count: int) -> np.random.Generator:
    """Return a generator of random numbers that is a function of the purpose and a number."""
    digest = hashlib.blake2b(f"{purpose}\0{count}".encode(), digest_size=8).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def draw(purpose: str, count: int, most: int) -> np.ndarray:
    """Return at most *most* of *count* indices, ascending, a function of the arguments."""
    return np.sort(seeded(purpose, count).permutation(count)[:most])


def chunks(indices: np.ndarray, size: int = CHUNK) -> Iterator[np.ndarray]:
    """Yield the indices, *size* at a time."""
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _waves(low: float, high: float, frequencies: int) -> np.ndarray:
    """Return the cosines (frequencies, GREY_EDGE) over a part of an axis, each pixel by its share in that part."""
    low, high = low * GREY_EDGE, high * GREY_EDGE
    first, last = np.maximum(np.arange(GREY_EDGE), low), np.minimum(np.arange(GREY_EDGE) + 1, high)
    phase = ((first + last) / 2 - low) / (high - low)
    waves = np.cos(np.pi * np.arange(frequencies)[:, None] * phase) * np.clip(last - first, 0, None) / (high - low)
    waves[1:] *= 2**0.5
    return waves.astype(np.float32)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors (..., n) with the length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def _slope_of_normalised(vectors: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Return how *vectors* (n, size) change once they have the length 1; they change by *slopes* (n, m, size)."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1), 1e-6)[:, None, None]
    unit = (vectors / lengths[:, 0])[:, :, None]
    return (slopes - (slopes @ unit) * unit.swapaxes(1, 2)) / lengths


class Spectra:
    """The lowest frequencies of pictures as whitened vectors of length 1; their product says how alike pictures are.

    Parameters
    ----------
    grey : uint8 (pictures, GREY_EDGE ** 2) of the collection.
    indices : the pictures of it that count.
    frequencies : those whose sum along both axes is smaller.
    size : of a vector.
    floor : share of the whole variance that is added to each component's, so that noise is not blown up.
    """

    def __init__(self, grey: np.ndarray, indices: np.ndarray, frequencies: int, size: int, floor: float) -> None:
        self.frequencies, self.size = frequencies, size
        down, across = np.indices((frequencies, frequencies))
        self.kept = (down + across < frequencies) & (down + across > 0)
        self.mean, self.whitening = np.zeros(self.kept.sum(), np.float32), np.eye(self.kept.sum(), dtype=np.float32)
        sample = indices[draw("spectra", len(indices), SAMPLE)]
        values = [self.transform(grey[chunk].reshape(-1, GREY_EDGE, GREY_EDGE)) for chunk in chunks(sample)]
        raw = np.concatenate([normalised(value[:, self.kept]) for value in values]).astype(np.float64)
        prior = 1 / (down**2 + across**2)[self.kept]  # power falls with the square of the frequency
        weight = len(raw) + PRIOR
        mean = raw.sum(0) / weight
        covariance = ((raw - mean).T @ (raw - mean) + PRIOR * np.diag(prior / prior.sum())) / weight
        variances, axes = np.linalg.eigh(covariance)
        scale = 1 / np.sqrt(variances[::-1][:size] + floor * variances.sum())
        self.mean = mean.astype(np.float32)
        self.whitening = (axes[:, ::-1][:, :size] * scale).astype(np.float32)

    def transform(self, thumbnails: np.ndarray, window: Window = WHOLE) -> np.ndarray:
        """Return the cosine transform (pictures, frequencies, frequencies) of a window of thumbnails.

        A window must not be rotated by degrees: see the pictures through its matrix instead.
        """
        vertical = _waves(window.top, window.bottom, self.frequencies)
        horizontal = _waves(window.left, window.right, self.frequencies)
        values = (thumbnails.astype(np.float32).reshape(-1, GREY_EDGE) @ horizontal.T).reshape(
            -1, GREY_EDGE, self.frequencies
        )
        return self.turned(vertical @ values, window.turn)

    def turned(self, transform: np.ndarray, turn: str) -> np.ndarray:
        """Return the transform of the pictures as they look when they are turned."""
        signs = ((-1.0) ** np.arange(self.frequencies)).astype(np.float32)
        transform = transform.swapaxes(1, 2) if "t" in turn else transform
        transform = transform * signs if "x" in turn else transform
        return transform * signs[:, None] if "y" in turn else transform

    def slopes(self, pictures: np.ndarray, changes: np.ndarray) -> np.ndarray:
        """Return how the vectors of pictures change where the pictures do: float32 (pictures, n, size).

        Parameters
        ----------
        pictures : (pictures, GREY_EDGE, GREY_EDGE).
        changes : float32 (pictures, n, GREY_EDGE ** 2).
        """
        value = self.transform(pictures)[:, self.kept]
        slope = self.transform(changes)[:, self.kept].reshape(*changes.shape[:2], -1)
        slope = _slope_of_normalised(value, slope)
        return _slope_of_normalised((normalised(value) - self.mean) @ self.whitening, slope @ self.whitening)

    def vectors(self, transform: np.ndarray) -> np.ndarray:
        """Return float32 (pictures, size) for cosine transforms."""
        return normalised((normalised(transform[:, self.kept]) - self.mean) @ self.whitening)
