"""Describe the results of a data set as an RO-Crate 1.1: which files there are, what made them, and out of what.

The format: https://www.researchobject.org/ro-crate/specification/1.1/
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scripts.lib.base import products, strict_yaml
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import read_lines, sha256_of, write_json
from scripts.lib.base.units import plural
from scripts.lib.runs.provenance import ARCHIVE, DATA, check_made, read_provenance
from scripts.lib.runs.run_folder import RunFolder

logger = logging.getLogger(__name__)

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
PROFILE = "https://w3id.org/ro/crate/1.1"
#: schema.org has this property, the context of RO-Crate 1.1 does not.
OWN_TERMS = {"sha256": "https://schema.org/sha256"}
#: What each file is for (report.html and settings.yaml are made later, from these among others), and media types.
TABLES = strict_yaml.read(Path(__file__).with_name("crate_files.yaml"))
DATASET_FILES: dict[str, str] = TABLES["dataset"]
RUN_FILES: dict[Path, str] = {
    getattr(RunFolder, name) / figure: text
    for (name, _, figure), text in ((key.partition("/"), text) for key, text in TABLES["run"].items())
}
RUN_INPUTS = {RunFolder.config: "complete mmcls config of this run"}

Entity = dict[str, Any]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.report.describe_crate", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR", help="results/<dataset>")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, metavar="DIR", help="folders of the runs in it")
    parser.add_argument("--license", default="", metavar="TEXT", help="license of the images, as the settings say")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="ro-crate-metadata.json in --folder")
    return parser


def reference(identifier: str) -> Entity:
    """Return a link to another entity."""
    return {"@id": identifier}


def references(identifiers: Iterable[str]) -> Entity | list[Entity]:
    """Return links to other entities: one as itself, several as a list (RO-Crate 1.1, appendix on JSON-LD)."""
    links = [reference(identifier) for identifier in dict.fromkeys(identifiers)]
    return links[0] if len(links) == 1 else links


def describe_file(folder: Path, path: str, description: str, known: Mapping[str, Any] | None = None) -> Entity:
    """Return the entity of a file in the crate.

    Parameters
    ----------
    folder : the crate's root.
    path : of the file, relative to it.
    known : ``bytes`` and ``sha256``, where they are on record; else they are computed.
    """
    file = folder / path
    return {
        "@id": quote(path),
        "@type": "File",
        "name": path,
        "description": description,
        "encodingFormat": TABLES["media_types"].get(file.suffix, "application/octet-stream"),
        "contentSize": str(known["bytes"] if known else file.stat().st_size),
        "sha256": known["sha256"] if known else sha256_of(file),
    }


def describe_run(folder: Path, run: str, provenance: Mapping[str, Any]) -> list[Entity]:
    """Return the entities of a run: its folder, its files, and the action that made them of the inputs.

    Parameters
    ----------
    folder : the crate's root.
    run : the run's folder, relative to it.
    provenance : what record_provenance wrote there.
    """
    inputs, training = provenance["inputs"], provenance["circumstances"]["training"]
    hashed = {**inputs["files"], **provenance["outputs"], **provenance["circumstances"]["files"]}
    root = f"{run}/"
    files = [
        describe_file(folder, root + name.as_posix(), f"{text} ({run})", hashed.get(name.as_posix()))
        for name, text in (RUN_INPUTS | RUN_FILES).items()
        if (folder / run / name).is_file()
    ]
    made = [entity for entity in files if Path(entity["name"]).relative_to(run) in RUN_FILES]
    used = [quote(f"{root}{RunFolder.config}"), "images/", "classes.txt"]
    splits = f"splits/{provenance['run'].get('fold', '')}".rstrip("/")
    used += [quote(f"{splits}/{Path(name).name}") for name in sorted(inputs["files"]) if name.startswith("splits/")]
    entities: list[Entity] = [
        {
            "@id": quote(root),
            "@type": "Dataset",
            "name": run,
            "description": f"one training run: {', '.join(list(provenance['run'].values())[1:])}",
            "hasPart": references(entity["@id"] for entity in files),
        },
        *files,
    ]
    if checkpoint := inputs["files"].get("checkpoint"):
        name = Path(checkpoint["path"]).name
        used.append(f"#{name}")
        description = "pretrained weights; they lie outside this folder, in results/checkpoints/"
        weights = {"@id": f"#{name}", "@type": "CreativeWork", "name": name, "description": description}
        entities.append({**weights, "sha256": checkpoint["sha256"]})
    software = describe_software(inputs)
    action: Entity = {
        "@id": f"#{quote(run)}",
        "@type": "CreateAction",
        "name": f"training and evaluation of {run}",
        "description": training["command"] or "",
        "instrument": references(["#mimflow", *(entity["@id"] for entity in software)]),
        "object": references(used),
        "result": references(entity["@id"] for entity in made),
        "actionStatus": reference("http://schema.org/CompletedActionStatus"),
    }
    times = {"startTime": training["started"], "endTime": training["ended"]}
    action |= {name: time for name, time in times.items() if time}
    return [*entities, action, *software]


def describe_software(inputs: Mapping[str, Any]) -> list[Entity]:
    """Return the packages that compute the numbers."""
    return [
        {
            "@id": f"#{name}-{quote(version)}",
            "@type": "SoftwareApplication",
            "name": name,
            "version": version,
            "softwareVersion": version,
        }
        for name in ("python", "torch", "mmcls", "mmcv")
        if (version := inputs["versions"].get(name)) is not None
    ]


def describe_data(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> list[Entity]:
    """Return the entities of the archives, of labels that are in none of them, and of the images unpacked from them.

    Parameters
    ----------
    files : the input files of a run, as its provenance names them.
    """
    entities: list[Entity] = []
    names = {key: Path(files[key]["path"]).name for key in files if DATA.fullmatch(key)}
    archives = [name for key, name in names.items() if ARCHIVE.fullmatch(key)]
    for key, name in names.items():
        description = "the labels of the images, as they were given"
        if name in archives:
            description = f"the images as they were fetched ({files[key]['source'] or 'source not recorded'})"
        if (folder / name).is_file():
            entities.append(describe_file(folder, name, description, files[key]))
    if (folder / "images").is_dir():
        description = f"the images out of {', '.join(archives)}"
        entities.append({"@id": "images/", "@type": "Dataset", "name": "images", "description": description})
    return entities


def _splits_of_folds(provenances: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the splits of cross-validation, and what each is for."""
    folds = sorted({provenance["run"]["fold"] for provenance in provenances if "fold" in provenance["run"]})
    splits = {Path(name).name: text for name, text in DATASET_FILES.items() if name.startswith("splits/")}
    return {f"splits/{fold}/{name}": f"{text} ({fold})" for fold in folds for name, text in splits.items()}


