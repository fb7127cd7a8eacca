"""mimflow from Python (`import mimflow`) and from a shell (`mimflow run configs/mine.yaml`): docs/python.md.

Loading this module takes no seconds: what a function needs is imported when it is called.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import webbrowser
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from PIL import Image

__all__ = ["Run", "leaderboard", "open_report", "predict", "runs"]
#: The one place of the version: pyproject.toml reads it; a test compares CHANGELOG.md and CITATION.cff.
__version__ = "0.1.0"
ROOT = Path(__file__).resolve().parent
if str(ROOT) not in sys.path:  # installed from elsewhere; .venv has it there
    sys.path.append(str(ROOT))
#: Images at a time, and processes or threads that read them.
BATCH_SIZE, WORKERS = 16, 2


# --- from Python ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A finished run: an experiment with one seed, and fold where there are folds.

    Attributes
    ----------
    path : its folder, ``results/<dataset>/<experiment>/seed<k>``.
    dataset, experiment : their names.
    seed, fold : numbers; fold is None without folds.
    metrics : metrics.json: of the test images (docs/results.md has the keys).
    """

    path: Path
    dataset: str
    experiment: str
    seed: int
    fold: int | None
    metrics: dict[str, Any]

    def history(self) -> pd.DataFrame:
        """Return train_log.csv: one row an epoch."""
        from scripts.lib.runs.run_folder import RunFolder
        from scripts.lib.runs.train_log import read_train_log

        return read_train_log(RunFolder(self.path).train_log)

    def predictions(self) -> pd.DataFrame:
        """Return the answers on the test images: columns ``file``, ``label``, ``prediction`` and ``prob:<class>``."""
        import pandas as pd

        from scripts.lib.runs.predictions import PROBABILITY, read_predictions
        from scripts.lib.runs.run_folder import RunFolder

        read = read_predictions(RunFolder(self.path).predictions)
        names = {"label": [read.classes[i] for i in read.labels],
                 "prediction": [read.classes[i] for i in read.predictions]}  # fmt: skip
        of_classes = {f"{PROBABILITY}{name}": read.probabilities[:, i] for i, name in enumerate(read.classes)}
        return pd.DataFrame({"file": list(read.files), **names, **of_classes})

    def predict(self, images: ImageLike | Iterable[ImageLike], *, device: str = "auto") -> pd.DataFrame:
        """Predict new images: see :func:`predict`."""
        return predict(self, images, device=device)


#: A path of a file, a folder or a pattern; or pixels.
if TYPE_CHECKING:
    ImageLike = str | os.PathLike[str] | np.ndarray | Image.Image


def runs(results: str | os.PathLike[str] = "results") -> list[Run]:
    """Return the finished runs below a folder, sorted by path: `results`, a data set's, an experiment's or a run's.

    Raises
    ------
    mimflow's UserError : there is none. Its text is one line: what is wrong, where, what to do.
    """
    from scripts.lib.base.files import read_json
    from scripts.lib.runs.run_folder import RunFolder
    from scripts.lib.runs.tracked_run import find_runs

    finished = []
    for path in find_runs(Path(results)):
        names = RunFolder(path.absolute()).names
        fold = names.get("fold")
        finished.append(Run(
            path=path,
            dataset=names["dataset"],
            experiment=names["experiment"],
            seed=int(names["seed"].removeprefix("seed")),
            fold=int(fold.removeprefix("fold")) if fold else None,
            metrics=read_json(RunFolder(path).metrics),
        ))  # fmt: skip
    return finished


def leaderboard(dataset: str | os.PathLike[str]) -> pd.DataFrame:
    """Return leaderboard.csv of a data set: one row an experiment, the best mean accuracy first.

    Parameters
    ----------
    dataset : a name, ``demo``, or a folder, ``results/demo``.

    Raises
    ------
    mimflow's UserError : it has no leaderboard yet.
    """
    from scripts.lib.metrics.leaderboard import read_leaderboard

    return read_leaderboard(_dataset_folder(dataset) / "leaderboard.csv")


def open_report(dataset: str | os.PathLike[str], *, show: bool = True) -> Path:
    """Open a data set's report.html in a browser, and return its path.

    Parameters
    ----------
    dataset : a name, ``demo``, or a folder, ``results/demo``.
    show : False only returns the path.

    Raises
    ------
    mimflow's UserError : there is no report yet.
    """
    from scripts.lib.base.problems import UserError

    page = _dataset_folder(dataset) / "report.html"
    if not page.is_file():
        raise UserError(f"{page}: there is no report", "`make run CONFIG=...` makes it")
    if show:
        webbrowser.open(page.resolve().as_uri())
    return page


