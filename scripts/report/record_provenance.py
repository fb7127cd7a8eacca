"""Record where a run comes from: what determined it, what came out of it, and under which circumstances.

provenance.json keeps these three apart, so that two runs can be compared: equal ``inputs`` are to give equal
``outputs``, whatever the ``circumstances`` (host, times, attempts).
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from scripts.lib.base import language, long_values
from scripts.lib.base.console import run_cli
from scripts.lib.base.download import shown
from scripts.lib.base.files import (
    find_json,
    hash_weights,
    is_whole,
    read_json,
    sha256_of,
    write_json,
    write_sum,
    write_text,
)
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data.archives import read_record
from scripts.lib.data.folders import check_folder
from scripts.lib.model.checkpoint_file import read_meta
from scripts.lib.model.weight_origin import Origin
from scripts.lib.pages import templates
from scripts.lib.runs.config_file import read_config
from scripts.lib.runs.machine import describe_code, describe_machine, describe_software, find_repository, read_stamp
from scripts.lib.runs.provenance import CORRECTIONS, FORMAT, files_of_run
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.runs.train_log import describe_history, describe_training, find_work_folder, utc
from scripts.lib.settings.load import describe
from scripts.lib.settings.schema import SEARCH_KEYS, Experiment

logger = logging.getLogger(__name__)

#: Files of a run that equal inputs must give again, hashed where they are there.
PRODUCTS = tuple(
    str(path)
    for path in (
        *(RunFolder.init, RunFolder.best, RunFolder.last),
        *(RunFolder.predictions, RunFolder.metrics, RunFolder.per_class),
    )
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.report.record_provenance", description=__doc__)
    file = partial(parser.add_argument, type=Path, metavar="FILE")
    folder = partial(parser.add_argument, type=Path, metavar="DIR")
    folder("--run", required=True, help="its folder: results/.../seed<k>[/fold<j>]")
    file("--archive", required=True, nargs="+", help="the data set's archive, or archives")
    file("--archive-record", nargs="+", help="archive.sha256 of each; without it: computed")
    file("--labels", nargs="*", default=[], help="files of labels that are in no archive")
    file("--corrections", help="the decisions on labels that the images were split by")
    folder("--splits", required=True, help="folder of train, val and test.txt")
    file("--classes", required=True, help="classes.txt")
    file("--checkpoint", help="the pretrained weights, where there are some")
    file("--choice", help="of base_config: auto, the choice that was trained")
    file("--config", required=True, help="the run's config.py")
    parser.add_argument("--settings", default="{}", metavar="JSON", help="this run's part of the settings")
    file("--output", required=True, help="provenance.json")
    file("--html", help="the same as a page for the report, if wanted")
    language.add_option(parser)
    return parser


def hash_files(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return path, size in bytes and sha256 of each of *files*; for a .pth the hash of its tensors too.

    A .pth holds more than weights (a torch version, a zip's layout): equal models are told by ``weights_sha256``.
    """
    result: dict[str, dict[str, Any]] = {}
    for name, path in files.items():
        entry: dict[str, Any] = {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        if path.suffix == ".pth":
            entry["weights_sha256"] = hash_weights(path)
        result[name] = entry
    return result


def existing(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return those of *names* that are files in *folder*."""
    return {name: folder / name for name in names if (folder / name).is_file()}


def products_of(config: Path) -> list[str]:
    """Return PRODUCTS without the weights with a fitted head that this config does not start from: an older run's."""
    start = Path(read_config(config).get("load_from") or "").name
    return [name for name in PRODUCTS if name != str(RunFolder.init) or name == start]


def describe_archive(archive: Path, record: Path | None) -> dict[str, Any]:
    """Return path, size, sha256 and source of the archive; the hash from its record, so that it is not read again.

    Raises
    ------
    UserError : there is neither the archive nor its record.
    """
    known = read_record(record) if record else None
    if not known and not archive.is_file():
        raise UserError(f"{archive}: no such archive, nor a record of it; fetch the data first")
    return {
        "path": str(archive),
        "bytes": archive.stat().st_size if archive.is_file() else None,
        "sha256": known.sha256 if known else sha256_of(archive),
        "source": known.source if known else None,
    }


def check_read_in_place(archives: Sequence[Path], settings: Mapping[str, Any]) -> None:
    """Refuse images that were read in place and have changed since: the run may have seen both.

    Parameters
    ----------
    settings : this run's part of the settings, whose sources are those of *archives*.

    Raises
    ------
    UserError : a file changed.
    """
    source = settings.get("dataset", {}).get("source")
    sources = source if isinstance(source, list) else [source or {}] * len(archives)
    for archive, section in zip(archives, sources, strict=True):
        if section.get("in_place"):
            check_folder(archive, Path(section["path"]).expanduser())


def chosen_settings(experiment: Experiment, choice: Path) -> dict[str, Any]:
    """Return the settings of what `base_config: auto` chose: with them a run is repeated without the search."""
    chosen = experiment.candidate_experiments()[read_json(choice)["chosen"]]
    return chosen.model_dump(mode="json", exclude_defaults=True)


def complete(settings_of_run: Mapping[str, Any]) -> dict[str, Any]:
    """Return one run's settings with the experiment's defaults filled in, and no password or token in an address.

    A later version may have other defaults; the record must not depend on them.
    """
    settings: dict[str, Any] = json.loads(json.dumps(settings_of_run))
    source = settings.get("dataset", {}).get("source")
    sections = [*source] if isinstance(source, list) else [source]
    try:
        for name, experiment in settings.get("experiments", {}).items():
            whole = Experiment.model_validate(experiment).model_dump(
                mode="json", exclude_none=True, exclude=set(SEARCH_KEYS)
            )
            settings["experiments"][name] = whole
            sections.append(whole["checkpoint"])
    except ValidationError as error:
        raise UserError(f"--settings: {describe(error)}") from error
    for section in sections:
        if isinstance(section, dict):
            if section.get("url"):
                section["url"] = shown(section["url"])
            section["mirrors"] = [shown(url) for url in section.get("mirrors", [])]
    return settings


def first_record(run: RunFolder, config: Path, provenance: dict[str, Any]) -> dict[str, Any]:
    """Return what was recorded when these outputs were made of these inputs: other code today has not made them.

    It is kept in the work folder, since Snakemake deletes outputs before it makes them again.
    """
    work = find_work_folder(run, sha256_of(config))
    if work is None:
        return provenance
    kept = find_json(work.provenance) if is_whole(work.provenance) else {}
    if kept.get("format") == FORMAT and _hashes(kept) == _hashes(provenance):
        return kept
    write_json(work.provenance, provenance)
    write_sum(work.provenance)
    return provenance


def _hashes(provenance: Mapping[str, Any]) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in files_of_run(provenance).items()}


def provenance_page(provenance: Mapping[str, Any], config_text: str) -> str:
    """Return the record as a self-contained page: tables of it all, and config.py's text."""
    inputs, circumstances = provenance["inputs"], provenance["circumstances"]
    facts = {"Run": provenance["run"] | inputs["training"]}
    facts |= {title: inputs[title.lower()] for title in ("Settings", "Code", "Environment", "Versions")}
    history = {title: circumstances[title.lower().replace("-", "")] for title in ("Training", "Machine", "Set-up")}
    return templates.page(
        "provenance.html",
        language.tr(f"Config and environment: {circumstances['training']['folder']}"),
        facts={title: flatten(content) for title, content in facts.items()},
        files={"What went in": inputs["files"], "What came out": provenance["outputs"]},
        history={title: flatten(content) for title, content in history.items()},
        config=config_text,
    )


def flatten(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Return nested mappings and lists as (dotted name, text) rows."""
    if isinstance(value, Mapping):
        items = [(f"{name}.{key}" if name else str(key), entry) for key, entry in value.items()]
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        items = [(f"{name}[{index}]", entry) for index, entry in enumerate(value)]
    else:
        return [(name, "-" if value is None else value if isinstance(value, str) else json.dumps(value))]
    return [row for key, entry in items for row in flatten(entry, key)]


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Write the record, and the page."""
    run = RunFolder(args.run)
    try:
        settings = json.loads(long_values.take(args.settings))
    except ValueError as error:
        raise UserError(f"--settings: not JSON ({error})") from error
    if args.choice:
        settings["experiments"] = {
            name: chosen_settings(Experiment.model_validate(experiment), args.choice)
            for name, experiment in settings["experiments"].items()
        }
    files = {"config.py": args.config, "classes.txt": args.classes}
    files |= {f"splits/{path.name}": path for path in sorted(args.splits.glob("*.txt"))}
    if args.checkpoint:
        files["checkpoint"] = args.checkpoint
    files |= {path.name: path for path in args.labels}
    if args.corrections:
        files[CORRECTIONS] = args.corrections
    check_read_in_place(args.archive, settings)
    hashed = hash_files(files)
    if args.checkpoint and (origin := Origin.of(read_meta(args.checkpoint))):
        hashed["checkpoint"] |= origin.meta()
    records = args.archive_record or [None] * len(args.archive)
    archives = {
        path.name.partition(".")[0] if len(args.archive) > 1 else "archive": describe_archive(path, record)
        for path, record in zip(args.archive, records, strict=True)
    }
    provenance: dict[str, Any] = {
        "format": FORMAT,
        "run": RunFolder(args.run.resolve()).names,
        "inputs": {
            "training": describe_training(args.config),
            "settings": complete(settings),
            "files": {**archives, **hashed},
            "code": describe_code(),
            **describe_software(),
        },
        "outputs": hash_files(existing(run.path, products_of(args.config))),
        "circumstances": {
            "training": describe_history(run, args.config),
            "files": hash_files(existing(run.path, [str(RunFolder.train_log)])),
            "machine": describe_machine(),
            "setup": read_stamp(),
            "repository": find_repository(),
            "recorded": utc(time.time()),
        },
    }
    provenance = first_record(run, args.config, provenance)
    if args.html:
        write_text(args.html, provenance_page(provenance, args.config.read_text(encoding="utf-8")))
    write_json(args.output, provenance)
    logger.debug("%s: %s hashed", args.output, plural(len(files) + len(archives) + len(provenance["outputs"]), "file"))


if __name__ == "__main__":
    run_cli(build_parser, main)