def describe_crate(folder: Path, runs: Sequence[str], provenances: Sequence[Mapping[str, Any]], license: str) -> Entity:
    """Return ro-crate-metadata.json.

    Parameters
    ----------
    folder : the crate's root, ``results/<dataset>``.
    runs : folders of the runs, relative to it.
    provenances : what record_provenance wrote for each of them.
    license : of the images; empty where the settings name none.
    """
    entities = describe_data(folder, provenances[0]["inputs"]["files"])
    described = DATASET_FILES | _splits_of_folds(provenances)
    entities += [describe_file(folder, path, text) for path, text in described.items() if (folder / path).is_file()]
    for run, provenance in zip(runs, provenances, strict=True):
        entities += describe_run(folder, run, provenance)
    code = provenances[0]["inputs"]["code"]
    unique = {entity["@id"]: entity for entity in entities}
    parts = [identifier for identifier, entity in unique.items() if entity["@type"] in ("File", "Dataset")]
    classes = len(read_lines(folder / "classes.txt"))
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"mimflow results: {provenances[0]['run']['dataset']}",
        "description": f"Image classification, {classes} classes: {plural(len(runs), 'trained and evaluated run')}"
        " with their data, weights, predictions, metrics and provenance.",
        "datePublished": max(provenance["circumstances"]["recorded"] for provenance in provenances),
        "license": reference("#license"),
        "hasPart": references(parts),
        "mentions": references(f"#{quote(run)}" for run in runs),
    }
    graph = [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "about": reference("./"),
            "conformsTo": reference(PROFILE),
        },
        root,
        {
            "@id": "#license",
            "@type": "CreativeWork",
            "name": license or "not stated",
            "description": "license of the images, as the settings say (dataset.license)",
        },
        {
            "@id": "#mimflow",
            "@type": "SoftwareApplication",
            "name": "mimflow",
            "description": "the workflow that made this folder",
            "version": code["commit"] or code["sha256"],
            "softwareVersion": code["commit"] or code["sha256"],
        },
        *unique.values(),
    ]
    return {"@context": [CONTEXT, OWN_TERMS], "@graph": graph}


def main(args: argparse.Namespace) -> None:
    """Describe one data set's results."""
    for run in map(RunFolder, args.runs):  # not by --reads: hundreds of runs are too long for a shell line
        check_made(run.path, [*products.recorded(run.path), *products.recorded(run.figures)])
    # Not all in the folder: report.html of an earlier run may be made again meanwhile.
    products.check(path for path in map(args.folder.joinpath, DATASET_FILES) if path.is_file())
    provenances = [read_provenance(RunFolder(run).provenance) for run in args.runs]
    runs = [run.relative_to(args.folder).as_posix() for run in args.runs]
    crate = describe_crate(args.folder, runs, provenances, args.license)
    write_json(args.output, crate)
    logger.debug("%s: %d entities", args.output, len(crate["@graph"]))


if __name__ == "__main__":
    run_cli(build_parser, main)