def predict(
    run: Run | str | os.PathLike[str], images: ImageLike | Iterable[ImageLike], *, device: str = "auto"
) -> pd.DataFrame:
    """Predict new images with a finished run's best.pth; no file is written.

    Parameters
    ----------
    run : a run, or its folder.
    images : one or several: paths of files, folders and patterns; arrays of shape (height, width, 3), uint8, RGB, or
        (height, width), grey; images of PIL.
    device : ``auto``, ``cpu`` or ``cuda``.

    Returns
    -------
    DataFrame : one row an image, in their order: ``image`` (its path; of pixels, their position in *images*),
        ``prediction``, ``confidence`` (the largest probability), and ``prob:<class>`` for each class.

    Raises
    ------
    mimflow's UserError : no finished run, or an image that cannot be read.
    """
    import pandas as pd

    from scripts.lib.base.problems import UserError
    from scripts.lib.model.photos import check_run, find_images, open_run
    from scripts.lib.runs.predictions import PROBABILITY

    folder = run.path if isinstance(run, Run) else Path(run)
    check_run(folder)
    with tempfile.TemporaryDirectory() as scratch:
        photos: list[Any] = []
        names: list[str | int] = []
        for position, image in enumerate(_listed(images)):
            if isinstance(image, str | os.PathLike):
                these = find_images([os.fspath(image)], Path(scratch))
                names += [str(photo.path) for photo in these]
            else:
                file = Path(scratch) / f"{position}.png"
                _save(image, file)
                these, names = find_images([str(file)], Path(scratch) / "none"), [*names, position]
            photos += these
        model = open_run(folder, photos, device, BATCH_SIZE, WORKERS)
        rows: dict[int, Any] = {}
        for batch in model.batches:
            for index, reason in batch.failures:
                raise UserError(f"{names[index]}: {reason}")
            rows |= dict(zip(batch.indices, batch.probabilities, strict=True))
    table = pd.DataFrame([rows[i] for i in range(len(photos))], columns=[PROBABILITY + name for name in model.classes])
    best = table.to_numpy().argmax(axis=1)
    table.insert(0, "image", names)
    table.insert(1, "prediction", [model.classes[i] for i in best])
    table.insert(2, "confidence", table.iloc[:, 2:].max(axis=1))
    return table


def _listed(images: Any) -> list[Any]:
    single = isinstance(images, str | os.PathLike) or hasattr(images, "save") or getattr(images, "ndim", 4) < 4
    return [images] if single else list(images)


def _save(image: Any, file: Path) -> None:
    """Write pixels without loss, so that they are read as any image is."""
    from PIL import Image

    from scripts.lib.base.problems import UserError

    if not isinstance(image, Image.Image):
        shape, kind = getattr(image, "shape", None), getattr(image, "dtype", type(image).__name__)
        if shape is None or str(kind) != "uint8" or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 3):
            raise UserError(
                f"an image of {kind} and shape {shape}: not known", "give uint8 of (height, width, 3), RGB, or a path"
            )
        image = Image.fromarray(image)
    image.save(file)


def _dataset_folder(dataset: str | os.PathLike[str]) -> Path:
    folder = Path(dataset)
    return folder if folder.is_dir() or len(folder.parts) > 1 else Path("results") / folder


# --- from a shell -----------------------------------------------------------------------------------------------------

#: Commands: the words that each takes, by the variable of make that they become; and whether more follow (ARGS).
COMMANDS: dict[str, tuple[str, ...]] = {
    "setup": (), "demo": (), "run": ("CONFIG",), "fetch": ("CONFIG",), "predict": ("RUN", "IMAGES"),
    "evaluate": ("RUN", "DATA"), "track": ("RUN", "TO"), "verify": ("RUN",), "bundle": ("RUN",),
    "repeat": ("ARCHIVE",), "snakemake-report": ("CONFIG",), "watch": (), "serve": (), "jobs": (), "cancel": (),
    "doctor": (), "preview": ("RUN",), "clean": ("RUN",),
}  # fmt: skip
#: Words that are paths, seen from the folder in which the command is typed.
PATHS = frozenset({"CONFIG", "RUN", "IMAGES", "DATA", "LABELS", "ARCHIVE", "OUT"})
#: Variables that any command takes as `NAME=value`, as make does.
VARIABLES = ("PROFILE", "ENV", "PYTHON", "OUT", "QUICK", "IMAGES", "LABELS", "CONFIG", "PORT")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command ``mimflow``; each command's help is that of ``make help``."""
    parser = argparse.ArgumentParser(
        prog="mimflow",
        description="From a folder of labelled images to an evaluated classifier. Each command is the make target of "
        f"its name, typed from any folder; results are in {ROOT / 'results'}.",
    )
    parser.add_argument("--version", action="version", version=f"mimflow {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    described = _descriptions()
    for name, words in COMMANDS.items():
        command = commands.add_parser(
            name, help=described.get(name, ""), description=described.get(name, ""),
            epilog=f"Also NAME=value for {', '.join(VARIABLES)}. What follows is handed on: to Snakemake for demo, "
            "run and fetch, else to the command itself.",
        )  # fmt: skip
        for word in words:
            command.add_argument(word)
    return parser


def make_command(arguments: Sequence[str]) -> list[str]:
    """Return the command of make that *arguments* of ``mimflow`` stand for."""
    args, rest = build_parser().parse_known_args(arguments)
    values = {word: getattr(args, word) for word in COMMANDS[args.command]}
    more = []
    for word in rest:
        name, is_set, value = word.partition("=")
        if is_set and name in VARIABLES:
            values[name] = value
        else:
            more.append(word)
    here = {name: _from_root(name, value) for name, value in values.items()}
    words = [f"{name}={value}" for name, value in here.items()]
    return ["make", "--no-print-directory", "-C", str(ROOT), args.command, *words,
            *([f"ARGS={shlex.join(more)}"] if more else [])]  # fmt: skip


def _from_root(name: str, value: str) -> str:
    """Return a path that is typed in another folder as make finds it, which runs in the project's."""
    is_path = name in PATHS and not (name == "IMAGES" and value == "yes")
    if not is_path or Path.cwd() == ROOT:
        return value
    path = Path.cwd() / Path(value).expanduser()
    in_project = not path.exists() and (ROOT / value).exists()  # results/demo/..., typed anywhere
    if in_project:
        return value
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)


def _descriptions() -> dict[str, str]:
    """Return what the Makefile says of each target."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    marked = (line.partition(":")[0::2] for line in lines if ": ## " in line and line[:1].isalpha())
    return {name: text.partition("## ")[2].replace("%", "%%") for name, text in marked}


def main() -> None:
    """Become make."""
    command = make_command(sys.argv[1:])
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"error: make: {error.strerror}: install it (Debian: apt-get install make)")


if __name__ == "__main__":
    main()
