"""Find pictures that are the same to the eye: saved again, resized, turned, cropped, grey, photographed again.

Two pictures are compared by small thumbnails, freed of brightness and contrast. How alike copies are depends on the
collection: two photographs of fruit never come as close as two solar cells off one line do. So a group counts as
copies when its members are alike beyond all doubt, or when they are far more alike to each other than to anything else.
A second rule (altered_copies.py) lays pictures on each other first, and says how the one became the other.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from scripts.lib.data.altered_copies import find_links, have_same_colours, stars
from scripts.lib.data.image_checks import COLOUR_EDGE, GREY_EDGE
from scripts.lib.data.spectra import chunks

#: The first rule looks at thumbnails of half the size.
HALF = GREY_EDGE // 2
#: Thumbnails whose brightness varies less than this (grey levels) hold mostly noise: such pictures are not compared.
LEAST_CONTRAST = 4.0
#: Distances are those of normalised thumbnails (0: equal, 1.4: nothing in common). Up to this one, whatever the
#: others look like: a JPEG of quality 50 has moved 0.04 at most, different solar cells are 0.06 apart.
STRICT = 0.04
#: No single pixel of the thumbnail may then differ by more than this, in standard deviations: something small is new.
STRICT_PIXEL = 0.24
#: Up to this distance, if the next picture is MARGIN times as far away: brightened until it clips, 32 pixels shrunk
#: to 16, photographed again.
LOOSE, MARGIN = 0.35, 2.5
#: Groups larger than this are found by the strict rule only.
LARGEST_LOOSE = 64
#: Pictures of the collection that a loose group is held against, besides its nearest neighbours.
BACKGROUND = 8192
#: Locality-sensitive hashing: tables, neighbours looked at in a bucket (so that thousands of equal-looking pictures
#: cost no more than others), and pairs compared at a time.
TABLES, WINDOW, CHUNK = 16, 8, 1 << 12
#: The lowest frequencies of the thumbnail's cosine transform, without the constant, make the 63 bits of a hash.
FREQUENCIES = 8
#: Pairs are looked at whose lowest frequencies are no farther apart than this; the whole is never less far apart.
NEAR = 0.5


@dataclass(frozen=True, eq=False)
class Pictures:
    """Small thumbnails of pictures.

    ``grey``: uint8 (pictures, HALF ** 2); ``colour``: uint8 (pictures, 128).
    """

    grey: np.ndarray
    colour: np.ndarray

    def __len__(self) -> int:
        return len(self.grey)

    def features(self, indices: np.ndarray, mirrored: bool = False) -> np.ndarray:
        """Return float32 vectors (pictures, 384) whose Euclidean distance says how far pictures are apart."""
        grey = self.grey[indices].astype(np.float32)
        colour = self.colour[indices].astype(np.float32) - 128
        if mirrored:
            grey = grey.reshape(-1, HALF, HALF)[..., ::-1].reshape(grey.shape)
            colour = colour.reshape(-1, 2, COLOUR_EDGE, COLOUR_EDGE)[..., ::-1].reshape(colour.shape)
        grey = grey - grey.mean(1, keepdims=True)
        contrast = np.maximum(grey.std(1, keepdims=True), 1)
        parts = (grey / (contrast * HALF), colour / (contrast * colour.shape[1] ** 0.5))
        return np.concatenate(parts, axis=1)

    @functools.cached_property
    def background(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the pictures that groups are held against: their indices, features, and the features' squares."""
        count = len(self)
        sample = np.arange(count)
        if count > BACKGROUND:  # a function of the number only
            seed = int.from_bytes(hashlib.blake2b(f"background\0{count}".encode(), digest_size=8).digest(), "little")
            sample = np.sort(np.random.Generator(np.random.Philox(key=seed)).choice(count, BACKGROUND, replace=False))
        vectors = self.features(sample)
        return sample, vectors, (vectors * vectors).sum(1)


@dataclass(frozen=True)
class NearCopies:
    """Groups of pictures that are the same to the eye, and how pairs of them became different.

    ``groups``: two or more indices each, ascending, in order; ``how``: in words, by two indices, the lower one first.
    """

    groups: list[list[int]]
    how: Mapping[tuple[int, int], str]


