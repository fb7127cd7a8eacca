"""Pictures that are dark, bright, blurred or of low information, beside the rest of their collection.

By the thumbnails and the sharpness that the audit has of each picture. A fixed limit alone would flag whole collections
(X-rays, drawings on white, digits without an edge), so that a picture also has to be far below what is usual in its
own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from scripts.lib.data.auditing import Audited
from scripts.lib.data.spectra import chunks

#: Of a thumbnail, the share that may be brighter than what is called dark, or darker than what is called bright.
REST = 0.01
#: Levels (of 255): nothing is brighter than so much above black, or darker than so much below white.
DIM = 48
#: The contrast is smaller than so many levels, the root of the summed variances of brightness and both colours.
FAINT = 8.0
#: A picture without an edge has a sharpness of 0.25; that of what is out of focus exceeds it by less than BLUR, and by
#: how much less than CERTAIN does not matter.
SMOOTH, BLUR, CERTAIN = 0.25, 0.04, 0.01
#: Noise is rougher and sharper than this: 1 and 4 where all pixels are drawn by themselves, from 0.73 and 2.3 where it
#: was made a little smaller. Of real pictures none has both.
ROUGH, NOISY = 0.7, 2.2
#: What is odd is below this share of the median of the collection.
DIM_SHARE, FAINT_SHARE, BLUR_SHARE = 1 / 3, 0.2, 0.2


def find_odd(audited: Audited, indices: np.ndarray) -> Iterable[tuple[int, str, str]]:
    """Yield of each odd picture its index, the finding and the detail; one finding for each picture.

    Parameters
    ----------
    indices : of the images that can be read and are not blank.
    """
    if not len(indices):
        return
    highest, lowest, contrast = (np.concatenate(values) for values in zip(*_light(audited, indices), strict=True))
    edges, roughness = np.maximum(audited.sharpness[indices] - SMOOTH, CERTAIN), audited.roughness[indices]
    dark = highest < min(DIM, DIM_SHARE * float(np.median(highest)))
    bright = 255 - lowest < min(DIM, DIM_SHARE * float(np.median(255 - lowest)))
    faint = contrast < min(FAINT, FAINT_SHARE * float(np.median(contrast)))
    noise = (roughness > max(ROUGH, float(np.median(roughness)))) & (edges > NOISY - SMOOTH)
    blurred = edges < min(BLUR, BLUR_SHARE * float(np.median(edges)))
    for position in np.flatnonzero(dark | bright | faint | noise | blurred):
        index = int(indices[position])
        if dark[position]:
            yield index, "dark", f"99 % of it is darker than {highest[position] + 1} of 255"
        elif bright[position]:
            yield index, "bright", f"99 % of it is brighter than {lowest[position] - 1} of 255"
        elif faint[position]:
            yield index, "low_information", "hardly any contrast"
        elif noise[position]:
            yield index, "low_information", "noise all over"
        else:
            yield index, "blurred", "no edge in it, as if out of focus"


def _light(audited: Audited, indices: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the highest and the lowest brightness, all but REST of the pixels, and the contrast; a chunk at a time."""
    rest = int(REST * audited.grey.shape[1])
    for chunk in chunks(indices):
        grey, colour = audited.grey[chunk], audited.colour[chunk].reshape(len(chunk), 2, -1)
        ordered = np.partition(grey, (rest, -1 - rest), axis=1)
        variance = grey.var(axis=1, dtype=np.float32) + colour.var(axis=2, dtype=np.float32).sum(axis=1)
        yield ordered[:, -1 - rest].astype(int), ordered[:, rest].astype(int), np.sqrt(variance)
