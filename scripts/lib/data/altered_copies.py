"""Find copies that were turned, cropped, made grey, or photographed again.

Candidates are laid on each other and compared in more detail, freed of what all pictures of the collection have in
common. How alike two have to be depends on the collection: where pictures that were drawn at random already come near
each other once they are aligned (letters, icons), only those count that are practically equal.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from scripts.lib.data.alignment import align, approach, largest_difference, look_up, rescaled, with_last_row
from scripts.lib.data.copy_candidates import (
    FINE_WINDOWS,
    MOST_FINE,
    WINDOWS,
    Candidates,
    find_candidates,
    find_crops,
    misses_crops,
    seen,
)
from scripts.lib.data.image_checks import COLOUR_EDGE, GREY_EDGE
from scripts.lib.data.spectra import TURNS, WHOLE, Spectra, Window, chunks, draw, normalised, seeded

#: Of the vectors that are compared: frequencies along an axis, length, and the share of the variance that is noise.
FREQUENCIES, SIZE, FLOOR = 12, 64, 0.003
#: Where the four corners of a picture are as bright, to so many levels, it may have been rotated a little, and only the
#: centre of it has to agree.
SAME_CORNERS, CENTRE = 8, Window(0.1, 0.9, 0.1, 0.9)
#: One with four corners no brighter than this was probably rotated, and is looked for by what is inside of them.
BLACK, INSIDE = 12, Window(0.05, 0.95, 0.05, 0.95)
#: Copies are no farther apart (1 - cosine) than this, and where only the centre agrees, than CENTRE_SHARE of it.
FARTHEST, CENTRE_SHARE = 0.04, 0.8
#: So far is the nearest of REFERENCES pictures drawn at random from a picture, in the median, in collections of
#: photographs; where it is nearer, FARTHEST shrinks by the STEEPNESS-th power of the ratio.
USUAL_DISTANCE, REFERENCES, ASKED, STEEPNESS = 0.45, 64, 512, 3
#: Crops among pictures that all look alike are looked for where the limit is at least this share of FARTHEST.
USUAL_SHARE = 0.5
#: Nor may two copies be farther apart than this share of the distance from either to the RANK-th nearest of CROWD
#: pictures drawn at random (of a quarter of them, where there are few): a cell without defects is near many others.
CROWDED, CROWD, RANK = 0.05, 512, 3
#: Fewer pictures than these say nothing about a collection.
FEWEST = 24
#: Pairs that are farther apart after a coarse alignment are not aligned finely.
HOPEFUL = 0.3
#: Of each window, the map with which the alignment starts.
MATRICES, FINE_MATRICES = (np.stack([window.matrix for window in windows]) for windows in (WINDOWS, FINE_WINDOWS))
#: How often the maps from fine windows are improved: of all pairs, and of the hopeful ones.
APPROACHES = (2, 8)
#: What shows more of the other's height and width than this is no part of it, and may not be crowded.
LARGEST_CROP = 0.98
#: Nor may they differ by more than this anywhere inside, in standard deviations: drawings of one outline do.
LARGEST_DIFFERENCE = 0.9
#: Pairs that are aligned at a time.
BATCH = 512
#: A picture has no colours below the first of these deviations from grey (levels), and has some above the second.
GREYISH, COLOURFUL = 3.0, 6.0
#: One without colours is a copy if its brightness agrees: difference of the means, and ratio of the contrasts.
SAME_BRIGHTNESS, SAME_CONTRAST = 20.0, 1.3
#: The mean of red, green and blue is the brightness and these shares of the two differences of colours.
OF_MEAN = (0.230, 0.476)
#: Colours may be shifted all over by so many levels. Besides, they may differ by FAINT levels or this share of their
#: deviation, or by NOISE levels if their patterns agree (cosine).
SHIFT, FAINT, TINT, NOISE, AGREE = 16.0, 3.0, 0.6, 7.0, 0.5
#: What is called a part: it shows at most this share of the other's height or width.
CROPPED = 0.93


@dataclass(frozen=True)
class Link:
    """Two pictures that are copies, and how the one became the other, in words.

    ``is_nearest``: of all pictures, the first is nearest to the second.
    """

    first: int
    second: int
    how: str
    is_nearest: bool = False


def find_links(grey: np.ndarray, colour: np.ndarray, indices: np.ndarray, threads: int = 1) -> list[Link]:
    """Return pairs of copies among the pictures *indices* (ascending), the most alike first.

    Deterministic, whatever the number of threads, but whether a pair counts depends on the other pictures.

    Parameters
    ----------
    grey, colour : thumbnails of all pictures, as :func:`near_duplicates.find_near_duplicates` takes them.
    """
    if len(indices) < 2:
        return []
    spectra = Spectra(grey, indices, FREQUENCIES, SIZE, FLOOR)
    farthest = farthest_copy(spectra, grey, indices)
    crowd = indices[draw("crowd", len(indices), min(CROWD, len(indices) // 4))]
    inside, is_cut = _without_black_corners(grey, indices)
    candidates = find_candidates(inside, indices, threads)
    aligned = [_aligned(spectra, inside, batch, farthest, crowd) for batch in _batches(candidates)]
    # Where any two pictures are near once they are aligned, as icons are, a crop cannot be told from other pictures.
    if farthest > USUAL_SHARE * FARTHEST and len(indices) <= MOST_FINE and misses_crops(grey, indices):
        aligned.append(_cropped(spectra, inside, find_crops(inside, indices, threads), farthest, crowd))
    wholes = [replace(pairs, maps=_of_whole(pairs, is_cut)) for pairs in aligned if len(pairs.distance)]
    rows = [row for pairs in wholes for row in _agreeing(grey, colour, pairs)]
    return [Link(first, second, how, is_nearest) for _, first, second, how, is_nearest in sorted(rows)]


def _batches(candidates: Candidates) -> Iterator[Candidates]:
    for at in chunks(np.arange(len(candidates.first)), BATCH):
        yield _take(candidates, at)


def _take(candidates: Candidates, at: np.ndarray) -> Candidates:
    return Candidates(candidates.first[at], candidates.second[at], candidates.window[at])


def farthest_copy(spectra: Spectra, grey: np.ndarray, indices: np.ndarray) -> float:
    """Return how far apart copies of a collection may be, by how near pictures come that are drawn at random."""
    if len(indices) < FEWEST:
        return FARTHEST
    drawn = indices[seeded("references", len(indices)).permutation(len(indices))]
    references, asked = np.split(drawn[: REFERENCES + ASKED], [min(REFERENCES, len(drawn) // 2)])
    known = spectra.vectors(spectra.transform(_square(grey, references)))
    views = np.stack([seen(spectra, _square(grey, asked), window) @ known.T for window in WINDOWS])
    window, nearest = np.divmod(views.transpose(1, 0, 2).reshape(len(asked), -1).argmax(1), len(references))
    pairs = Candidates(asked, references[nearest], window)
    distances = [_distances(spectra, grey, _take(pairs, at))[0] for at in chunks(np.arange(len(asked)), BATCH)]
    usual = float(np.median(np.concatenate(distances)))
    return float(FARTHEST * min(1.0, usual / USUAL_DISTANCE) ** STEEPNESS)


def _square(thumbnails: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return thumbnails[indices].reshape(-1, GREY_EDGE, GREY_EDGE)


def _distances(spectra: Spectra, grey: np.ndarray, pairs: Candidates) -> tuple[np.ndarray, np.ndarray]:
    """Return how far pairs are apart, and the maps between them."""
    first, second = (_square(grey, indices).astype(np.float32) for indices in (pairs.first, pairs.second))
    corners = [np.ptp(pictures[:, :: GREY_EDGE - 1, :: GREY_EDGE - 1], axis=(1, 2)) for pictures in (first, second)]
    rotated = np.minimum(*corners) <= SAME_CORNERS
    wanted = [spectra.vectors(spectra.transform(second, window)) for window in (WHOLE, CENTRE)]
    distance = np.full(len(first), np.inf, np.float32)
    maps = MATRICES[pairs.window]

    def judge(rows: np.ndarray, tried: np.ndarray) -> None:
        """Take the maps *tried* for the pairs *rows* where they are better."""
        moved = look_up(first[rows], tried)
        whole, centre = (
            1 - (spectra.vectors(spectra.transform(moved, window)) * vectors[rows]).sum(1)
            for window, vectors in zip((WHOLE, CENTRE), wanted, strict=True)
        )
        gap = np.where(rotated[rows], np.minimum(whole, centre / CENTRE_SHARE), whole)
        better = gap < distance[rows]
        at = rows[better]
        distance[at], maps[at] = gap[better], tried[better]

    rows = np.arange(len(first))
    judge(rows, maps.copy())  # a flat picture can send the alignment anywhere
    for finely in (False, True):
        if len(rows):
            judge(rows, align(first[rows], second[rows], maps[rows], finely))
        rows = np.flatnonzero(distance <= HOPEFUL)
    return distance, maps


@dataclass(frozen=True)
class Aligned:
    """Pairs that look alike once the ``first`` are seen through ``maps``, how far apart, and how they are turned."""

    first: np.ndarray
    second: np.ndarray
    turns: list[str]
    maps: np.ndarray
    distance: np.ndarray
    are_nearest: bool = False


def _aligned(spectra: Spectra, grey: np.ndarray, pairs: Candidates, farthest: float, crowd: np.ndarray) -> Aligned:
    """Return those of *pairs*, a batch with WINDOWS, that are near enough."""
    distance, maps = _distances(spectra, grey, pairs)
    chosen = np.flatnonzero(distance <= farthest)
    chosen = chosen[distance[chosen] <= CROWDED * _room(spectra, grey, _take(pairs, chosen), crowd)]
    turns = [WINDOWS[window].turn for window in pairs.window[chosen]]
    return Aligned(pairs.first[chosen], pairs.second[chosen], turns, maps[chosen], distance[chosen])


def _cropped(spectra: Spectra, grey: np.ndarray, pairs: Candidates, farthest: float, crowd: np.ndarray) -> Aligned:
    """Return those of *pairs*, with FINE_WINDOWS, that are near enough: of each second picture only the nearest first.

    Where all pictures look alike, some other is near a crop as well, but not as near as the picture that was cropped.
    """
    distance = np.full(len(pairs.first), np.inf, np.float32)
    maps = FINE_MATRICES[pairs.window]
    for times in APPROACHES:
        rows = np.flatnonzero(distance <= (HOPEFUL if times != APPROACHES[0] else np.inf))
        for at in chunks(rows, BATCH):
            first, second = (_square(grey, indices[at]).astype(np.float32) for indices in (pairs.first, pairs.second))
            distance[at], maps[at] = approach(first, second, maps[at], spectra, times, finely=times == APPROACHES[1])
    order = np.lexsort((pairs.first, distance, pairs.second))
    is_nearest = np.append(True, pairs.second[order][1:] != pairs.second[order][:-1])
    chosen = np.sort(order[is_nearest & (distance[order] <= farthest)])
    # What lies on plain ground can be laid on anything else that does.
    chosen = chosen[np.maximum(*(_rim(_square(grey, of[chosen])) for of in (pairs.first, pairs.second))) > SAME_CORNERS]
    crowded = distance[chosen] > CROWDED * _room(spectra, grey, _take(pairs, chosen), crowd)
    is_part = np.abs(np.linalg.det(maps[chosen, :, :2])) <= LARGEST_CROP**2
    chosen = chosen[is_part | ~crowded]
    first, second = (_square(grey, indices[chosen]).astype(np.float32) for indices in (pairs.first, pairs.second))
    chosen = chosen[largest_difference(first, second, maps[chosen]) <= LARGEST_DIFFERENCE]
    return Aligned(pairs.first[chosen], pairs.second[chosen], [""] * len(chosen), maps[chosen], distance[chosen], True)


def _without_black_corners(grey: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the thumbnails *grey*, of those with four black corners only what is INSIDE; and which these are."""
    is_cut = np.zeros(len(grey), bool)
    for rows in chunks(indices):
        corners = grey[rows].reshape(-1, GREY_EDGE, GREY_EDGE)[:, :: GREY_EDGE - 1, :: GREY_EDGE - 1]
        is_cut[rows] = corners.max((1, 2)) <= BLACK
    if not is_cut.any():
        return grey, is_cut  # a copy is a kilobyte for each picture
    inside = grey.copy()
    for cut in chunks(np.flatnonzero(is_cut)):
        moved = look_up(_square(grey, cut).astype(np.float32), np.broadcast_to(INSIDE.matrix, (len(cut), 2, 3)))
        inside[cut] = np.rint(moved).reshape(len(cut), GREY_EDGE**2)
    return inside, is_cut