def find_near_duplicates(
    grey: np.ndarray, colour: np.ndarray, threads: int = 1, indices: np.ndarray | None = None
) -> NearCopies:
    """Return the pictures that are the same to the eye.

    Deterministic, but whether a group stands out depends on the other pictures.

    Parameters
    ----------
    grey : uint8 of shape (pictures, GREY_EDGE ** 2); thumbnails without contrast belong to no group.
    colour : uint8 of shape (pictures, 128).
    threads : how many search; they find the same.
    indices : the pictures that are compared, ascending; None: all.
    """
    indices = np.arange(len(grey)) if indices is None else indices
    contrast = np.concatenate([np.zeros(0), *(grey[chunk].std(1) for chunk in chunks(indices, CHUNK))])
    compared = indices[contrast >= LEAST_CONTRAST]
    # Equal thumbnails first: one of them stands for all.
    _, first, which = np.unique(_fingerprints(grey, colour, compared), return_index=True, return_inverse=True)
    which = which.ravel()
    representatives = compared[first]
    sets = DisjointSet()  # of the pictures that have a copy: all would take much memory
    links = find_links(grey, colour, np.sort(representatives), threads)
    of_links = [[int(which[np.searchsorted(compared, index)]) for index in group] for group in stars(links)]
    for group in (*_accepted(_small(grey, colour, representatives), threads), *of_links):
        for other in group:
            sets.add(other)
            sets.merge(group[0], other)
    groups: dict[int, list[int]] = {}
    for index, unique in zip(compared.tolist(), which.tolist(), strict=True):
        groups.setdefault(sets[unique] if unique in sets else unique, []).append(index)  # noqa: SIM401 (no get)
    how = {(min(link.first, link.second), max(link.first, link.second)): link.how for link in reversed(links)}
    return NearCopies(sorted(group for group in groups.values() if len(group) > 1), how)


