"""Train one finalist of `base_config: auto` as train_model trains a run; a slot with nobody in it has empty files."""

from __future__ import annotations

import argparse

from scripts.lib.base.console import run_cli
from scripts.train import train_model


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command: that of train_model."""
    parser = train_model.build_parser()
    parser.prog, parser.description = "python -m scripts.search.train_finalist", __doc__
    return parser


def main(args: argparse.Namespace) -> None:
    """Train what is in the slot."""
    if args.config.is_file() and not args.config.stat().st_size:
        for path in (args.best, args.last, args.train_log):
            path.write_bytes(b"")
        return
    train_model.main(args)


if __name__ == "__main__":
    run_cli(build_parser, main)