def _of_whole(pairs: Aligned, is_cut: np.ndarray) -> np.ndarray:
    """Return the maps of *pairs* as maps between the whole pictures, where they are between what is INSIDE."""
    inside = with_last_row(INSIDE.matrix[None])[0]
    first, second = (np.where(is_cut[of][:, None, None], inside, np.eye(3)) for of in (pairs.first, pairs.second))
    return (first @ with_last_row(pairs.maps) @ np.linalg.inv(second))[:, :2].astype(np.float32)


def _rim(pictures: np.ndarray) -> np.ndarray:
    """Return by how many levels the edges of each picture vary."""
    edges = (pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1])
    return np.ptp(np.concatenate(edges, axis=1), axis=1)


def _agreeing(grey: np.ndarray, colour: np.ndarray, pairs: Aligned) -> Iterator[tuple[float, int, int, str, bool]]:
    """Yield of the pairs whose colours agree: distance, first, second, how in words, and whether they are nearest."""
    same, greyish = compare_colours(colour, pairs.first, pairs.second, pairs.maps)
    as_bright = np.zeros(len(same), bool)
    for of_mean in (False, True):  # programs make pictures grey by either
        first, second = (_greys(grey, colour, of, of_mean) for of in (pairs.first, pairs.second))
        as_bright |= _as_bright(look_up(first, pairs.maps), second)
    for row in np.flatnonzero(same | (greyish & as_bright)):
        how = describe(pairs.turns[row], pairs.maps[row, :, :2], bool(same[row]))
        yield float(pairs.distance[row]), int(pairs.first[row]), int(pairs.second[row]), how, pairs.are_nearest


