"""Look for pictures that may be turned or cropped copies of each other: for each picture, and for it turned and
cropped in two dozen ways, the nearest picture of the collection.

An inverted file: the pictures are sorted into cells around some of them, and only the cells nearest to a query are
searched. Vectors are whole numbers, so that every sum is exact, in whatever order a library adds.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from scripts.lib.data.image_checks import GREY_EDGE
from scripts.lib.data.spectra import CHUNK, TURNS, WHOLE, Spectra, Window, chunks, draw

#: Of the vectors that are searched: frequencies along an axis, length, and the share of the variance that is noise.
FREQUENCIES, SIZE, FLOOR = 8, 32, 0.01
#: Largest whole number in a vector: 32 products of two are below 2 ** 24, up to which float32 counts.
SCALE = 127
#: Shares of a picture's height and width that crops keep, and how many windows of each lie beside each other.
CROPS = ((0.84, 3), (0.7, 3))
#: Cells that are searched for a query, and cells of a collection, times the root of its number.
PROBES, CELLS = 3, 1.5
#: Candidates are at least this alike; from SURE on all of them, below only those that stand out: the next nearest
#: picture must be at least this many times as far.
LEAST, SURE, STANDS_OUT = 0.6, 0.9, 1.12


def _windows() -> tuple[Window, ...]:
    """Return the whole, the turns and the crops. A quarter to the left is not needed: the other picture has it."""
    turns = [Window(turn=turn) for turn in TURNS if turn != "ty"]
    crops = []
    for size, count in CROPS:
        starts = [(1 - size) * index / (count - 1) for index in range(count)]
        crops += [Window(top, top + size, left, left + size) for top in starts for left in starts]
    return WHOLE, *turns, *crops


WINDOWS = _windows()


@dataclass(frozen=True)
class Candidates:
    """Pairs that may be copies: the window ``window`` (of WINDOWS) of ``first`` looks like all of ``second``."""

    first: np.ndarray
    second: np.ndarray
    window: np.ndarray


def whole_vectors(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of length 1 as vectors of whole numbers."""
    return np.rint(vectors * SCALE).astype(np.float32)


class Cells:
    """The pictures of a collection, sorted by the nearest of some of them.

    Parameters
    ----------
    vectors : float32 (pictures, size), of whole numbers.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        count = len(vectors)
        self.vectors = vectors
        self.centres = vectors[draw("cells", count, max(1, int(CELLS * count**0.5)))]
        nearest = np.concatenate([(vectors[rows] @ self.centres.T).argmax(1) for rows in chunks(np.arange(count))])
        order = np.argsort(nearest, kind="stable")
        self.members = np.split(order, np.cumsum(np.bincount(nearest, minlength=len(self.centres)))[:-1])

    def nearest(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for each query (of the picture of the same index) the nearest other picture in each cell it probes.

        Returns
        -------
        products, indices : float32 and intp (pictures, PROBES); a product of minus infinity where there is none.
        """
        probes = min(PROBES, len(self.centres))
        products = np.full((len(queries), PROBES), -np.inf, np.float32)
        indices = np.zeros((len(queries), PROBES), np.intp)
        cells = np.concatenate([self._probed(queries[rows], probes) for rows in chunks(np.arange(len(queries)))])
        for probe in range(probes):
            order = np.argsort(cells[:, probe], kind="stable")
            counts = np.bincount(cells[:, probe], minlength=len(self.centres))
            for cell, rows in enumerate(np.split(order, np.cumsum(counts)[:-1])):
                members = self.members[cell]
                if not len(rows) or not len(members):
                    continue
                for asked in chunks(rows):
                    table = queries[asked] @ self.vectors[members].T
                    at = np.searchsorted(members, asked)
                    itself = np.flatnonzero(members[np.minimum(at, len(members) - 1)] == asked)
                    table[itself, at[itself]] = -np.inf
                    best = table.argmax(1)
                    products[asked, probe] = table[np.arange(len(asked)), best]
                    indices[asked, probe] = members[best]
        return products, indices

    def _probed(self, queries: np.ndarray, probes: int) -> np.ndarray:
        table = queries @ self.centres.T
        cells = np.empty((len(queries), probes), np.intp)
        for probe in range(probes):
            cells[:, probe] = table.argmax(1)
            table[np.arange(len(queries)), cells[:, probe]] = -np.inf
        return cells


def find_candidates(grey: np.ndarray, indices: np.ndarray, threads: int) -> Candidates:
    """Return pairs among the pictures *indices* (ascending) that may be copies, each window of a pair once.

    Parameters
    ----------
    grey : uint8 (pictures, GREY_EDGE ** 2).
    threads : how many search; they find the same.
    """
    empty = np.zeros(0, np.intp)
    if len(indices) < 2:
        return Candidates(empty, empty, empty)
    spectra = Spectra(grey, indices, FREQUENCIES, SIZE, FLOOR)
    cells = Cells(_queries(spectra, grey, indices, WHOLE))

    def search(window: Window) -> tuple[np.ndarray, np.ndarray]:
        return cells.nearest(_queries(spectra, grey, indices, window))

    best = [np.full(len(indices), -np.inf, np.float32) for _ in range(2)]  # of the nearest two pictures
    other, window_of = np.full(len(indices), -1), np.zeros(len(indices), np.intp)
    with ThreadPoolExecutor(max(1, threads)) as pool:  # numpy lets go of Python's lock
        for number, (products, nearest) in enumerate(pool.map(search, WINDOWS)):
            for column in range(products.shape[1]):
                product, index = products[:, column], nearest[:, column]
                again, ahead = index == other, product > best[0]
                best[1] = np.where(again, best[1], np.where(ahead, best[0], np.maximum(best[1], product)))
                window_of = np.where(ahead, number, window_of)
                other = np.where(ahead, index, other)
                best[0] = np.maximum(best[0], product)
    alike, next_alike = (np.maximum(values, -(SCALE**2)) / SCALE**2 for values in best)
    stands_out = 1 - next_alike >= STANDS_OUT * (1 - alike)
    first = np.flatnonzero((alike >= LEAST) & (stands_out | (alike >= SURE)))
    pairs = np.column_stack([first, other[first], window_of[first]])
    turned_back = (pairs[:, 2] == 0) & (pairs[:, 0] > pairs[:, 1])
    pairs[turned_back, :2] = pairs[turned_back, 1::-1]
    pairs = np.unique(pairs, axis=0)
    return Candidates(indices[pairs[:, 0]], indices[pairs[:, 1]], pairs[:, 2])


def _queries(spectra: Spectra, grey: np.ndarray, indices: np.ndarray, window: Window) -> np.ndarray:
    vectors = [
        whole_vectors(spectra.vectors(spectra.transform(grey[rows].reshape(-1, GREY_EDGE, GREY_EDGE), window)))
        for rows in chunks(indices, CHUNK)
    ]
    return np.concatenate(vectors)