def _small(grey: np.ndarray, colour: np.ndarray, indices: np.ndarray) -> Pictures:
    """Return thumbnails of half the size."""
    small = np.zeros((len(indices), HALF**2), np.uint8)
    for chunk in chunks(np.arange(len(indices)), CHUNK):
        blocks = grey[indices[chunk]].reshape(-1, HALF, 2, HALF, 2)
        small[chunk] = ((blocks.sum((2, 4), dtype=np.uint16) + 2) // 4).reshape(len(chunk), -1)
    return Pictures(small, colour[indices])


def _fingerprints(grey: np.ndarray, colour: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return a 64-bit number for each picture that equal thumbnails share."""
    words = (grey.shape[1] + colour.shape[1]) // 8
    factors = np.random.Generator(np.random.Philox(key=1)).integers(0, 1 << 63, words, dtype=np.uint64) * 2 + 1
    fingerprints = [np.zeros(0, np.uint64)]
    for chunk in chunks(indices, CHUNK):
        rows = np.concatenate([grey[chunk], colour[chunk]], axis=1).view(np.uint64)
        rows ^= rows >> np.uint64(29)  # else a change in the upper bits of two words could cancel out
        fingerprints.append((rows * factors).sum(1, dtype=np.uint64))
    return np.concatenate(fingerprints)


def _accepted(pictures: Pictures, threads: int) -> Iterator[list[int]]:
    """Yield groups of pictures that are copies; groups may overlap."""
    low, high, distance, largest = _neighbours(pictures, threads)
    order = np.lexsort((high, low, distance))
    low, high, distance, largest = low[order], high[order], distance[order], largest[order]
    certain = (distance <= STRICT) & (largest <= STRICT_PIXEL)
    for group in _strict_groups(pictures, low[certain], high[certain]):
        yield from _of_one_colouring(pictures, group)
    for group, width in _clusters(low, high, distance):
        if _stands_out(pictures, group, width):
            yield from _of_one_colouring(pictures, group)


def _of_one_colouring(pictures: Pictures, group: list[int]) -> Iterator[list[int]]:
    """Yield the parts of a group whose members have the colours of their first one: icons may differ by colour only."""
    colour = pictures.colour[group].astype(np.float32).reshape(len(group), 2, COLOUR_EDGE, COLOUR_EDGE)
    straight, mirrored = (values.reshape(len(group), 2, -1) for values in (colour, colour[..., ::-1]))
    rest = np.arange(len(group))
    while len(rest) > 1:
        leader = np.broadcast_to(straight[rest[0]], (len(rest), *straight.shape[1:]))
        same = have_same_colours(straight[rest], leader) | have_same_colours(mirrored[rest], leader)
        same[0] = True
        if same.sum() > 1:
            yield [group[index] for index in rest[same]]
        rest = rest[~same]


def _strict_groups(pictures: Pictures, low: np.ndarray, high: np.ndarray) -> Iterator[list[int]]:
    """Yield groups of which each member is near the first: a chain of small steps does not join a whole class."""
    neighbours: dict[int, list[int]] = {}
    for first, second in zip(low.tolist(), high.tolist(), strict=True):
        neighbours.setdefault(first, []).append(second)
        neighbours.setdefault(second, []).append(first)
    free = set(neighbours)
    for leader in sorted(neighbours):
        if leader not in free:
            continue
        free.remove(leader)
        group, queue = [leader], [leader]
        while queue:
            candidates = sorted({index for member in queue for index in neighbours[member]} & free)
            near = _distances(pictures, leader, np.array(candidates, np.intp)) <= 2 * STRICT
            queue = [index for index, is_near in zip(candidates, near, strict=True) if is_near]
            free.difference_update(queue)
            group += queue
        if len(group) > 1:
            yield group


def _distances(pictures: Pictures, leader: int, indices: np.ndarray) -> np.ndarray:
    """Return how far pictures are from one, the nearer of as they are and mirrored."""
    base = pictures.features(np.array([leader]))
    distances = [np.linalg.norm(pictures.features(indices, mirrored) - base, axis=1) for mirrored in (False, True)]
    return np.minimum(*distances)


def _clusters(low: np.ndarray, high: np.ndarray, distance: np.ndarray) -> Iterator[tuple[list[int], float]]:
    """Yield single-linkage clusters, and their longest link, that no other picture comes near.

    Parameters
    ----------
    low, high, distance : links between two pictures each, ascending by distance.
    """
    sets = DisjointSet()
    members: dict[int, list[int]] = {}
    longest: dict[int, float] = {}
    for first, second, far in zip(low.tolist(), high.tolist(), distance.tolist(), strict=True):
        sets.add(first)
        sets.add(second)
        roots = sets[first], sets[second]
        if roots[0] == roots[1]:
            continue
        for root in roots:
            if root in longest and far >= MARGIN * longest[root] and 1 < len(members[root]) <= LARGEST_LOOSE:
                yield sorted(members[root]), longest[root]
        sets.merge(*roots)
        joined = [index for root in roots for index in members.pop(root, [root])]
        # Too large ones are only counted on: what is cut off here is never yielded.
        members[sets[first]] = joined[: LARGEST_LOOSE + 1]
        for root in roots:
            longest.pop(root, None)
        if far <= LOOSE:
            longest[sets[first]] = far
    for root, width in longest.items():
        if len(members[root]) <= LARGEST_LOOSE:
            yield sorted(members[root]), width


def _stands_out(pictures: Pictures, group: list[int], width: float) -> bool:
    """Tell whether all of a group is near its first member, and nothing of the collection near any of it."""
    members = np.array(group, np.intp)
    if _distances(pictures, group[0], members[1:]).max() > 2 * max(width, STRICT):
        return False
    sample, vectors, squares = pictures.background
    outside = ~np.isin(sample, members)
    if not outside.any():
        return True
    for mirrored in (False, True):
        features = pictures.features(members, mirrored)
        gaps = squares[None] + (features * features).sum(1)[:, None] - 2 * features @ vectors.T
        if gaps[:, outside].min() < (MARGIN * width) ** 2:
            return False
    return True


def _neighbours(pictures: Pictures, threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs (low, high) of pictures that are probably alike, their distance, and their largest difference."""
    pairs: dict[bool, list[np.ndarray]] = {False: [], True: []}
    signs, mirrored, short, turned = _hashes(pictures)
    with ThreadPoolExecutor(max(1, threads)) as pool:  # numpy lets go of Python's lock

        def search(table: tuple[np.ndarray, np.ndarray, int]) -> tuple[np.ndarray, np.ndarray]:
            code, flipped, bits = table
            return _bucket_pairs(code, code, bits, short, short), _bucket_pairs(code, flipped, bits, short, turned)

        for straight, mirrors in pool.map(search, _codes(signs, mirrored)):
            pairs[False].append(straight)
            pairs[True].append(mirrors)
    columns: list[tuple[np.ndarray, ...]] = [(np.zeros(0, np.intp),) * 2 + (np.zeros(0, np.float32),) * 2]
    for flip, keys in pairs.items():
        for chunk in chunks(_distinct(np.concatenate(keys)), CHUNK):
            low, high = (chunk >> np.uint64(32)).astype(np.intp), (chunk & np.uint64(0xFFFFFFFF)).astype(np.intp)
            gap = pictures.features(low, flip) - pictures.features(high)
            distance = np.sqrt((gap * gap).sum(1))
            near = distance <= MARGIN * LOOSE
            largest = np.abs(gap[near, : HALF**2]).max(1, initial=0) * HALF
            columns.append((low[near], high[near], distance[near], largest))
    low, high, distance, largest = (np.concatenate(column) for column in zip(*columns, strict=True))
    return low, high, distance, largest


def _distinct(values: np.ndarray) -> np.ndarray:
    """Return *values* ascending, each once (numpy's unique takes four times as long)."""
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values


def _hashes(pictures: Pictures) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return of each picture and of its mirror image the bits of a hash, and the lowest frequencies.

    Returns
    -------
    bits, bits mirrored : bool (pictures, 63).
    lowest, lowest mirrored : float32 (pictures, 15).
    """
    steps = np.pi * (2 * np.arange(HALF) + 1) / (2 * HALF)
    waves = np.cos(np.outer(np.arange(FREQUENCIES), steps))
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    basis = np.einsum("ay,bx->abyx", waves, waves).reshape(FREQUENCIES**2, -1)[1:].T.astype(np.float32)
    down, across = np.divmod(np.arange(1, FREQUENCIES**2), FREQUENCIES)
    values = np.concatenate(
        [np.zeros((0, len(down)), np.float32)]
        + [pictures.features(chunk)[:, : HALF**2] @ basis for chunk in chunks(np.arange(len(pictures)), CHUNK)]
    )
    mirrored = np.where(across % 2 == 1, -values, values)
    # The median of the collection, so that each bit splits it in two, also where all pictures look alike.
    middle = np.median(values, axis=0) if len(values) else 0
    low = (down < 4) & (across < 4)
    return values > middle, mirrored > middle, values[:, low], mirrored[:, low]


def _codes(signs: np.ndarray, mirrored: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield for each table the hashes with their bits in another order, uint64, and the bits that name a bucket."""
    bits = max(8, len(signs).bit_length())
    hash_bytes = [np.ascontiguousarray(np.packbits(values, axis=1).T) for values in (signs, mirrored)]
    byte = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.uint64)
    for table in range(TABLES):
        order = np.random.Generator(np.random.Philox(key=table)).permutation(signs.shape[1])
        value = np.zeros(8 * len(hash_bytes[0]), np.uint64)  # of each bit where it goes, the first bit highest
        value[order] = np.uint64(1) << np.arange(63, 63 - len(order), -1, dtype=np.uint64)
        moved = byte @ value.reshape(-1, 8).T  # (256, bytes): looking bytes up is ten times as fast as moving bits
        straight, flipped = (functools.reduce(np.bitwise_or, map(np.take, moved.T, octets)) for octets in hash_bytes)
        yield straight, flipped, bits


def _bucket_pairs(
    code: np.ndarray, wanted: np.ndarray, bits: int, lowest: np.ndarray, lowest_wanted: np.ndarray
) -> np.ndarray:
    """Return pairs of pictures in one bucket, as low << 32 | high, whose lowest frequencies are near.

    Parameters
    ----------
    code, lowest : of the pictures.
    wanted, lowest_wanted : of the same pictures, or of their mirror images.
    """
    if not len(code):
        return np.zeros(0, np.uint64)
    shift = np.uint64(64 - bits)  # the 63 bits of a hash are the upper ones
    order = np.argsort(code, kind="stable")
    buckets = code[order] >> shift
    indices = np.arange(len(code))
    if wanted is code:
        start = np.empty_like(order)
        start[order] = indices
        steps = range(1, WINDOW + 1)
    else:
        start = np.searchsorted(code[order], wanted)
        steps = range(-WINDOW // 2, WINDOW // 2)
    pairs = [np.zeros(0, np.uint64)]
    for step in steps:
        at = np.clip(start + step, 0, len(code) - 1)
        same = np.flatnonzero((buckets[at] == wanted >> shift) & (order[at] != indices))
        other = order[at[same]]
        gap = lowest_wanted[same] - lowest[other]
        near = (gap * gap).sum(1) <= NEAR**2
        pair = np.sort([same[near], other[near]], axis=0).astype(np.uint64)
        pairs.append(pair[0] << np.uint64(32) | pair[1])
    return np.concatenate(pairs)
