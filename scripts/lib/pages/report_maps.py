"""What report.html takes over from the pages of a run: the map of the images, and the maps of Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

from scripts.lib.pages.embedding_page import positions_of
from scripts.lib.pages.report_run import Images, RunReport
from scripts.lib.runs.run_folder import RunFolder

#: Images of a run whose maps of Grad-CAM are taken over: first those of the pair confused most.
MOST_EXPLAINED = 16
#: Characters that the maps of Grad-CAM of all runs may take together; the runs that are listed first have theirs.
ROOM = 3_000_000
#: Kinds of pictures of gradcam.html that are maps.
MAPS = ("correct", "predicted", "true")


@dataclass
class Explained:
    """An image and its maps: of each the kind, the class and the data URI."""

    file: str = ""
    maps: list[tuple[str, str, str]] = field(default_factory=list)


class ExplanationReader(HTMLParser):
    """The figures of a gradcam.html, in their order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.figures: list[Explained] = []
        self._kind, self._label = "", ""
        self._is_caption = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "figure":
            self.figures.append(Explained())
        elif tag == "figcaption":
            self._is_caption = True
        elif "data-kind" in values:
            self._kind, self._label = values["data-kind"], values["data-label"]
        elif tag == "img" and self.figures and self._kind in MAPS:
            self.figures[-1].maps.append((self._kind, self._label, values["src"]))

    def handle_endtag(self, tag: str) -> None:
        if tag == "figcaption":
            self._is_caption = False

    def handle_data(self, data: str) -> None:
        if self._is_caption:
            self.figures[-1].file += data


def with_maps(runs: Sequence[RunReport], dataset: Path, images: Images, classes: Sequence[str]) -> list[RunReport]:
    """Return the runs with what their pages show; of a run whose pages are not there, or in which nothing is, none."""
    label_of = {name: label for label, name in enumerate(classes)}
    room, result = ROOM, []
    for run in runs:
        figures = RunFolder(dataset / run.folder).figures
        points = positions_of(_text(figures / "embedding.html"))
        explained = _explained(_text(figures / "gradcam.html"), images, label_of)
        size = sum(len(uri) for entry in explained for _, _, uri in entry[1])
        room -= size
        result.append(
            replace(
                run,
                map=[[images.number(file), x, y] for file, x, y in points if images.number(file) >= 0],
                explained=explained if room >= 0 else [],
                explained_elsewhere=bool(explained) and room < 0,
            )
        )
    return result


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _explained(page: str, images: Images, label_of: dict[str, int]) -> list[tuple[int, list[tuple[str, int, str]]]]:
    """Return number and maps of each image of a gradcam.html, each image once."""
    entries: dict[int, list[tuple[str, int, str]]] = {}
    for figure in ExplanationReader(page).figures:
        number = images.number(figure.file.strip())
        maps = [(kind, label_of[label], uri) for kind, label, uri in figure.maps if label in label_of]
        if number >= 0 and maps:
            entries.setdefault(number, maps)
    return list(entries.items())[:MOST_EXPLAINED]
