"""Check configuration files: say nothing when all is well, else one line that names the file and the key."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.settings.load import load_settings, read_file


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.check_settings", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a YAML file, as configs/demo.yaml")
    return parser


def main(args: argparse.Namespace) -> None:
    """Check each file; say nothing when all is well."""
    for path in args.files:
        load_settings(read_file(path), [path])


if __name__ == "__main__":
    run_cli(build_parser, main)
