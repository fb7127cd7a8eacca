"""Do a run again from its provenance, in a scratch folder, and find the first stage that comes out differently."""

from __future__ import annotations

import copy
import json
import logging
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.lib.base import strict_yaml
from scripts.lib.base.console import say
from scripts.lib.base.environment import ROOT
from scripts.lib.base.files import hash_weights, sha256_of, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.base.subprocesses import signals_forwarded
from scripts.lib.model import config_reader
from scripts.lib.model.model_zoo import KEPT_NAMES
from scripts.lib.runs.config_file import read_config
from scripts.lib.runs.machine import describe_code, describe_software
from scripts.lib.runs.provenance import ARCHIVE, CORRECTIONS, DATA, files_of_run, read_provenance
from scripts.lib.runs.run_folder import RunFolder, dataset_folder, run_name
from scripts.lib.workflow.foreign_runs import check_provenance

logger = logging.getLogger(__name__)

PROFILE = ROOT / "profiles" / "local"
#: What is compared, in the order in which it is made: the first difference explains those that follow.
STAGES: dict[str, tuple[str, ...]] = {
    "archive": ("archive",),
    "checkpoint": ("checkpoint",),
    "splits": ("classes.txt", "splits/train.txt", "splits/val.txt", "splits/test.txt"),
    "config": ("config.py",),
    "fitted head": ("init.pth",),
    "weights": ("best.pth", "last.pth"),
    "predictions": ("predictions.csv",),
    "metrics": ("metrics.json", "per_class.csv"),
}
#: Stages that arithmetic decides, and with it the machine.
COMPUTED = ("fitted head", "weights", "predictions", "metrics")
#: Packages that can change a stage's outcome, the likeliest first; the computed stages: all on record.
PACKAGES_OF = {
    "archive": ("opencv-python-headless", "pillow", "numpy"),
    "checkpoint": ("torch", "numpy"),
    "splits": ("scikit-learn", "numpy", "pillow"),
    "config": ("mmcls", "mmcv", "timm"),
}
#: Of the file that stands in for an archive where a folder is read in place.
MANIFEST_SUFFIX = ".jsonl"


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: ``results/<dataset>/<experiment>/seed<k>[/fold<j>]``, and what its provenance says."""

    folder: Path
    provenance: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> FinishedRun:
        """Read a run's provenance.

        Raises
        ------
        UserError : it is not the folder of a finished run.
        """
        path = RunFolder(folder).provenance
        provenance = read_provenance(path)
        check_provenance(provenance, path)
        return cls(folder.resolve(), provenance)

    @property
    def name(self) -> str:
        """``<dataset>/<experiment>/seed<k>``, and ``/fold<j>`` where it is a fold's run."""
        return "/".join(run_name(self.folder).values())

    @property
    def dataset(self) -> Path:
        """The folder of its data set."""
        return dataset_folder(self.folder)

    def file(self, name: str) -> Path:
        """Return where a file of the provenance lies now, wherever results/ was moved to."""
        dataset = self.dataset
        if DATA.fullmatch(name):
            return dataset / Path(self.provenance["inputs"]["files"][name]["path"]).name
        if name == "checkpoint":
            return dataset.parent / "checkpoints" / Path(self.provenance["inputs"]["files"]["checkpoint"]["path"]).name
        if name.startswith("splits/"):
            return dataset / "splits" / run_name(self.folder).get("fold", "") / Path(name).name
        return (dataset if name == "classes.txt" else self.folder) / name

    @property
    def archives(self) -> list[str]:
        """The names of the archives in the provenance, in the order of the sources."""
        return [name for name in self.provenance["inputs"]["files"] if ARCHIVE.fullmatch(name)]

    @property
    def label_files(self) -> list[str]:
        """The names of the files of labels, and of decisions on them, that are in no archive."""
        files = self.provenance["inputs"]["files"]
        return [name for name in files if DATA.fullmatch(name) and not ARCHIVE.fullmatch(name)]

    def sources(self) -> list[dict[str, Any]]:
        """Return copies of the sources in the settings, one an archive."""
        source = copy.deepcopy(self.provenance["inputs"]["settings"]["dataset"]["source"])
        return source if isinstance(source, list) else [source]

    def hashes(self, without: Collection[str] = ()) -> dict[str, str]:
        """Return what is compared, as the provenance says: for weights the hash of the tensors, not of the file."""
        entries = files_of_run(self.provenance).items()
        return {name: entry.get("weights_sha256", entry["sha256"]) for name, entry in entries if name not in without}


