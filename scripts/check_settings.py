"""Check configuration files, and that results can be written here: nothing when all is well, else one line.

A note, which is no error, names weights whose license is not for every use.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.lib.base import language
from scripts.lib.base.console import run_cli
from scripts.lib.base.disks import check_folders
from scripts.lib.settings.load import load_settings, read_file
from scripts.lib.workflow.weights_check import weights_notes


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.check_settings", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a YAML file, as configs/demo.yaml")
    return parser


def main(args: argparse.Namespace) -> None:
    """Check each file, and that its results can be written; say nothing when all is well but notes."""
    for path in args.files:
        content = read_file(path)
        language.speak(language.language_of(content) or language.language())
        settings = load_settings(content, [path])
        check_folders(Path("results") / settings.dataset.name)
        for note in weights_notes(settings):
            print(language.tr_line(str(note)))


if __name__ == "__main__":
    run_cli(build_parser, main)