def _greys(grey: np.ndarray, colour: np.ndarray, indices: np.ndarray, of_mean: bool) -> np.ndarray:
    """Return the brightness of pictures, or *of_mean* the mean of their red, green and blue, float32 thumbnails."""
    pictures = _square(grey, indices).astype(np.float32)
    if not of_mean:
        return pictures
    differences = colour[indices].reshape(-1, 2, COLOUR_EDGE, COLOUR_EDGE).astype(np.float32) - 128
    shares = np.array(OF_MEAN, np.float32)
    times = GREY_EDGE // COLOUR_EDGE
    return pictures + np.einsum("npyx,p->nyx", differences, shares).repeat(times, 1).repeat(times, 2)


def _as_bright(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Tell which pairs of thumbnails have the same brightness and contrast, nearly."""
    contrasts = first.std((1, 2)) / np.maximum(second.std((1, 2)), 1)
    same = np.abs(first.mean((1, 2)) - second.mean((1, 2))) <= SAME_BRIGHTNESS
    return same & (np.maximum(contrasts, 1 / np.maximum(contrasts, 1e-6)) <= SAME_CONTRAST)


def _room(spectra: Spectra, grey: np.ndarray, pairs: Candidates, crowd: np.ndarray) -> np.ndarray:
    """Return how far the RANK-th nearest picture of *crowd* is from the more crowded picture of each pair."""
    if len(crowd) < 2 * RANK or not len(pairs.first):
        return np.full(len(pairs.first), np.inf)
    known = spectra.vectors(spectra.transform(_square(grey, crowd)))
    room = []
    for asked, other in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
        gaps = 1 - spectra.vectors(spectra.transform(_square(grey, asked))) @ known.T
        gaps[(crowd == asked[:, None]) | (crowd == other[:, None])] = np.inf
        room.append(np.partition(gaps, RANK - 1, axis=1)[:, RANK - 1])
    return np.minimum(*room)


def compare_colours(
    colour: np.ndarray, first: np.ndarray, second: np.ndarray, maps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which pairs have the same colours, and of which one has none.

    Parameters
    ----------
    colour : uint8 (pictures, 2 * COLOUR_EDGE ** 2), two differences of colours around 128.
    first, second : of each pair the index.
    maps : of :func:`align`, for the first ones.
    """
    first, second = (
        colour[indices].astype(np.float32).reshape(-1, COLOUR_EDGE, COLOUR_EDGE) for indices in (first, second)
    )
    first = look_up(first, np.repeat(rescaled(maps, GREY_EDGE, COLOUR_EDGE), 2, axis=0))
    first, second = (values.reshape(len(maps), 2, -1) - 128 for values in (first, second))
    strength = [np.sqrt((values**2).mean((1, 2))) for values in (first, second)]
    greyish = np.minimum(*strength) <= GREYISH
    return have_same_colours(first, second) & ~(greyish & (np.maximum(*strength) >= COLOURFUL)), greyish


def have_same_colours(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Tell which pairs (n, 2, COLOUR_EDGE ** 2) of differences of colours agree, but for noise and tint."""
    gap = first - second
    shift = gap.mean(2)
    rest = np.sqrt(((gap - shift[:, :, None]) ** 2).mean((1, 2)))
    spread = np.maximum(*(values.std(2).max(1) for values in (first, second)))
    patterns = [(values - values.mean(2, keepdims=True)).reshape(len(first), -1) for values in (first, second)]
    agree = (normalised(patterns[0]) * normalised(patterns[1])).sum(1) >= AGREE
    alike = (rest <= np.maximum(FAINT, TINT * spread)) | (agree & (rest <= NOISE))
    return (np.abs(shift).max(1) <= SHIFT) & alike


def describe(turn: str, linear: np.ndarray, has_colours: bool) -> str:
    """Return in words how a picture became its copy, "" where nothing of it can be named."""
    words = [TURNS[turn]] if turn else []
    sizes = np.linalg.norm(linear, axis=0)
    if min(sizes) < CROPPED or max(sizes) > 1 / CROPPED:
        words.append("one shows a part of the other")
    if not has_colours:
        words.append("one has no colours")
    return "; ".join(words) or "changed or photographed again"


def stars(links: Iterable[Link]) -> list[list[int]]:
    """Return groups in which each member is linked to the first: a chain of small changes does not join a class.

    The pictures with most links come first. One that is left over is in a group with one that is nearest.
    """
    links = list(links)
    neighbours: dict[int, set[int]] = defaultdict(set)
    for link in links:
        neighbours[link.first].add(link.second)
        neighbours[link.second].add(link.first)
    degree = Counter({index: len(others) for index, others in neighbours.items()})
    free, groups = set(neighbours), []
    for centre in sorted(neighbours, key=lambda index: (-degree[index], index)):
        if centre not in free:
            continue
        members = sorted(neighbours[centre] & free)
        if members:
            free -= {centre, *members}
            groups.append([centre, *members])
    for link in links:
        if link.is_nearest and (left_over := free & {link.first, link.second}):
            free -= left_over
            groups.append([link.first, link.second])
    return groups