@dataclass(frozen=True)
class Difference:
    """The first stage that differs, the files in it that do, and what is likely to have caused it, likeliest first."""

    stage: str
    files: Sequence[str]
    causes: Sequence[str]

    def __str__(self) -> str:
        lines = [f"differs: {self.stage} ({', '.join(self.files)})"]
        lines += [f"{'or' if index else 'likely cause'}: {cause}" for index, cause in enumerate(self.causes)]
        return "\n".join(lines)


def first_difference(expected: Mapping[str, str], got: Mapping[str, str]) -> tuple[str, list[str]] | None:
    """Return the first stage whose hashes differ or are missing, and which files do; None when all are equal."""
    for stage, names in STAGES.items():
        if stage == "archive":
            names = tuple(name for name in dict.fromkeys([*expected, *got]) if DATA.fullmatch(name))
        files = [name for name in names if expected.get(name) != got.get(name)]
        if files:
            return stage, files
    return None


def changed_since(run: FinishedRun, without: Collection[str] = ()) -> Difference | None:
    """Return the first stage whose files are not those that the provenance describes: then nothing can be verified."""
    # Of the files, not of the tensors: nothing but damage, or a hand, changes the rest of a .pth after the run.
    hashes = {name: entry["sha256"] for name, entry in files_of_run(run.provenance).items() if name not in without}
    now = {name: sha256_of(run.file(name)) if run.file(name).is_file() else "" for name in hashes}
    difference = first_difference(hashes, now)
    if difference is None:
        return None
    stage, files = difference
    gone = [name for name in files if not run.file(name).is_file()]
    what = f"{', '.join(gone)} is gone" if gone else f"{', '.join(files)} was changed after the run"
    return Difference(stage, files, [f"{what}: provenance.json describes another one"])


def _hash_now(path: Path) -> str:
    if not path.is_file():
        return ""
    if path.suffix != ".pth":
        return sha256_of(path)
    from scripts.lib.base.tensor_file import Unreadable  # late: it loads torch

    try:
        return hash_weights(path)
    except Unreadable:
        return "no weights"


# --- what is likely to have caused a difference -----------------------------------------------------------------------


