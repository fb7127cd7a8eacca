"""Lay thumbnails on each other: find the map, affine or with perspective, by which one becomes most like another.

Lucas and Kanade's method in its inverse compositional form (Baker and Matthews 2004,
doi:10.1023/B:VISI.0000011205.11775.fd), for many pairs at a time.
"""

from __future__ import annotations

import cv2
import numpy as np

from scripts.lib.data.image_checks import GREY_EDGE
from scripts.lib.data.spectra import Spectra

#: Size of the thumbnails, and how often the map is improved there: coarsely, finely.
STEPS = ((GREY_EDGE // 2, 8), (GREY_EDGE, 4))
#: Largest change of a map at a time: of its linear part, and of its shift in pixels.
LARGEST_BEND, LARGEST_SHIFT = 0.15, 2.0
#: Keeps the equations solvable where a thumbnail has edges in one direction only.
DAMPING = 0.01
#: From the first to the second distance from the centre, in sizes of the thumbnail, pixels count less and less: a
#: picture that was rotated a little often has black corners.
RIM = (0.4, 0.6)
KERNEL = np.array([1, 4, 6, 4, 1], np.float32) / 16


def look_up(pictures: np.ndarray, maps: np.ndarray, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Return what pictures look like through maps, interpolated; what lies outside is like the edge.

    Parameters
    ----------
    pictures : float32 (n, size, size).
    maps : float32 (n, 2, 3), from the pixels (x, y, 1) of the result to pixels (x, y) of the pictures; (n, 3, 3) with
        perspective.
    """
    seen = np.empty_like(pictures)
    warp = cv2.warpAffine if maps.shape[1] == 2 else cv2.warpPerspective
    how = interpolation | cv2.WARP_INVERSE_MAP
    for index, (picture, values) in enumerate(zip(pictures, maps, strict=True)):
        warp(picture, values, picture.shape, seen[index], how, cv2.BORDER_REPLICATE)
    return seen


def rescaled(maps: np.ndarray, before: int, after: int) -> np.ndarray:
    """Return maps between thumbnails of the size *before* as maps between those of the size *after*."""
    linear = maps[:, :, :2]
    half = linear.sum(2) / 2 - 0.5  # centres of pixels lie between the whole numbers
    shift = (maps[:, :, 2] - half) * (after / before) + half
    return np.concatenate([linear, shift[:, :, None]], axis=2)


def align(moved: np.ndarray, fixed: np.ndarray, maps: np.ndarray, finely: bool) -> np.ndarray:
    """Return maps (n, 2, 3) through which the thumbnails *moved* look more like *fixed* than through *maps*.

    Parameters
    ----------
    moved, fixed : uint8 or float32 (n, GREY_EDGE, GREY_EDGE).
    finely : at their full size, where the maps are nearly right already; otherwise at half of it.
    """
    size, times = STEPS[finely]
    improved = _improve(
        _blurred(_shrunk(moved, size)), _blurred(_shrunk(fixed, size)), rescaled(maps, GREY_EDGE, size), times
    )
    return rescaled(improved, size, GREY_EDGE)


def approach(
    first: np.ndarray, second: np.ndarray, maps: np.ndarray, spectra: Spectra, times: int, finely: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far pictures are apart as *spectra* sees them, and the maps through which they are nearest.

    As :func:`align`, but what is made smaller is the distance of the vectors: what all pictures have in common, such
    as the frame of a solar cell, does not pull a map towards it.

    Parameters
    ----------
    first, second : float32 (n, GREY_EDGE, GREY_EDGE).
    maps : float32 (n, 2, 3), with which it starts.
    times : how often the maps are improved.
    finely : with perspective, and interpolated such that fine detail is not lost. The affine maps nearest to these,
        at the centre, are returned.
    """
    wanted = spectra.vectors(spectra.transform(second))
    steepest = _steepest(second)
    if finely:  # x' = x / (1 + g x + h y) is x - g x ** 2 - h x y for small g and h
        y, x = _grid(GREY_EDGE)
        outwards = steepest[:, 0] + steepest[:, 4]
        steepest = np.concatenate([steepest, np.stack([-x * outwards, -y * outwards], 1)], 1)
    solver = _solver(spectra.slopes(second, steepest))
    maps = with_last_row(maps)
    distance, nearest = np.full(len(first), np.inf, np.float32), maps.copy()
    for step in range(times + 1):
        seen = look_up(first, maps, cv2.INTER_LANCZOS4) if finely else look_up(first, maps[:, :2])
        error = spectra.vectors(spectra.transform(seen)) - wanted
        gap = (error * error).sum(1) / 2  # vectors of length 1: one less their cosine
        better = gap < distance
        distance[better], nearest[better] = gap[better], maps[better]
        if step < times:
            maps = _stepped(maps, (solver @ error[:, :, None])[:, :, 0], GREY_EDGE)
    return distance, _affine(nearest)


def largest_difference(first: np.ndarray, second: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Return the largest local difference of pictures that lie on each other, in standard deviations of either.

    Parameters
    ----------
    first, second, maps : see :func:`look_up`; *second* is what *first* looks like through *maps*. Both are blurred
        first; the rim does not count.
    """
    if not len(first):
        return np.zeros(0, np.float32)
    gap = np.abs(_blurred((_standard(look_up(first, maps)) - _standard(second)).reshape(second.shape)))
    reach = len(KERNEL) // 2
    return gap[:, reach:-reach, reach:-reach].max((1, 2), initial=0)


def _shrunk(pictures: np.ndarray, size: int) -> np.ndarray:
    factor = pictures.shape[1] // size
    return pictures.astype(np.float32).reshape(-1, size, factor, size, factor).mean((2, 4))


def _blurred(pictures: np.ndarray) -> np.ndarray:
    reach = len(KERNEL) // 2
    for axis in (1, 2):
        length = pictures.shape[axis]
        padded = np.pad(pictures, [(reach, reach) if index == axis else (0, 0) for index in range(3)], "edge")
        pictures = np.zeros_like(pictures)
        for start, weight in enumerate(KERNEL):
            pictures += weight * padded.take(range(start, start + length), axis)
    return pictures


def _standard(pictures: np.ndarray) -> np.ndarray:
    """Return pictures as rows of mean 0 and deviation 1."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(1, keepdims=True)
    return rows / np.maximum(np.sqrt((rows * rows).mean(1, keepdims=True)), 1e-3)


def _improve(moved: np.ndarray, fixed: np.ndarray, maps: np.ndarray, times: int) -> np.ndarray:
    """Return better maps after some steps of Gauss and Newton's method."""
    size = fixed.shape[1]
    wanted = _standard(fixed)
    steepest = _steepest(wanted.reshape(fixed.shape))
    weights = np.clip((RIM[1] - np.hypot(*_grid(size))) / (RIM[1] - RIM[0]), 0, 1)
    solver = _solver(steepest, weights)
    maps = with_last_row(maps)
    for _ in range(times):
        error = _standard(look_up(moved, maps[:, :2])) - wanted
        maps = _stepped(maps, (solver @ error[:, :, None])[:, :, 0], size)
    return maps[:, :2]


def with_last_row(maps: np.ndarray) -> np.ndarray:
    """Return affine maps (n, 2, 3) as maps (n, 3, 3)."""
    return np.concatenate([maps, np.broadcast_to(np.array([0, 0, 1], np.float32), (len(maps), 1, 3))], axis=1)


def _affine(maps: np.ndarray) -> np.ndarray:
    """Return the affine maps (n, 2, 3) that are nearest to maps (n, 3, 3) at the centre of thumbnails."""
    centre = np.full(2, (GREY_EDGE - 1) / 2, np.float32)
    middle = maps @ np.append(centre, np.float32(1))
    maps, middle = maps / middle[:, 2:, None], middle / middle[:, 2:]
    linear = maps[:, :2, :2] - middle[:, :2, None] * maps[:, 2:, :2]
    return np.concatenate([linear, middle[:, :2, None] - linear @ centre[:, None]], axis=2)


def _grid(size: int) -> np.ndarray:
    """Return y and x of the pixels from the centre, in sizes of the picture, (2, size ** 2)."""
    return (np.indices((size, size), np.float32).reshape(2, -1) - np.float32((size - 1) / 2)) / np.float32(size)


def _steepest(pictures: np.ndarray) -> np.ndarray:
    """Return how pictures change with each of the six numbers of a map, (n, 6, pixels)."""
    y, x = _grid(pictures.shape[1])
    down, across = (slope.reshape(len(pictures), -1) for slope in np.gradient(pictures, axis=(1, 2)))
    return np.stack([across * x, across * y, across, down * x, down * y, down], 1)


def _solver(slopes: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """Return the matrices (n, numbers, values) that make changes of maps of errors, by *slopes* of the same shape."""
    weighted = slopes * weights
    normal = weighted @ slopes.swapaxes(1, 2)
    count = slopes.shape[1]
    normal += (DAMPING / count * np.trace(normal, axis1=1, axis2=2))[:, None, None] * np.eye(count, dtype=np.float32)
    return np.linalg.inv(normal) @ weighted


def _stepped(maps: np.ndarray, change: np.ndarray, size: int) -> np.ndarray:
    """Return the maps (n, 3, 3) after a *change* of them, (n, 6) or with perspective (n, 8), that is not too large."""
    affine = change[:, :6].reshape(-1, 2, 3)
    linear = np.clip(affine[:, :, :2] / size, -LARGEST_BEND, LARGEST_BEND)
    shift = np.clip(affine[:, :, 2], -LARGEST_SHIFT, LARGEST_SHIFT)
    tilt = np.clip(change[:, 6:] / size, -LARGEST_BEND, LARGEST_BEND)
    step = np.tile(np.eye(3, dtype=np.float32), (len(maps), 1, 1))  # in sizes of the picture, from its centre
    step[:, :2, :2] += linear
    step[:, :2, 2] = shift / size
    step[:, 2, : tilt.shape[1]] = tilt
    middle = (size - 1) / 2
    to_pixels = np.array([[size, 0, middle], [0, size, middle], [0, 0, 1]])
    maps = maps @ to_pixels @ np.linalg.inv(step) @ np.linalg.inv(to_pixels)
    return (maps / maps[:, 2:, 2:]).astype(np.float32)
