"""What is believed of a run that may be someone else's: its provenance.json has the right shape and names no file
elsewhere, and its settings hold nothing but what is known to be harmless, unless the person at the keyboard says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from scripts.lib.base.problems import UserError
from scripts.lib.model import config_reader
from scripts.lib.runs import config_values
from scripts.lib.runs.config_values import described
from scripts.lib.runs.provenance import ARCHIVE

#: What is read of a provenance, and the types that it may have there.
SHAPE: dict[str, tuple[type, ...]] = {
    "inputs.training.device": (str,),
    "inputs.training.deterministic": (object,),
    "inputs.settings.dataset.source": (dict, list),
    "inputs.settings.experiments": (dict,),
    "inputs.files": (dict,),
    "inputs.code.commit": (str, type(None)),
    "inputs.code.dirty": (bool, type(None)),
    "inputs.code.sha256": (str, type(None)),
    "inputs.environment.name": (str, type(None)),
    "inputs.environment.lock_sha256": (str, type(None)),
    "inputs.versions": (dict,),
    "outputs": (dict,),
    "circumstances.training.nondeterministic_operations": (list,),
    "circumstances.machine.gpus": (list,),
    "circumstances.machine.instruction_sets": (list,),
    "circumstances.machine.variables": (dict,),
    **{f"circumstances.machine.{name}": (object,) for name in ("tf32", "cuda", "cudnn", "driver", "kernels", "cpu")},
}
#: Of these lists, what is in them.
LISTS = {
    "circumstances.training.nondeterministic_operations": str,
    "circumstances.machine.instruction_sets": str,
    "circumstances.machine.gpus": dict,
}
#: Of the files in a provenance, as they are called there; none of them leads out of the run's folder.
FILE = re.compile(r"(?:[A-Za-z0-9_][\w.-]*/){0,2}[A-Za-z0-9_][\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{3,64}")
ENVIRONMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
#: Where a checkpoint came from by the word of its settings. Nothing is fetched from there, and no file or run there is
#: read: the copy that came with the run is, as tensors only, and without one the settings are refused.
CHECKPOINT_KEYS = frozenset({"zoo", "url", "path", "run", "package", "member", "sha256", "mirrors", "license"})
DATASET_KEYS = frozenset(
    {
        "name",
        "source",
        "split",
        "classes",
        "encoding",
        "on_bad_image",
        "bit_depth",
        "background",
        "license",
        "corrections",
    }
)
SOURCE_KEYS = frozenset(
    {"url", "mirrors", "sha256", "path", "sample", "in_place", "labels", "label", "folders", "split", "part"}
)
EXPERIMENT_KEYS = frozenset(
    {"base_config", "checkpoint", "recipe", "epochs", "batch_size", "learning_rate", "image_size", "fit", "amp", "gpus",
     "nodes", "threads", "deterministic", "device", "balance", "export", "shuffle_labels", "overrides"}
)  # fmt: skip


def check_provenance(provenance: Mapping[str, Any], path: Path) -> None:
    """Refuse a provenance that is not as record_provenance writes it, whatever it would be used for.

    Raises
    ------
    UserError : one line that names the first key that is wrong.
    """

    def refuse(key: str, value: Any) -> None:
        raise UserError(f"{path}: {described(key, value)}: it was changed, or is not of mimflow's")

    for key, kinds in SHAPE.items():
        value: Any = provenance
        for name in key.split("."):
            value = value.get(name, refuse) if isinstance(value, Mapping) else refuse
        is_right = value is not refuse and (object in kinds or type(value) in kinds)
        if not is_right or (key in LISTS and not all(isinstance(item, LISTS[key]) for item in value)):
            refuse(key, "missing" if value is refuse else value)
    if not all(isinstance(gpu.get("name"), str) for gpu in provenance["circumstances"]["machine"]["gpus"]):
        refuse("circumstances.machine.gpus", provenance["circumstances"]["machine"]["gpus"])
    inputs = provenance["inputs"]
    files = {f"inputs.files.{name}": (name, entry, True) for name, entry in inputs["files"].items()}
    files |= {f"outputs.{name}": (name, entry, False) for name, entry in provenance["outputs"].items()}
    for key, (name, entry, has_path) in files.items():
        hashes = [entry.get(kind, "") for kind in ("sha256", "weights_sha256")] if isinstance(entry, dict) else [0]
        if not FILE.fullmatch(name) or not all(isinstance(hashed, str) for hashed in hashes) or "sha256" not in entry:
            refuse(key, entry)
        file_path = entry.get("path") if has_path else name
        if not isinstance(file_path, str) or not FILE.fullmatch(PurePosixPath(file_path).name):
            refuse(f"{key}.path", entry.get("path"))
    commit, environment = inputs["code"]["commit"], inputs["environment"]["name"]
    if commit and not COMMIT.fullmatch(commit):  # `git show` would take another text for an option
        refuse("inputs.code.commit", commit)
    if environment and not ENVIRONMENT.fullmatch(environment):
        refuse("inputs.environment.name", environment)
    _check_sources(inputs, refuse)


def _check_sources(inputs: Mapping[str, Any], refuse: Any) -> None:
    experiments, sources = inputs["settings"]["experiments"], inputs["settings"]["dataset"]["source"]
    if len(experiments) != 1 or not all(isinstance(experiment, dict) for experiment in experiments.values()):
        refuse("inputs.settings.experiments", experiments)
    sources = sources if isinstance(sources, list) else [sources]
    if len(sources) != sum(bool(ARCHIVE.fullmatch(name)) for name in inputs["files"]):
        refuse("inputs.settings.dataset.source", sources)
    for source in sources:
        labels = source.get("labels") if isinstance(source, dict) else 0
        names = labels.values() if isinstance(labels, dict) else [labels]
        if not all(isinstance(name, str | None) for name in names):
            refuse("inputs.settings.dataset.source", source)
        if not isinstance(source.get("path"), str | None) or (source.get("in_place") and not source.get("path")):
            refuse("inputs.settings.dataset.source.path", source.get("path"))


def check_settings(provenance: Mapping[str, Any], where: Path, *, trust: bool = False) -> None:
    """Refuse settings with a key or a value that is not known to be harmless.

    Parameters
    ----------
    trust : accept them; the word of the person who typed the command.

    Raises
    ------
    UserError : one line that names the first such key and its value.
    """
    if trust:
        return
    inputs = provenance["inputs"]
    settings = inputs["settings"]
    ((name, experiment),) = settings["experiments"].items()
    checkpoint = experiment.get("checkpoint", "zoo")
    source = settings["dataset"]["source"]
    tables: list[tuple[str, Any, frozenset[str]]] = [
        ("", settings, frozenset({"dataset", "experiments", "seeds", "report"})),
        ("dataset.", settings["dataset"], DATASET_KEYS),
        (f"experiments.{name}.", experiment, EXPERIMENT_KEYS),
        *(("dataset.source.", entry, SOURCE_KEYS) for entry in (source if isinstance(source, list) else [source])),
        *([(f"experiments.{name}.checkpoint.", checkpoint, CHECKPOINT_KEYS)] if isinstance(checkpoint, dict) else []),
    ]
    refused = [(f"{above}{key}", value) for above, table, known in tables for key, value in table.items()
             if key not in known and value not in (None, False)]  # fmt: skip
    refused += [(f"experiments.{name}.overrides.{key}".rstrip("."), value)
              for key, value in config_values.unknown(experiment.get("overrides") or {})]  # fmt: skip
    if checkpoint != "none" and "checkpoint" not in inputs["files"]:  # else its copy is taken, as tensors only
        refused.append((f"experiments.{name}.checkpoint", checkpoint))
    if config_reader.is_file(str(experiment.get("base_config"))):  # it is no file of the bundle's
        refused.append((f"experiments.{name}.base_config", experiment["base_config"]))
    for key, value in refused:
        raise UserError(
            f"{where}: refused: {described(key, value)} is not known to be harmless",
            "if you trust where it comes from, add --trust (make: ARGS=--trust)",
        )