def likely_causes(stage: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return why *stage* may differ between two provenances whose earlier stages agree, the likeliest first."""
    software = _software_causes(stage, before["inputs"], after["inputs"])
    if stage not in COMPUTED:
        last = {"archive": "the source of the images is not the same any more"}
        return software or [last.get(stage, "nothing on record differs: please report this as a defect of mimflow")]
    machine = [*_machine_causes(before, after), *_missing_promises(before, after)]
    # Another torch rounds differently on the same machine; with the same one, the machine comes before the code.
    leading = 1 if software and software[0].startswith("other versions: torch ") else 0
    return [*software[:leading], *machine, *software[leading:]] or [
        "nothing on record differs: an operation that is not deterministic without torch saying so, or faulty memory;"
        " repeat it: if it differs anew each time, it is one of these"
    ]


def _software_causes(stage: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    then, now = before["versions"], after["versions"]
    ranked = sorted(PACKAGES_OF.get(stage) or {**then, **now}, key=lambda name: name != "torch")
    changed = [name for name in ranked if then.get(name) != now.get(name)]
    versions = [f"{name} {then.get(name, 'none')} then, {now.get(name, 'none')} now" for name in changed]
    causes = ["other versions: " + "; ".join(versions)] if versions else []
    then, now = before["code"], after["code"]
    if then["sha256"] != now["sha256"]:
        causes.append(f"other code: {_commit(then)} then, {_commit(now)} now (`git diff` shows what changed)")
    then, now = before["environment"], after["environment"]
    if then["lock_sha256"] != now["lock_sha256"] and not versions:
        names = f"environment {then['name'] or 'unknown'} then, {now['name'] or 'unknown'} now"
        causes.append(f"another lock: {names}, or envs/*.lock was made anew")
    return causes


def _commit(code: Mapping[str, Any]) -> str:
    return (code["commit"] or "unknown commit")[:12] + (" with changes" if code["dirty"] else "")


def _machine_causes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    then, now = before["circumstances"]["machine"], after["circumstances"]["machine"]
    causes = []

    def compare(what: str, key: str, show: Callable[[Any], str] = str) -> None:
        texts = show(then[key]), show(now[key])
        if then[key] != now[key] and texts[0] != texts[1]:
            causes.append(f"{what}: {texts[0]} then, {texts[1]} now")

    if before["inputs"]["training"]["device"] == "cuda":
        compare("another GPU", "gpus", lambda gpus: ", ".join(gpu["name"] for gpu in gpus) or "none")
        compare("TF32", "tf32", json.dumps)
        compare("another CUDA", "cuda")
        compare("another cuDNN", "cudnn")
        compare("another GPU driver", "driver")
    compare("other CPU kernels", "kernels")
    if changed := sorted({*then["instruction_sets"]} ^ {*now["instruction_sets"]}):
        causes.append(f"another instruction set: {', '.join(changed)} on one of the two processors only")
    compare("another processor", "cpu")
    before, after = then["variables"], now["variables"]
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    names = [name for name in names if not name.startswith(("SLURM_", "CUDA_VISIBLE"))]
    if names:
        others = [f"{name}={before.get(name, '')} then, {after.get(name, '')} now" for name in names]
        causes.append("other environment variables: " + "; ".join(others))
    return causes


def _missing_promises(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    causes = []
    if before["inputs"]["training"]["deterministic"] is False:
        causes.append("deterministic kernels were not asked for (deterministic: false)")
    trainings = [run["circumstances"]["training"] for run in (before, after)]
    if operations := sorted({name for training in trainings for name in training["nondeterministic_operations"]}):
        causes.append(f"operations without a deterministic form: {', '.join(operations)}")
    return causes


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the keys, dotted, in which two configs differ; the deepest that are not within a list."""
    keys: list[str] = []
    for key in dict.fromkeys([*before, *after]):
        then, now = before.get(key), after.get(key)
        if isinstance(then, dict) and isinstance(now, dict):
            keys += [f"{key}.{rest}" for rest in changed_keys(then, now)]
        elif then != now:
            keys.append(str(key))
    return keys


# --- doing it again ---------------------------------------------------------------------------------------------------


def settings_for(run: FinishedRun, source: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings that repeat *run* with the images out of *source* and, if it had one, its own checkpoint."""
    inputs = run.provenance["inputs"]
    settings = copy.deepcopy(dict(inputs["settings"]))
    (experiment,) = settings["experiments"].values()
    settings["dataset"]["source"] = dict(source) if isinstance(source, Mapping) else [dict(entry) for entry in source]
    # `auto` was resolved when config.py was written; here there may be another answer.
    experiment["device"] = inputs["training"]["device"]
    if config_reader.is_file(
        str(experiment.get("base_config"))
    ):  # what it holds now: the config that is made of it is compared
        experiment["base_config"] = str(Path(experiment["base_config"]).expanduser().resolve())
    if "checkpoint" in inputs["files"]:
        experiment["checkpoint"] = {"path": str(KEPT_NAMES / run.file("checkpoint").name)}
    return settings


def lay_out(run: FinishedRun, scratch: Path, archives: Mapping[str, Path] | None) -> Path:
    """Put what *run* started from into *scratch* and return the settings file; no network is needed from here on,
    unless *archives* is None: then they are fetched from where the settings say.

    Parameters
    ----------
    archives : name in the provenance to the file; to a folder where it is read in place.

    Raises
    ------
    UserError : there is no archive, and the settings do not say where to get it.
    """
    sources = []
    for name, original in zip(run.archives, run.sources(), strict=True):
        # ``part``: what ``split`` was called in the settings of earlier runs.
        keys = ("labels", "label", "split", "part")
        known = {key: original[key] for key in keys if original.get(key) is not None}
        if archives is None:
            if original.get("path"):
                raise UserError("the images came from a local file: give the archive with IMAGES=FILE")
            source = original | ({"sha256": run.hashes()[name]} if original.get("url") else {})
        elif archives[name].is_dir():
            source = {"path": str(archives[name].resolve()), "in_place": True, **known}
        else:
            # Its suffix is a part of the layout, whatever the file at hand is called.
            suffix = ".tar" if is_flattened(run, name, archives[name]) else run.file(name).suffix
            target = scratch / "inputs" / run.file(name).with_suffix(suffix).name
            _copy(archives[name], target)
            source = {"path": str(target.relative_to(scratch)), **known}
        sources.append(source)
    _lay_out_labels(run, scratch, sources)
    if "checkpoint" in run.provenance["inputs"]["files"]:
        checkpoint = run.file("checkpoint")
        # The workflow fetches it from there, so that it is opened as tensors only, whoever it came from.
        _copy(checkpoint, scratch / KEPT_NAMES / checkpoint.name)
    path = scratch / "settings.yaml"
    several = isinstance(run.provenance["inputs"]["settings"]["dataset"]["source"], list)
    settings = settings_for(run, sources if several else sources[0])
    _lay_out_corrections(run, scratch, settings["dataset"])
    write_text(path, strict_yaml.dump(settings))
    return path


def _lay_out_labels(run: FinishedRun, scratch: Path, sources: Sequence[dict[str, Any]]) -> None:
    """Put the files of labels that are in no archive into *scratch*, and have *sources* name them there."""
    copies: dict[str, str] = {}
    kept = {Path(name).stem: name for name in run.label_files}
    for index, source in enumerate(sources):
        stem = f"labels_{index}" if len(run.archives) > 1 else "labels"
        for split, named in _label_files(source).items():
            name = kept.get(f"{stem}_{split}" if split else stem)
            if name and named not in copies:
                copies[named] = f"inputs/{run.file(name).name}"
                _copy(run.file(name), scratch / copies[named])
    for source in sources:
        for named in _label_files(source).values():
            # Out of a bundle it could be any file of this machine.
            if named not in copies and (named.startswith(("/", "~")) or ".." in Path(named).parts):
                raise UserError(f"dataset.source.labels: {named!r} is a file elsewhere, of which no copy was kept")
        if isinstance(source.get("labels"), str):
            source["labels"] = copies.get(source["labels"], source["labels"])
        elif source.get("labels"):
            source["labels"] = {split: copies.get(named, named) for split, named in source["labels"].items()}


def _lay_out_corrections(run: FinishedRun, scratch: Path, dataset: dict[str, Any]) -> None:
    """Put the decisions on labels into *scratch*, and have the settings of the data set name them there."""
    if not dataset.get("corrections"):
        return
    if CORRECTIONS not in run.label_files:  # out of a bundle it could be any file of this machine
        named = dataset["corrections"]
        raise UserError(f"dataset.corrections: {named!r} is a file elsewhere, of which no copy was kept")
    dataset["corrections"] = f"inputs/{CORRECTIONS}"
    _copy(run.file(CORRECTIONS), scratch / dataset["corrections"])


def _label_files(source: Mapping[str, Any]) -> dict[str, str]:
    labels = source.get("labels") or {}
    return {"": labels} if isinstance(labels, str) else {split: name for split, name in labels.items() if name}


def find_archives(run: FinishedRun) -> dict[str, Path]:
    """Return the archives of a run; of one that was read in place, the folder.

    Raises
    ------
    UserError : the folder is gone.
    """
    archives = {}
    for name, source in zip(run.archives, run.sources(), strict=True):
        archives[name] = path = run.file(name)
        if source.get("in_place"):
            # Relative to the folder that the workflow ran in.
            archives[name] = path = run.dataset.parents[1] / Path(source["path"]).expanduser()
            if not path.is_dir():
                raise UserError(f"{path}: the images were read there, but the folder is gone: bring it back")
    return archives


def is_flattened(run: FinishedRun, name: str, path: Path) -> bool:
    """Tell whether *path* is the tar of a folder that the run read in place."""
    return run.file(name).suffix == MANIFEST_SUFFIX and path.is_file() and path.suffix == ".tar"


def _copy(path: Path, target: Path) -> None:
    # Not a hard link: Snakemake touches what a job made, and an archive that is newer than its images trains anew.
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def run_workflow(scratch: Path, settings: Path, target: str, profile: Path) -> None:
    """Let Snakemake make *target* in *scratch*; what it says goes to stderr.

    Raises
    ------
    UserError : it failed.
    KeyboardInterrupt : this process was asked to stop; all that it started has ended.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(scratch)]
    command += ["--profile", str(profile.resolve()), "--configfile", str(settings), "--", target]
    # A group of its own, so that whoever stops this process stops all jobs, whose signals Snakemake does not pass on.
    process = subprocess.Popen(command, cwd=scratch, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
    with signals_forwarded(process.pid, signal.SIGINT, once=False) as stopped:
        status = process.wait()
    if stopped:
        raise KeyboardInterrupt
    if status != 0:
        raise UserError(f"the run could not be repeated: the lines above say why; its logs are in {scratch / 'logs'}")


@contextmanager
def scratch_folder(results: Path, purpose: str) -> Iterator[Path]:
    """Yield a new folder below *results*, on the same disk, and remove it afterwards; keep it when the block leaves a
    file ``.keep`` in it, or fails with logs that say why.
    """
    parent = results.resolve() / ".scratch"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{purpose}-", dir=parent))
    failed = False
    try:
        yield folder
    except UserError:
        failed = True
        raise
    finally:
        if not ((folder / ".keep").exists() or (failed and (folder / "logs").is_dir())):
            shutil.rmtree(folder, ignore_errors=True)
            if not any(parent.iterdir()):
                parent.rmdir()


def repeat(
    run: FinishedRun, scratch: Path, archives: Mapping[str, Path] | None, profile: Path = PROFILE
) -> Difference | None:
    """Do *run* again in *scratch* and return the first difference, None when all hashes are equal.

    Nothing is trained when what training starts from differs already.
    """
    folder = scratch / "results" / run.name
    settings = lay_out(run, scratch, archives)
    # A folder that was read in place and now comes as a tar has another hash; its files were compared one by one.
    flattened = {name for name, path in (archives or {}).items() if is_flattened(run, name, path)}
    run_workflow(scratch, settings, f"results/{run.name}/config.py", profile)
    begun = FinishedRun(folder, run.provenance)
    hashes = run.hashes(flattened)
    inputs = {name: hashed for name, hashed in hashes.items() if name in run.provenance["inputs"]["files"]}
    difference = first_difference(inputs, {name: _hash_now(begun.file(name)) for name in inputs})
    if difference:
        now: Mapping[str, Any] = {"inputs": {"code": describe_code(), **describe_software()}}
    else:
        run_workflow(scratch, settings, f"results/{run.name}/provenance.json", profile)
        again = FinishedRun.read(folder)
        now, difference = again.provenance, first_difference(hashes, again.hashes(flattened))
    if difference is None:
        return None
    (scratch / ".keep").touch()
    stage, files = difference
    causes = likely_causes(stage, run.provenance, now)
    if stage == "config":
        keys = changed_keys(read_config(run.file("config.py")), read_config(begun.file("config.py")))
        causes.append(f"what differs in config.py: {', '.join(keys) or 'the first lines'}")
    return Difference(stage, files, causes)


def conclude(run: FinishedRun, difference: Difference | None, scratch: Path | None = None) -> None:
    """Print the outcome, and where the repeated run is kept; end the process with status 1 when something differs."""
    if difference is None:
        logger.info("%s: everything from the splits to the metrics came out the same", run.name)
        say("identical")
        return
    say(str(difference))
    if scratch is not None:
        say(f"the repeated run is kept: {scratch}")
    sys.exit(1)
