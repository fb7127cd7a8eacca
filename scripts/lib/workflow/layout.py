"""Which file lies where, and what each rule is told: the questions that the Snakefile asks of the settings."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from scripts.lib.data.folders import walk_files
from scripts.lib.data.label_files import SUFFIXES
from scripts.lib.settings.dataset import LabelFiles, Source
from scripts.lib.settings.schema import Experiment, Settings, Site
from scripts.lib.workflow.report_menu import label

#: Of a run's files, those that nothing else is made of, and that people look at.
RUN_RESULTS = (
    "figures/confusion_matrix.svg",
    "figures/training_curves.svg",
    "figures/embedding.html",
    "figures/gradcam.html",
    "model_card.md",
)


def record_path(path: str) -> str:
    """Return where the sha256 of a fetched file is recorded: beside it, so that `sha256sum -c` checks it."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.partition('.')[0]}.sha256"


class Layout:
    """The files of one configuration below results/.

    ``run``, ``packed`` and ``checkpoint`` are Snakemake patterns: they hold the wildcards {experiment} and {seed},
    {edge} and {checkpoint}. With folds, all that is of one run or of one split holds {fold} too.
    """

    def __init__(self, settings: Settings, site: Site | None = None) -> None:
        self.settings = settings
        self.site = site or Site()
        name = settings.dataset.name
        self.dataset = f"results/{name}"
        self.sources = settings.dataset.sources()
        stems = ["archive"] if len(self.sources) == 1 else [f"archive_{place}" for place in range(len(self.sources))]
        #: One for each of ``sources``.
        self.archives = [
            f"{self.dataset}/{source.archive_name(stem)}" for source, stem in zip(self.sources, stems, strict=True)
        ]
        #: The files of labels that are in no archive, as the settings name them, to the copies of them.
        self.label_files = self._find_label_files()
        self.folds = settings.dataset.split.folds
        fold = "/fold{fold}" if self.folds else ""
        self.split = f"{self.dataset}/splits{fold}"
        self.train, self.val, self.test = (f"{self.split}/{side}.txt" for side in ("train", "val", "test"))
        self.run = f"{self.dataset}/{{experiment}}/seed{{seed}}{fold}"
        # What messages and titles call a run.
        self.title = "{wildcards.experiment}, seed {wildcards.seed}" + (", fold {wildcards.fold}" if fold else "")
        self.fold_option = "--fold {fold}" if fold else ""
        # One cluster job for the data and one for each run. Snakemake merges groups that touch, so that a group's name
        # must carry what keeps it apart.
        self.data_group = f"data_{name}"
        self.run_group = f"run_{name}_{{experiment}}_{{seed}}" + ("_fold{fold}" if fold else "")
        self.packed = f"{self.dataset}/packed/{{edge}}"
        self.checkpoint = "results/checkpoints/{checkpoint}.pth"
        self.logs = f"logs/{name}"
        self.run_logs = f"{self.logs}/{{experiment}}/seed{{seed}}{fold}"
        self.experiments = list(settings.experiments)
        self.seeds = settings.seeds

    def runs(self, pattern: str = "") -> list[str]:
        """Return *pattern* below the folder of every run, or the folders themselves."""
        runs = product(self.experiments, self.seeds, self._fold_numbers())
        folders = (self.run.format(experiment=name, seed=seed, fold=fold) for name, seed, fold in runs)
        return [f"{folder}/{pattern}" if pattern else folder for folder in folders]

    def splits(self, side: str) -> list[str]:
        """Return the annotation files of one *side* (train, val or test): one, or one a fold."""
        return [f"{self.split}/{side}.txt".format(fold=fold) for fold in self._fold_numbers()]

    def _fold_numbers(self) -> Sequence[int]:
        return range(self.folds or 1)

    def _run_of(self, wildcards: Any) -> str:
        names = {"experiment": wildcards.experiment, "seed": wildcards.seed}
        return self.run.format(**names, fold=wildcards.fold) if self.folds else self.run.format(**names)

    def targets(self) -> list[str]:
        """Return what a complete run of the workflow leaves."""
        return [
            f"{self.dataset}/leaderboard.csv",
            f"{self.dataset}/audit.html",
            f"{self.dataset}/ro-crate-metadata.json",
            *self.runs("provenance.json"),
            *self.run_results(),
        ]

    def run_results(self) -> list[str]:
        """Return what each run leaves for people."""
        return [file for name in RUN_RESULTS for file in self.runs(name)]

    def caption(self, name: str) -> str:
        """Return the text of the report called *name*."""
        return f"scripts/report/captions/{self.settings.report.language}/{name}.rst"

    def shown(self, caption: str, what: str, category: str = "Runs") -> dict[str, Any]:
        """Return how the report shows a file, for Snakemake's report(): its caption and its place in the menu.

        Parameters
        ----------
        caption : name of its text.
        what : the file in a few words, as labels.py has them.
        """
        language = self.settings.report.language
        words = {label("what", language): label(what, language)}
        shown: dict[str, Any] = {
            "caption": self.caption(caption),
            "category": label(category, language),
        }
        if category == "Runs":
            run = {label("seed", language): "{seed}"}
            run |= {label("fold", language): "{fold}"} if self.folds else {}
            return shown | {"subcategory": "{experiment}", "labels": {**run, **words}}
        return shown | {"labels": words}

    def experiment(self, wildcards: Any) -> Experiment:
        """Return the settings of a rule's experiment; `device: auto` is what the site says, if it does."""
        experiment = self.settings.experiments[wildcards.experiment]
        if experiment.device == "auto" and self.site.device != "auto":
            return experiment.model_copy(update={"device": self.site.device})
        return experiment

    def _find_label_files(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for place, source in enumerate(self.sources):
            stem = "labels" if len(self.sources) == 1 else f"labels_{place}"
            labels = source.labels
            named = labels.model_dump(exclude_none=True) if isinstance(labels, LabelFiles) else {"": labels}
            for part, name in named.items():
                if name and Path(name).expanduser().is_file():
                    suffix = found_suffix if (found_suffix := Path(name).suffix.lower()) in SUFFIXES else ".csv"
                    found.setdefault(name, f"{self.dataset}/{stem}{'_' * bool(part)}{part}{suffix}")
        return found

    @property
    def fetched(self) -> str:
        """What fetch_archive makes: the archive; where a data set has several files, the pattern of them all."""
        return self.archives[0] if len(self.all_fetched()) == 1 else f"{self.dataset}/{{fetched}}"

    @property
    def fetch_log(self) -> str:
        """The log of fetch_archive."""
        return f"{self.logs}/fetch_{'archive' if len(self.all_fetched()) == 1 else '{fetched}'}.log"

    def all_fetched(self) -> list[str]:
        """Return the files that the data set is made of: the archives, and labels that are in none of them."""
        return [*self.archives, *self.label_files.values()]

    def fetched_names(self) -> list[str]:
        """Return the names of the same files."""
        return [os.path.basename(path) for path in self.all_fetched()]

    def record_of(self, wildcards: Any) -> str:
        """Return where fetch_archive records the sha256 of a file."""
        return record_path(self._wanted(wildcards))

    def records(self) -> list[str]:
        """Return the records of all files that the data set is made of."""
        return [record_path(path) for path in self.all_fetched()]

    def archive_records(self) -> list[str]:
        """Return the records of the archives, in their order."""
        return [record_path(path) for path in self.archives]

    def _wanted(self, wildcards: Any) -> str:
        return self.fetched.format(fetched=getattr(wildcards, "fetched", ""))

    def _source_of(self, wildcards: Any) -> Source | str:
        """Return the source of a fetched file, or the file that it is a copy of."""
        wanted = self._wanted(wildcards)
        if wanted in self.archives:
            return self.sources[self.archives.index(wanted)]
        return next(name for name, path in self.label_files.items() if path == wanted)

    def local_source(self, wildcards: Any) -> list[str]:
        """Return the local file that is fetched, so that a newer one is fetched anew; a folder is not."""
        source = self._source_of(wildcards)
        path = source if isinstance(source, str) else source.path
        expanded = str(Path(path).expanduser()) if path else ""
        return [expanded] if os.path.isfile(expanded) else []

    def folder_state(self, wildcards: Any) -> str:
        """Return a fingerprint of a source folder: as a parameter of fetch_archive it has a changed one packed anew.

        Names, sizes and times only: it is taken at each start of Snakemake.
        """
        source = self._source_of(wildcards)
        if isinstance(source, str) or not source.path or not Path(source.path).expanduser().is_dir():
            return ""
        path = Path(source.path).expanduser()
        digest = hashlib.sha256()
        if source.in_place:  # what links lead to is read at each run, so that it counts, not the links
            for file in walk_files(path, Counter()):
                status = file.stat()
                digest.update(os.fsencode(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n"))
            return digest.hexdigest()
        for folder, folders, files in os.walk(path):
            folders.sort()
            for name in sorted(files):
                found = os.lstat(os.path.join(folder, name))
                entry = f"{os.path.relpath(folder, path)}/{name}\0{found.st_size}\0{found.st_mtime_ns}\n"
                digest.update(os.fsencode(entry))
        return digest.hexdigest()

    def source_json(self, wildcards: Any) -> str:
        """Return a ``source`` section for fetch_archive, without what only unpack_archive must know."""
        source = self._source_of(wildcards)
        if isinstance(source, str):
            return json.dumps({"file": source}, ensure_ascii=False)
        later = {"labels", "label", "split"}
        return source.model_dump_json(exclude_none=True, exclude_defaults=True, exclude=later)

    def sources_option(self) -> str:
        """Return what unpack_archive is told of each archive as an option for a shell line; "": nothing."""
        known = [self._known_of(source) for source in self.sources]
        return f"--sources {shlex.quote(json.dumps(known, ensure_ascii=False))}" if any(known) else ""

    def _known_of(self, source: Source) -> dict[str, Any]:
        known = source.model_dump(include={"labels", "label", "split"}, exclude_none=True)
        if kept := {name: self.label_files[name] for name in source.label_files() if name in self.label_files}:
            known["kept"] = kept
        if source.in_place:
            known["folder"] = source.path
        return known

    def labels_option(self) -> str:
        """Return the files of labels that are in no archive as an option for a shell line."""
        return " ".join(["--labels", *map(shlex.quote, self.label_files.values())]) if self.label_files else ""

    def checkpoint_json(self, wildcards: Any) -> str:
        """Return the checkpoint setting for fetch_checkpoint; equal for all experiments that share the file."""
        return json.dumps(self._sharing(wildcards.checkpoint).checkpoint_request(), sort_keys=True)

    def checkpoint_base(self, wildcards: Any) -> str:
        """Return the base config that decides what the ``zoo`` checkpoint is."""
        return self._sharing(wildcards.checkpoint).base_config

    def local_checkpoint(self, wildcards: Any) -> list[str]:
        """Return the local file that a checkpoint comes from, so that a newer one is read anew."""
        path = (self._sharing(wildcards.checkpoint).checkpoint_request() or {}).get("path")
        return [str(Path(path).expanduser())] if path else []

    def _sharing(self, checkpoint: str) -> Experiment:
        return next(e for e in self.settings.experiments.values() if e.checkpoint_name() == checkpoint)

    def checkpoint_of(self, wildcards: Any) -> list[str]:
        """Return the weights that a run starts from; none when it trains from scratch."""
        name = self.experiment(wildcards).checkpoint_name()
        return [self.checkpoint.format(checkpoint=name)] if name else []

    def pack_of(self, wildcards: Any) -> list[str]:
        """Return the folder of packed images that a run trains on; none where it reads the files."""
        edge = self.experiment(wildcards).packed_edge()
        return [self.packed.format(edge=edge)] if edge else []

    def packed_option(self, wildcards: Any) -> str:
        """Return the same as an option for a shell line."""
        return "".join(f"--packed {shlex.quote(path)}" for path in self.pack_of(wildcards))

    def start_of(self, wildcards: Any) -> list[str]:
        """Return the weights that training itself starts from: a warm start's, or those of checkpoint_of."""
        if self.experiment(wildcards).chosen_recipe() == "fast":
            return [f"{self._run_of(wildcards)}/init.pth"]
        return self.checkpoint_of(wildcards)

    def export_of(self, wildcards: Any) -> list[str]:
        """Return what is known of a run's model.onnx; none where the user wants none."""
        return [f"{self._run_of(wildcards)}/export.json"] if self.experiment(wildcards).export else []

    def export_option(self, wildcards: Any) -> str:
        """Return the same as an option for a shell line."""
        return "".join(f"--export {shlex.quote(path)}" for path in self.export_of(wildcards))

    def checkpoint_option(self, wildcards: Any) -> str:
        """Return the same as an option for a shell line."""
        return "".join(f"--checkpoint {shlex.quote(path)}" for path in self.checkpoint_of(wildcards))

    def classes_option(self) -> str:
        """Return the user's choice and order of classes as an option for a shell line."""
        classes = self.settings.dataset.classes
        return f"--classes {shlex.quote(json.dumps(classes, ensure_ascii=False))}" if classes else ""

    def group_by_option(self) -> str:
        """Return the pattern of known groups as an option for a shell line."""
        pattern = self.settings.dataset.split.group_by
        return f"--group-by={shlex.quote(pattern)}" if pattern else ""

    def folds_option(self) -> str:
        """Return the number of folds as an option for a shell line."""
        return f"--folds {self.folds}" if self.folds else ""

    def data_threads(self, workflow: Any) -> int:
        """Return how many images are decoded at a time: as cores are given here; on a cluster each is waited for."""
        cores = workflow.resource_settings.cores
        return cores if cores and not workflow.non_local_exec else 2

    def price_option(self) -> str:
        """Return the site's price of a card as options for a shell line."""
        if self.site.price_per_gpu_hour is None:
            return ""
        return f"--price {self.site.price_per_gpu_hour} --currency {shlex.quote(self.site.currency)}"

    def licence_option(self) -> str:
        """Return the licence of the images as an option for a shell line."""
        licence = self.settings.dataset.license
        return f"--licence {shlex.quote(licence)}" if licence else ""

    def experiment_json(self, wildcards: Any) -> str:
        """Return the settings of an experiment for patch_config."""
        return self.experiment(wildcards).model_dump_json(exclude_defaults=True)

    def run_json(self, wildcards: Any) -> str:
        """Return the part of the settings that is one run's, for its provenance: as a whole configuration.

        With folds it names their number; which of them the run is, its folder says, as a target that Snakemake makes.
        """
        experiment = json.loads(self.experiment_json(wildcards))
        dataset = self.settings.dataset.model_dump(mode="json", exclude_none=True)
        run = {"dataset": dataset, "experiments": {wildcards.experiment: experiment}, "seeds": [int(wildcards.seed)]}
        return json.dumps(run, ensure_ascii=False)

    def gpus(self, wildcards: Any) -> int:
        """Return the cards that a job of this experiment asks for."""
        device = self.experiment(wildcards).device
        on_cpu = device == "cpu" or (device == "auto" and not any(Path("/dev").glob("nvidia[0-9]*")))
        return self.data_gpus() if on_cpu else self.experiment(wildcards).gpus

    def data_gpus(self, _wildcards: Any = None) -> int:
        """Return the cards that a job without any use for one asks for."""
        return 0 if self.site.cpu_jobs else 1
