"""Bundle a finished run into one archive with which someone else can repeat it: `make repeat ARCHIVE=...`."""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

from scripts.lib.base import products
from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.workflow.bundles import DATASET_FILES, RUN_FILES, contents, flattened_folders, own_texts, write_bundle
from scripts.lib.workflow.repetition import FinishedRun, changed_since

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bundle", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a finished run, results/.../seed0")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the .tar (beside the data set's results)")
    parser.add_argument("--images", action="store_true", help="put the data set's archive in, too")
    return parser


def main(args: argparse.Namespace) -> None:
    """Check that the run is as its provenance says, and bundle it."""
    run = FinishedRun.read(args.run)
    changed = changed_since(run, without=() if args.images else run.archives)
    if changed:
        raise UserError(f"{args.run}: {changed.causes[0]}; run it again before you bundle it")
    products.check(run.folder / name for name in RUN_FILES)
    products.check(run.dataset / name for name in DATASET_FILES)
    files, texts = contents(run, args.images), own_texts(run, args.images)
    output = args.output or run.dataset / f"{run.name.replace('/', '-')}.tar"
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=output.parent) as scratch:
        if args.images:
            files |= flattened_folders(run, Path(scratch))
        write_bundle(output, files, texts)
    size = output.stat().st_size / 1e6
    logger.info(
        "%s: %s, %.1f MB%s", output, plural(len(files) + len(texts), "file"), size, "" if args.images else ", no images"
    )
    logger.info(
        "before you publish it: provenance.json names the machine, and settings.yaml where the images came from"
    )


if __name__ == "__main__":
    run_cli(build_parser, main)
