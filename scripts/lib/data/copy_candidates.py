"""Look for pictures that may be turned or cropped copies of each other: for each picture, and for it turned and
cropped in two dozen ways, the nearest picture of the collection.

An inverted file: the pictures are sorted into cells around some of them, and only the cells nearest to a query are
searched. Vectors are whole numbers, so that every sum is exact, in whatever order a library adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from scripts.lib.data.alignment import look_up
from scripts.lib.data.image_checks import GREY_EDGE
from scripts.lib.data.spectra import CHUNK, TURNS, WHOLE, Spectra, Window, chunks, draw, seeded

#: Of the vectors that are searched: frequencies along an axis, length, and the share of the variance that is noise.
FREQUENCIES, SIZE, FLOOR = 8, 32, 0.01
#: Largest whole number in a vector: 32 products of two are below 2 ** 24, up to which float32 counts.
SCALE = 127
#: Shares of a picture's height and width that crops keep, and how many windows of each lie beside each other.
CROPS = ((0.84, 3), (0.7, 4))
#: The same for pictures that all look alike: there others come before the right one unless a window lies close to it.
FINE_CROPS = ((0.95, 2), (0.9, 3), (0.85, 4), (0.8, 5), (0.75, 6), (0.7, 7))
#: Degrees, to either side, by which pictures may be rotated, and those that look alike; of a rotated one the largest
#: square without corners is looked at.
ROTATIONS, FINE_ROTATIONS = (8,), (3, 6, 10)
#: Pictures that are compared with each by the fine windows, and the largest collection that they search.
PARTNERS, MOST_FINE = 8, 20_000
#: How alike they are at least.
LEAST_FINE = 0.55
#: Crops that are planted to see whether CROPS are enough, their shares, the pictures among which they are looked for,
#: and the share of the crops that has to be nearest.
PLANTED, SHARES, AMONG, ENOUGH = 64, (0.75, 0.95), 1024, 0.9
#: Cells that are searched for a query, and cells of a collection, times the root of its number.
PROBES, CELLS = 3, 1.5
#: Candidates are at least this alike; from SURE on all of them, below only those that stand out: the next nearest
#: picture must be at least this many times as far.
LEAST, SURE, STANDS_OUT = 0.6, 0.9, 1.12


def _crops(sizes: Sequence[tuple[float, int]]) -> Iterator[Window]:
    for size, count in sizes:
        starts = [(1 - size) * index / (count - 1) for index in range(count)]
        yield from (Window(top, top + size, left, left + size) for top in starts for left in starts)


def _rotations(angles: Sequence[float]) -> Iterator[Window]:
    for degrees in angles:
        border = 0.5 - 0.5 / (np.cos(np.deg2rad(degrees)) + np.sin(np.deg2rad(degrees)))
        square = (border, 1 - border, border, 1 - border)
        yield from (Window(*square, degrees=degrees), Window(*square, degrees=-degrees))


#: The whole, the turns, the crops and the rotations. A quarter to the left is not needed: the other picture has it.
WINDOWS = (WHOLE, *(Window(turn=turn) for turn in TURNS if turn != "ty"), *_crops(CROPS), *_rotations(ROTATIONS))
FINE_WINDOWS = (WHOLE, *_crops(FINE_CROPS), *_rotations(FINE_ROTATIONS))


@dataclass(frozen=True)
class Candidates:
    """Pairs that may be copies: the window ``window`` of ``first`` looks like all of ``second``.

    ``window``: an index of the windows that were searched, WINDOWS or FINE_WINDOWS.
    """

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
        products = np.full((len(queries), PROBES), -np.inf, np.float32)
        indices = np.zeros((len(queries), PROBES), np.intp)
        for probe, asked, members, table in self._tables(queries):
            best = table.argmax(1)
            products[asked, probe] = table[np.arange(len(asked)), best]
            indices[asked, probe] = members[best]
        return products, indices

    def nearest_queries(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for each picture the nearest query of another picture that probes its cell.

        Returns
        -------
        products, indices : float32 and intp (pictures,); a product of minus infinity where there is none.
        """
        products = np.full(len(queries), -np.inf, np.float32)
        indices = np.zeros(len(queries), np.intp)
        for _, asked, members, table in self._tables(queries):
            best = table.argmax(0)
            product = table[best, np.arange(len(members))]
            better = product > products[members]
            products[members[better]], indices[members[better]] = product[better], asked[best[better]]
        return products, indices

    def _tables(self, queries: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield probe, queries, pictures of the cell that they probe, and their products (queries, pictures)."""
        probes = min(PROBES, len(self.centres))
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
                    yield probe, asked, members, table

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


def misses_crops(grey: np.ndarray, indices: np.ndarray) -> bool:
    """Tell whether other pictures often look more like a window of WINDOWS than crops do that are planted for it."""
    known = indices[draw("known", len(indices), AMONG)]
    if len(known) < 2:
        return False
    at = draw("tried", len(known), PLANTED)
    generator = seeded("crops", len(indices))
    sizes = generator.uniform(*SHARES, len(at))
    corners = generator.uniform(0, 1, (2, len(at))) * (1 - sizes)
    crops = [Window(y, y + size, x, x + size) for size, y, x in zip(sizes, *corners, strict=True)]
    thumbnails = grey[known].reshape(-1, GREY_EDGE, GREY_EDGE)
    planted = look_up(thumbnails[at].astype(np.float32), np.stack([window.matrix for window in crops]))
    spectra = Spectra(grey, indices, FREQUENCIES, SIZE, FLOOR)
    vectors, wanted = (spectra.vectors(spectra.transform(pictures)) for pictures in (thumbnails, planted))
    of_crop, of_others = (np.full(len(at), -np.inf) for _ in range(2))
    for window in WINDOWS:
        views = seen(spectra, thumbnails[at], window)
        products = views @ vectors.T
        products[np.arange(len(at)), at] = -np.inf
        of_crop = np.maximum(of_crop, (views * wanted).sum(1))
        of_others = np.maximum(of_others, products.max(1))
    return bool((of_crop > of_others).mean() < ENOUGH)


def find_crops(grey: np.ndarray, indices: np.ndarray, threads: int) -> Candidates:
    """Return for each of the pictures *indices* (ascending) those of which a window of FINE_WINDOWS is most like it.

    Parameters
    ----------
    grey, threads : see :func:`find_candidates`.
    """
    spectra = Spectra(grey, indices, FREQUENCIES, SIZE, FLOOR)
    cells = Cells(_queries(spectra, grey, indices, WHOLE))

    def search(window: Window) -> tuple[np.ndarray, np.ndarray]:
        return cells.nearest_queries(_queries(spectra, grey, indices, window))

    with ThreadPoolExecutor(max(1, threads)) as pool:
        results = list(pool.map(search, FINE_WINDOWS))
    products = np.concatenate([values for values, _ in results])
    first = np.concatenate([values for _, values in results])
    window, second = np.divmod(np.arange(len(products)), len(indices))
    order = np.lexsort((-products, first, second))
    order = order[products[order] >= LEAST_FINE * SCALE**2]
    pairs = second[order] * len(indices) + first[order]
    order = order[np.append(True, pairs[1:] != pairs[:-1])] if len(order) else order  # of a pair the nearest window
    order = order[np.lexsort((-products[order], second[order]))]
    rank = np.arange(len(order)) - np.searchsorted(second[order], second[order])
    order = order[rank < PARTNERS]
    return Candidates(indices[first[order]], indices[second[order]], window[order])


def seen(spectra: Spectra, pictures: np.ndarray, window: Window) -> np.ndarray:
    """Return the vectors of a window of thumbnails (pictures, GREY_EDGE, GREY_EDGE), whether it is rotated or not."""
    if window.degrees:
        maps = np.broadcast_to(window.matrix, (len(pictures), 2, 3))
        return spectra.vectors(spectra.transform(look_up(pictures.astype(np.float32), maps)))
    return spectra.vectors(spectra.transform(pictures, window))


def _queries(spectra: Spectra, grey: np.ndarray, indices: np.ndarray, window: Window) -> np.ndarray:
    pictures = (grey[rows].reshape(-1, GREY_EDGE, GREY_EDGE) for rows in chunks(indices, CHUNK))
    return np.concatenate([whole_vectors(seen(spectra, of, window)) for of in pictures])
