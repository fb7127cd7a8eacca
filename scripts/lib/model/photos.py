"""Photographs that a trained run classifies: found, read and shown to the model as its test pipeline does."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Photo:
    """An image to predict, and its name below the output folder."""

    path: Path
    name: str


class Photos:
    """The images as a data set of mmcls, through the test pipeline of a config; one that is broken raises OSError."""

    def __init__(self, photos: Sequence[Photo], pipeline: Any) -> None:
        from mmcls.datasets.pipelines import Compose

        self.pipeline = Compose(pipeline)
        self.data_infos: list[dict[str, Any]] = [
            {"img_prefix": None, "img_info": {"filename": str(photo.path)}} for photo in photos
        ]

    def __len__(self) -> int:
        return len(self.data_infos)

    def __getitem__(self, index: int) -> Any:
        info = self.data_infos[index]
        check_whole(Path(info["img_info"]["filename"]))
        return self.pipeline({**info, "gt_label": np.array(0, dtype=np.int64)})


def check_whole(path: Path) -> None:
    """Raise OSError unless *path* is an image that can be decoded to its end.

    OpenCV 4 (the cuda11 environment), which mmcls reads with, fills the missing part of a truncated JPEG with grey
    and says nothing; OpenCV 5 refuses it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tags that hold nonsense, and of large images
        try:
            with Image.open(path) as image:
                image.draft("RGB", (64, 64))  # a JPEG is then read whole but computed at an eighth of its size
                image.load()
        except Image.UnidentifiedImageError as error:
            raise OSError("not an image") from error
        except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise OSError(f"broken, or too large an image ({error})") from error
