"""Audit the images: what cannot be read, what is odd, what is there twice, and which given splits share images."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path, read_json, sha256_of, write_json
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data import reading
from scripts.lib.data.audit_findings import find_all, judge_depth, notes_on_groups, refuse_bad, summarise
from scripts.lib.data.auditing import AuditCache, Audited, check_all, gather
from scripts.lib.data.corrections import (
    COLUMNS,
    DROP,
    Correction,
    corrected_images,
    findings_of,
    note_on,
    read_corrections,
    resolve,
    write_corrections,
)
from scripts.lib.data.findings import write_findings
from scripts.lib.data.image_checks import Status
from scripts.lib.data.image_paths import group_pattern
from scripts.lib.data.shards import worthwhile
from scripts.lib.data.splits import VAL_IS_TEST, Image, find_images, settle_given_splits

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.data.audit_images", description=__doc__)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="[train|val|test/]<class>/<file>")
    parser.add_argument("--output", type=Path, required=True, metavar="CSV", help="findings, one a row")
    parser.add_argument("--summary", type=Path, required=True, metavar="JSON", help="counts, sizes, notes")
    parser.add_argument("--unpacked", type=Path, metavar="JSON", help="record of unpack_archive, for the notes")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="what is known of files by content; is added to")
    parser.add_argument(
        "--shards", type=Path, nargs="*", default=[], metavar="FILE",
        help="what check_images made of each shard, in their order: no image is read here",
    )  # fmt: skip
    parser.add_argument(
        "--on-bad-image", choices=["set_aside", "fail"], default="set_aside",
        help="go on without images that cannot be used, or stop (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--corrections", type=Path, metavar="CSV", help="what a person decided about labels")
    parser.add_argument("--kept-corrections", type=Path, metavar="CSV", help="where a copy of that file is to stay")
    parser.add_argument("--corrected", type=Path, metavar="CSV", help="the decision on each image that there is one on")
    reading.add_options(parser)
    parser.add_argument("--group-by", metavar="PATTERN", help="regular expression: known groups, searched in paths")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="files at a time (all cores)"
    )
    return parser


def correct(args: argparse.Namespace, images: Sequence[Image], audited: Audited) -> tuple[list[Correction], list[str]]:
    """Return the decisions on labels, by the images' paths, and a note on them; keep a copy of their file.

    Raises
    ------
    UserError : the file is no table of corrections, or not one of these images.
    """
    decided: list[Correction] = []
    remarks: list[str] = []
    if args.corrections:
        labels = {image.path: image.label for image in images}
        digests = {
            image.path: digest.hex()
            for image, digest, checked in zip(images, audited.digests, audited.checks, strict=True)
            if checked.status is Status.READABLE
        }
        decided = resolve(read_corrections(args.corrections), labels, digests, args.corrections)
        remarks = [note_on(decided, args.corrections, sha256_of(args.corrections))]
    if args.kept_corrections:
        content = args.corrections.read_bytes() if args.corrections else f"{','.join(COLUMNS)}\n".encode()
        with atomic_path(args.kept_corrections) as temporary:
            temporary.write_bytes(content)
    if args.corrected:
        write_corrections(args.corrected, decided)
    return decided, remarks


def main(args: argparse.Namespace) -> None:
    """Audit one data set."""
    if args.group_by:
        try:
            group_pattern(args.group_by)
        except ValueError as error:
            raise UserError(f"--group-by: {error}") from error
    every_image = find_images(args.images)
    images = settle_given_splits(every_image)
    began = time.monotonic()
    audited = _check(args, images)
    depth = judge_depth(audited.checks, args.bit_depth)
    is_carved = images != every_image
    decided, remarks = correct(args, images, audited)
    dropped = {correction.path for correction in decided if correction.action == DROP}
    rest = [index for index, image in enumerate(images) if image.path not in dropped]
    if not rest:
        raise UserError(f"{args.corrections}: it drops every image")
    kept = corrected_images(images, decided)
    findings = find_all(kept, audited.of(rest), args.group_by, args.threads)
    if decided:
        findings = sorted([*findings, *findings_of(decided, args.corrections)], key=lambda row: (row.file, row.finding))
    new = {image.path: image for image in kept}
    images = [new.get(image.path, image) for image in images]
    summary = summarise(images, audited.checks, findings)
    summary["notes"] += [*([VAL_IS_TEST] if is_carved else []), *depth, *remarks]
    summary["left_out_files"] = read_json(args.unpacked)["left_out"] if args.unpacked else []
    write_findings(args.output, findings)
    for note in summary["notes"]:
        logger.warning("%s", note)
    if args.group_by:  # split_dataset says it on the terminal
        summary["notes"] += notes_on_groups([image.path for image in images], args.group_by)
    if args.unpacked:  # its log has them already
        summary["notes"] = [*read_json(args.unpacked)["notes"], *summary["notes"]]
    write_json(args.summary, summary)
    if args.on_bad_image == "fail":
        refuse_bad(findings, args.images, args.output.with_name(f"{args.output.stem}_bad.csv"))
    seconds = time.monotonic() - began
    counts = ", ".join(f"{name} {count}" for name, count in summary["findings"].items()) or "no findings"
    known = f"{audited.decoded} decoded, {len(images) - audited.decoded} known"
    logger.info(
        "%s in %.1f s (%.0f images/s), %s: %d set aside, %d left out; %s",
        plural(len(images), "image"), seconds, len(images) / seconds,
        f"checked in {len(args.shards)} shards" if args.shards else known,
        summary["set_aside"], summary["left_out"], counts,
    )  # fmt: skip
    if not args.shards and worthwhile(len(images)) > 1:
        logger.info(
            "on a cluster, data_shards: auto divides the audit and the pixel cache of so many images among %d jobs"
            " (docs/data-audit.md)", worthwhile(len(images)),
        )  # fmt: skip


def _check(args: argparse.Namespace, images: Sequence[Image]) -> Audited:
    """Return what is known of each image: from the shards where there are any, else by reading the files."""
    if args.shards:
        return gather(images, args.shards, reading.of_options(args))
    with tempfile.TemporaryDirectory() as temporary:
        cache = AuditCache(args.cache or Path(temporary) / "audit.cache", reading.of_options(args))
        return check_all(args.images, images, cache, max(1, args.threads))


if __name__ == "__main__":
    run_cli(build_parser, main)
