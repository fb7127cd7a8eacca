"""Which file lies where: the paths of one configuration below results/ and logs/, with Snakemake's wildcards."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from snakemake.io import WILDCARD_REGEX

from scripts.lib.base.files import read_json
from scripts.lib.data.archives import record_path
from scripts.lib.data.label_files import SUFFIXES
from scripts.lib.data.shards import Shard
from scripts.lib.model import config_reader, timm_models
from scripts.lib.model.model_search import MOST_FINALISTS, finalists_of_rounds
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.settings.dataset import LabelFiles, Source
from scripts.lib.settings.schema import Experiment, Settings

#: Links to files whose paths cannot be inputs of a rule, below the working directory.
LINKS = Path(".snakemake/mimflow-links")


def as_input(path: str) -> str:
    """Return a local file as the input of a rule: *path*, or a link to it.

    Snakemake takes `{x}` in a path for a wildcard, and knows no way to escape it. The link is as old as can be, so that
    the file's own age counts.
    """
    if not WILDCARD_REGEX.search(path):
        return path
    link = LINKS / hashlib.sha256(os.fsencode(path)).hexdigest()
    if not link.is_symlink():
        LINKS.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.abspath(path))
        os.utime(link, (0, 0), follow_symlinks=False)
    return str(link)


class Layout:
    """The files of one configuration.

    ``run``, ``pixel_cache`` and ``checkpoint`` are patterns: they hold the wildcards {experiment} and {seed},
    {short_side} and {checkpoint}; ``checks`` and ``decoded`` hold {shard}. With folds, all that belongs to one run or
    to one division of the images holds {fold} too. A method that takes ``wildcards`` is an input function of Snakemake.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        name = settings.dataset.name
        self.dataset = f"results/{name}"
        self.images = f"{self.dataset}/images"
        self.report = f"{self.dataset}/report.html"
        self.try_page = f"{self.dataset}/try.html"
        self.snakemake_report = f"{self.dataset}/snakemake_report.html"
        self.sources = settings.dataset.sources()
        #: One for each of ``sources``.
        self.archives = [
            f"{self.dataset}/{source.archive_name(self._stem('archive', index))}"
            for index, source in enumerate(self.sources)
        ]
        #: The files of labels that are in no archive: as the settings name them, and the copies of them.
        self.label_files = self._find_label_files()
        self.folds = settings.dataset.split.folds
        fold = "/fold{fold}" if self.folds else ""
        self.splits_folder = f"{self.dataset}/splits{fold}"
        self.train, self.val, self.test = (f"{self.splits_folder}/{split}.txt" for split in ("train", "val", "test"))
        self.run = RunFolder(Path(f"{self.dataset}/{{experiment}}/seed{{seed}}{fold}"))
        #: What messages and titles call a run.
        self.title = "{wildcards.experiment}, seed {wildcards.seed}" + (", fold {wildcards.fold}" if fold else "")
        self.pixel_cache = f"{self.dataset}/packed/{{short_side}}"
        #: Of one shard: what is known of each image, and its pixel cache.
        self.checks, self.decoded = f"{self.dataset}/audit_{{shard}}.bin", f"{self.pixel_cache}_{{shard}}"
        self.shards = f"{self.dataset}/shards.json"
        self.checks_cache = f"{self.dataset}/audit_{{shard}}.cache"
        self.checkpoint = "results/checkpoints/{checkpoint}.pth"
        self.logs = f"logs/{name}"
        self.run_logs = f"{self.logs}/{{experiment}}/seed{{seed}}{fold}"
        self.experiments = list(settings.experiments)
        self.seeds = settings.seeds
        #: What each experiment with `base_config: auto` tries.
        self.searches = {
            name: experiment.candidate_experiments()
            for name, experiment in settings.experiments.items()
            if experiment.is_auto
        }
        self.search = f"{self.dataset}/{{experiment}}/search"
        self.search_logs = f"{self.logs}/{{experiment}}/search"
        self.candidate = f"{self.search}/{{candidate}}"
        self.choice = f"{self.search}/choice.json"
        self.search_page = f"{self.search}/search.html"
        self.finalist = RunFolder(Path(f"{self.search}/round{{round}}/{{slot}}"))

    def in_shards(self, pattern: str, checkpoints: Any) -> Callable[[Any], list[str]]:
        """Return an input function with *pattern* for each shard of the data stage; nothing where it is not divided.

        Parameters
        ----------
        checkpoints : Snakemake's: with `data_shards: auto`, count_images decides.
        """

        def shards(wildcards: Any) -> list[str]:
            count = self.settings.data_shards
            if count == "auto":
                count = read_json(Path(str(checkpoints.count_images.get().output)))["shards"]
            numbers = range(1, count + 1) if count > 1 else ()
            return [pattern.format(shard=Shard(number, count), **dict(wildcards.items())) for number in numbers]

        return shards

    # -- all runs and all folds ---------------------------------------------------------------------------------------

    def exported(self) -> list[str]:
        """Return the experiments whose runs have a model.onnx."""
        return [name for name in self.experiments if self.settings.experiments[name].export]

    def runs(self, *patterns: Path | str, experiments: Sequence[str] | None = None) -> list[str]:
        """Return each of *patterns*, paths with the wildcards of a run, for every run (of some *experiments*)."""
        chosen = self.experiments if experiments is None else experiments
        names = list(product(chosen, self.seeds, self._fold_numbers()))
        return [
            str(pattern).format(experiment=name, seed=seed, fold=fold)
            for pattern in patterns
            for name, seed, fold in names
        ]

    def each(self, pattern: Path | str) -> Callable[[Any], list[str]]:
        """Return an input function with *pattern* for every run.

        Of a list that a rule names, Snakemake hashes all files once for each of them: seconds for hundreds of runs.
        """
        files = self.runs(pattern)
        return lambda _wildcards: files

    def splits(self, split: str) -> list[str]:
        """Return the annotation files of one *split* (train, val or test): one, or one a fold."""
        return [f"{self.splits_folder}/{split}.txt".format(fold=fold) for fold in self._fold_numbers()]

    def _fold_numbers(self) -> Sequence[int]:
        return range(self.folds or 1)

    def targets(self) -> list[str]:
        """Return what a complete run of the workflow leaves."""
        return [*self.results(), self.report]

    def results(self, _wildcards: Any = None) -> list[str]:
        """Return the same without the report, which shows it: of each job that makes something of it, one file."""
        return [
            f"{self.dataset}/leaderboard.csv",
            f"{self.dataset}/audit.html",
            f"{self.dataset}/ro-crate-metadata.json",
            *self.runs(self.run.provenance),
            *self.run_results(),
            *(self.search_page.format(experiment=name) for name in self.searches),
            *self.suspects_of_data("html"),
            *([self.try_page] if self.exported() else []),
        ]

    def run_results(self, _wildcards: Any = None) -> list[str]:
        """Return those files of the runs that people look at and that no rule reads."""
        figures = ("confusion_matrix.svg", "training_curves.svg", "embedding.html", "gradcam.html")
        return self.runs(*(self.run.figures / name for name in figures), self.run.model_card)

    # -- what is fetched ----------------------------------------------------------------------------------------------

    def _stem(self, stem: str, index: int) -> str:
        return stem if len(self.sources) == 1 else f"{stem}_{index}"

    def _find_label_files(self) -> dict[str, str]:
        files: dict[str, str] = {}
        for index, labels in enumerate(source.labels for source in self.sources):
            by_split = labels.model_dump(exclude_none=True) if isinstance(labels, LabelFiles) else {"": labels}
            for split, name in by_split.items():
                if name and Path(name).expanduser().is_file():
                    suffix = Path(name).suffix.lower()
                    stem = self._stem("labels", index) + (f"_{split}" if split else "")
                    files.setdefault(name, f"{self.dataset}/{stem}{suffix if suffix in SUFFIXES else '.csv'}")
        return files

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

    def downloads(self) -> list[str]:
        """Return the files that need the network: those of the data set and the weights that runs start from.

        A run that starts from another one waits for its training, which needs none.
        """
        is_run = {experiment.checkpoint_name(): bool((experiment.checkpoint_request() or {}).get("run"))
                  for experiment in self._all_experiments()}  # fmt: skip
        names = [name for name in is_run if not is_run[name]]
        return [*self.all_fetched(), *(self.checkpoint.format(checkpoint=name) for name in names if name)]

    @property
    def uses_timm(self) -> bool:
        """Whether a model of timm may be built."""
        return any(experiment.base_config.startswith(timm_models.PREFIX) for experiment in self._all_experiments())

    def fetched_names(self) -> list[str]:
        """Return the names of the same files."""
        return [os.path.basename(path) for path in self.all_fetched()]

    def record_of(self, wildcards: Any) -> str:
        """Return where fetch_archive records the sha256 of a file."""
        return record_path(self._fetched_path(wildcards))

    def records(self) -> list[str]:
        """Return the records of all files that the data set is made of."""
        return [record_path(path) for path in self.all_fetched()]

    def archive_records(self) -> list[str]:
        """Return the records of the archives, in their order."""
        return [record_path(path) for path in self.archives]

    def _fetched_path(self, wildcards: Any) -> str:
        return self.fetched.format(fetched=getattr(wildcards, "fetched", ""))

    def source_of(self, wildcards: Any) -> Source | str:
        """Return the source of a fetched file, or the file that it is a copy of."""
        path = self._fetched_path(wildcards)
        if path in self.archives:
            return self.sources[self.archives.index(path)]
        return next(name for name, copy in self.label_files.items() if copy == path)

    def local_source(self, wildcards: Any) -> list[str]:
        """Return the local file that is fetched, so that a newer one is fetched anew; a folder is not."""
        source = self.source_of(wildcards)
        path = source if isinstance(source, str) else source.path
        expanded = str(Path(path).expanduser()) if path else ""
        return [as_input(expanded)] if os.path.isfile(expanded) else []

    def corrections(self, _wildcards: Any = None) -> list[str]:
        """Return the user's file of decisions on labels; none where there is none."""
        path = self.settings.dataset.corrections
        return [as_input(str(Path(path).expanduser()))] if path else []

    def first_user_of(self, wildcards: Any) -> Experiment:
        """Return the first of the experiments, and of the candidates, that share a checkpoint."""
        experiments = self._all_experiments()
        users = (user for user in experiments if user.checkpoint_name() == wildcards.checkpoint)
        return next(users)

    def can_do_without(self, wildcards: Any) -> bool:
        """Tell whether only candidates want a checkpoint: what cannot be had is then left out."""
        experiments = self.settings.experiments.values()
        return all(experiment.checkpoint_name() != wildcards.checkpoint for experiment in experiments)

    def _all_experiments(self) -> Iterator[Experiment]:
        yield from self.settings.experiments.values()
        yield from self.all_candidates()

    def all_candidates(self) -> Iterator[Experiment]:
        """Yield the candidates of all searches."""
        for candidates in self.searches.values():
            yield from candidates.values()

    def local_checkpoint(self, wildcards: Any) -> list[str]:
        """Return the local file that a checkpoint comes from, so that a newer one is read anew: given, or of a run."""
        request = self.first_user_of(wildcards).checkpoint_request() or {}
        if run := request.get("run"):
            return [str(RunFolder(Path(run)).best)]
        path = request.get("path")
        return [as_input(str(Path(path).expanduser()))] if path else []

    # -- what one run reads -------------------------------------------------------------------------------------------

    def _experiment(self, wildcards: Any) -> Experiment:
        return self.settings.experiments[wildcards.experiment]

    def base_files_of(self, wildcards: Any) -> list[str]:
        """Return the config files of the user's that a run's base config is made of; none where it is a name."""
        base_config = self._experiment(wildcards).base_config
        if not config_reader.is_file(base_config):
            return []
        return [as_input(str(path)) for path in config_reader.files(base_config)]

    def _run_of(self, wildcards: Any) -> RunFolder:
        names = {"experiment": wildcards.experiment, "seed": wildcards.seed}
        fold = {"fold": wildcards.fold} if self.folds else {}
        return RunFolder(Path(str(self.run.path).format(**names, **fold)))

    def checkpoint_of(self, wildcards: Any) -> list[str]:
        """Return the weights that a run starts from; none when it trains from scratch."""
        if wildcards.experiment in self.searches:
            return [f"{self.search}/weights.pth".format(experiment=wildcards.experiment)]
        return self._checkpoints_of([self._experiment(wildcards)])

    def _checkpoints_of(self, experiments: Iterable[Experiment]) -> list[str]:
        names = [experiment.checkpoint_name() for experiment in experiments]
        return [self.checkpoint.format(checkpoint=name) for name in names if name]

    def pixel_cache_of(self, wildcards: Any) -> list[str]:
        """Return the pixel cache that a run trains on; none where it reads the files.

        Of `base_config: auto` those of all candidates, since the sizes of their images differ.
        """
        candidates = self.searches.get(wildcards.experiment)
        return self._pixel_caches_of(candidates.values() if candidates else [self._experiment(wildcards)])

    def _pixel_caches_of(self, experiments: Iterable[Experiment]) -> list[str]:
        short_sides = dict.fromkeys(experiment.cached_short_side() for experiment in experiments)
        return [self.pixel_cache.format(short_side=pixels) for pixels in short_sides if pixels]

    def start_of(self, wildcards: Any) -> list[str]:
        """Return the weights that training itself starts from: with a fitted head, or those of checkpoint_of."""
        if self._experiment(wildcards).chosen_recipe() == "fast":
            return [str(self._run_of(wildcards).init)]
        return self.checkpoint_of(wildcards)

    # -- labels that may be wrong -------------------------------------------------------------------------------------

    @property
    def label_judge(self) -> tuple[str, Experiment] | None:
        """The experiment, by its name, whose frozen backbone judges the labels; None: all start from random weights.

        The first one with pretrained weights; of `base_config: auto` its first candidate. Not one that starts from
        another run, which may have learnt these labels by heart.
        """
        named = list(self.settings.experiments.items())
        named += [(name, candidate) for name, tried in self.searches.items() for candidate in tried.values()]
        for name, experiment in named:
            if (request := experiment.checkpoint_request()) and not request.get("run"):
                return name, experiment
        return None

    def suspects_of_data(self, suffix: str) -> list[str]:
        """Return a file of find_label_suspects or of its page, by its suffix; none where no experiment can judge."""
        return [f"{self.dataset}/label_suspects.{suffix}"] if self.label_judge else []

    def judge_checkpoint(self, _wildcards: Any = None) -> list[str]:
        """Return the pretrained weights of the experiment that judges the labels."""
        return self._checkpoints_of([self.label_judge[1]] if self.label_judge else [])

    def judge_pixel_cache(self, _wildcards: Any = None) -> list[str]:
        """Return the pixel cache of the same; none where its training reads the files."""
        return self._pixel_caches_of([self.label_judge[1]] if self.label_judge else [])

    def export_of(self, wildcards: Any) -> list[str]:
        """Return what is known of a run's model.onnx; none where the user wants none."""
        return [str(self._run_of(wildcards).export)] if self._experiment(wildcards).export else []

    # -- the search of `base_config: auto` ----------------------------------------------------------------------------

    def candidate_names(self) -> list[str]:
        """Return the folders of all candidates, each once."""
        return list(dict.fromkeys(name for candidates in self.searches.values() for name in candidates))

    def candidate_of(self, wildcards: Any) -> Experiment:
        """Return the experiment that a candidate is."""
        return self.searches[wildcards.experiment][wildcards.candidate]

    def candidate_checkpoint(self, wildcards: Any) -> list[str]:
        """Return the pretrained weights of a candidate."""
        return self._checkpoints_of([self.candidate_of(wildcards)])

    def candidate_pixel_cache(self, wildcards: Any) -> list[str]:
        """Return the pixel cache of a candidate's size of image."""
        return self._pixel_caches_of([self.candidate_of(wildcards)])

    def candidate_checkpoints(self, wildcards: Any) -> list[str]:
        """Return the pretrained weights of all candidates of an experiment, in their order."""
        return self._checkpoints_of(self.searches[wildcards.experiment].values())

    def probes(self, wildcards: Any) -> list[str]:
        """Return what the probes of an experiment's candidates found, in the same order."""
        names = self.searches[wildcards.experiment]
        probe = f"{self.candidate}/probe.json"
        return [probe.format(experiment=wildcards.experiment, candidate=name) for name in names]

    def starts_of_round(self, file: str) -> list[str]:
        """Return one *file* of each slot of a round, with the wildcards of both."""
        return [str(self.finalist.path / file).replace("{slot}", str(slot)) for slot in range(MOST_FINALISTS)]

    def slots(self, wildcards: Any) -> int:
        """Return how many models a round trains."""
        return finalists_of_rounds(len(self.searches[wildcards.experiment]))[int(wildcards.round) - 1]

    def seed_of_round(self, wildcards: Any) -> int:
        """Return the seed of a round: another in each, which shows the images in another order than the one before."""
        return self.seeds[0] + int(wildcards.round) - 1

    def rounds(self, wildcards: Any) -> list[str]:
        """Return who is in each round: of those before *round*, where the wildcards name one."""
        return [f"{self.search}/round{number}.json".format(experiment=wildcards.experiment)
                for number in self._round_numbers(wildcards)]  # fmt: skip

    def finalist_logs(self, wildcards: Any) -> list[str]:
        """Return the tables of epochs of all that the same rounds trained."""
        return self._of_finalists(self.finalist.train_log, wildcards)

    def finalist_weights(self, wildcards: Any) -> list[str]:
        """Return the best weights of all that the same rounds trained."""
        return self._of_finalists(self.finalist.best, wildcards)

    def _of_finalists(self, file: Any, wildcards: Any) -> list[str]:
        counts = finalists_of_rounds(len(self.searches[wildcards.experiment]))
        return [
            str(file).format(experiment=wildcards.experiment, round=number, slot=slot)
            for number in self._round_numbers(wildcards)
            for slot in range(counts[number - 1])
        ]

    def _round_numbers(self, wildcards: Any) -> range:
        count = len(finalists_of_rounds(len(self.searches[wildcards.experiment])))
        return range(1, int(getattr(wildcards, "round", count + 1)))

    def choice_of(self, wildcards: Any) -> list[str]:
        """Return the choice that a run with `base_config: auto` trains; none for another."""
        return [self.choice.format(experiment=wildcards.experiment)] if wildcards.experiment in self.searches else []
