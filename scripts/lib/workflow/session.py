"""What happens around one start of Snakemake: settings read, the folder taken, the report made, errors repeated."""

from __future__ import annotations

import argparse
import atexit
import os
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from snakemake.settings.enums import Quietness
from snakemake.shell import shell
from snakemake.utils import update_config
from snakemake_interface_executor_plugins.settings import ExecMode

from scripts.lib.base import interrupts, language, strict_yaml
from scripts.lib.base.command_language import language_of_shell
from scripts.lib.base.console import EXIT_INTERRUPTED, describe_write_error
from scripts.lib.base.disks import check_folders, share_with_group
from scripts.lib.base.environment import ROOT, Variable, job_environment
from scripts.lib.base.language import tr_line
from scripts.lib.base.outcome import SUFFIX, Ending, Outcome, is_recent, outcome_path
from scripts.lib.base.problems import STOPPED, UserError
from scripts.lib.cluster import nodes, slurm
from scripts.lib.cluster.gpus import Gpus
from scripts.lib.settings.load import file_names, load_settings, read_file
from scripts.lib.settings.site import check_profiles, enter_site, executor_of, module_prefix
from scripts.lib.workflow import dry_run, fork_server, missing_weights, module, planning, records
from scripts.lib.workflow.controller import Controller, clear_the_way, unlock, will_run
from scripts.lib.workflow.failures import causes
from scripts.lib.workflow.last_plan import LEFT, LastPlan, facts_of, is_plain, named_files
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.machine_check import built_torch, device_problem, look_at_gpus, unused_gpu
from scripts.lib.workflow.narrator import Narrator
from scripts.lib.workflow.options import Options, RuleOptions, to_json
from scripts.lib.workflow.profile_check import check_path
from scripts.lib.workflow.reasons import why
from scripts.lib.workflow.renewal import Told, edited_images, is_edited, matters
from scripts.lib.workflow.report_menu import ReportMenu
from scripts.lib.workflow.resources import Resources, check_devices, idle_gpus, missing_gpu, with_device_of
from scripts.lib.workflow.surroundings_check import checkout_problems

#: The rules that compute on the device of the experiment, and fail where torch cannot use it.
USES_GPU = frozenset({"probe_candidate", "train_finalist", "patch_config", "fit_head", "train_model", "predict_images"})
#: Options by which only a part of the workflow is asked for; Snakemake itself knows them after the Snakefile only.
PARTIAL = frozenset({"--until", "-U", "--omit-from", "-O", "--"})


class Session:
    """One start of Snakemake on a checked configuration.

    Parameters
    ----------
    workflow : Snakemake's, which knows the configuration files.
    config : what Snakemake read; used where this Snakefile is a module, whose user gives it.
    """

    def __init__(self, workflow: Any, config: dict[str, Any]) -> None:
        self.started = time.time()
        files, self.is_module = workflow.configfiles, module.is_module(workflow)
        self.narrator: Narrator | None = None
        self.forks: fork_server.Forks | None = None
        self.errors: list[str] = []
        self.causes: list[str] = []  # of failed jobs that could not say it themselves
        self.has_failed = False
        self.interrupts = 0
        self.workflow = workflow
        self.last_plan: LastPlan | None = None
        self.note = ""  # of a plan that need not be made again
        shell_variables = dict(os.environ)
        use_this_python()
        share_with_group(Path.cwd())
        # Also where Snakemake was started by hand, or by Slurm on a node: its jobs inherit this.
        known = job_environment(os.environ)
        for name in os.environ.keys() - known.keys():
            del os.environ[name]
        os.environ.update(known)
        os.environ[Variable.CONFIG_FILES] = file_names(files)
        try:
            module.check(workflow)
            check_encoding(sys.getfilesystemencoding())
            if workflow.is_main_process:
                check_options(sys.argv[1:])
            check_profiles(sys.argv[1:], os.environ)
            arguments = workflow.config_settings.config_args or ()
            self.config = config if self.is_module else read_configuration(files, arguments)
            # Whoever started it reads the lines of the main process; those of its jobs are logs.
            of_shell = language_of_shell(shell_variables) if workflow.is_main_process else "en"
            language.speak(language.language_of(self.config) or of_shell)
            settings = load_settings(self.config, files)
            self.site = enter_site(sys.argv[1:], os.environ)
        except UserError as error:
            self._exit(str(error))
        settings = with_device_of(self.site, settings)
        self.layout = Layout(settings)
        self.options = RuleOptions(Options(settings, self.site, self.layout))
        self.resources = Resources(settings, self.site, self.layout)
        self.menu = ReportMenu(settings)
        is_real = will_run(sys.argv[1:], workflow.output_settings.dryrun)
        if not self.is_module:
            planning.hasten()
        records.keep(workflow, Told(Path(self.layout.images), is_real), partial(matters, self.layout))

    def narrate(self, workflow: Any) -> None:
        """Say what happens in the user's words, unless Snakemake's own are asked for (--printshellcmds, --verbose).

        Not in a workflow that uses this one as a module: what its other rules do is told in Snakemake's words.
        """
        output = workflow.output_settings
        if self.is_module or not workflow.is_main_process:
            return
        handlers = workflow.logger_manager.logger.handlers
        default = next((handler for handler in handlers if handler.name == "DefaultStreamHandler"), None)
        quiet = {Quietness.ALL, *([Quietness.RULES, Quietness.PROGRESS] if output.dryrun else [])}
        if output.printshellcmds or output.verbose or output.debug_dag or quiet.intersection(output.quiet or ()):
            default = None
        if output.dryrun and default:
            dry_run.summarize(workflow, default, language.language())
        if not will_run(sys.argv[1:], output.dryrun):
            return
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as of a job in the background
            signal.signal(signal.SIGINT, self._interrupt)
            shell._process_args = {**shell._process_args, "preexec_fn": self._prepare_job}
        sys.excepthook = _without_interrupts(sys.excepthook)
        atexit.register(self._conclude)
        if default is None:
            return
        workflow.logger_manager.logger.removeHandler(default)
        # Snakemake's own slip while it works out the resources of jobs whose input is not there yet.
        warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
        self.narrator = Narrator(Path("results"), self.layout.settings.dataset.name, language.language())
        workflow.logger_manager.logger.addHandler(self.narrator)

    def _prepare_job(self) -> None:
        """Hold Ctrl-C back in the process of a job, until it can end calmly; end it where that came before."""
        interrupts.hold()
        if self.interrupts:
            os._exit(EXIT_INTERRUPTED)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        """Begin to stop at the first Ctrl-C, let it go on at the second, and end at the third."""
        self.interrupts += 1
        if self.narrator is not None:
            self.narrator.is_stopping = True
        if self.interrupts == 1:
            raise KeyboardInterrupt
        if self.interrupts > 2:
            self._conclude()

    def _conclude(self) -> None:
        """Print what matters last of all, after Snakemake's own words."""
        lines = (
            self.errors
            if self.narrator is None
            else self.narrator.errors() * (self.has_failed or self.narrator.has_broken)
        )
        if self.narrator is not None:
            self.narrator.close()
        note = self.note or records.kept_line(getattr(self.workflow.persistence, "others", {}))
        if note:
            say(f"note: {note}")
        lines = [*lines, *self.causes, *[STOPPED] * (self.interrupts > 0)]
        for line in lines:
            say(line)
        if self.interrupts:
            sys.stdout.flush()
            os._exit(EXIT_INTERRUPTED)  # Snakemake's own status is that of a failure
        narrator, plan = self.narrator, self.last_plan
        is_silent = narrator and narrator.has_nothing_to_do and not narrator.has_warned
        if plan and is_silent and not self.workflow.persistence.changes:  # else the next plan tells it again
            plan.remember(note)

    def remember_run(self, workflow: Any) -> None:
        """After a run that went well: spare the next start of this command its plan."""
        if self.last_plan and self.narrator and not self.narrator.has_warned:
            self.last_plan.remember_run(workflow.persistence.note_of_next_plan)

    def _exit(self, message: str) -> NoReturn:
        # Not an exception: Snakemake would show it with the Snakefile's line, where the user has no mistake.
        if self.narrator is not None:
            self.narrator.close()
        say(f"error: {message}")
        sys.exit(1)

    def prefix_shell(self) -> None:
        """Begin each shell line by the site's modules, and by words with which the shell becomes the command.

        So a Ctrl-C that the shell has not seen yet reaches the command. As a module, only the former: the prefix is
        that of all rules of a workflow, and shell lines of others may hold several commands.
        """
        if not self.is_module:
            shell.prefix(self._shell_prefix())
        elif self.site.modules:
            shell.prefix(module_prefix(self.site).replace("{", "{{").replace("}", "}}"))

    def _shell_prefix(self) -> str:
        if not self.forks and self.workflow.exec_mode == ExecMode.REMOTE:
            self._start_forks(rules_of_cluster_job(sys.argv[1:], os.environ))
        become = self.forks.shell_prefix() if self.forks else "exec "
        return (module_prefix(self.site) + become).replace("{", "{{").replace("}", "}}")  # Snakemake formats it

    def _start_forks(self, rules: Iterable[str]) -> None:
        """Start the process whose forks the steps of these rules are, where that is worth it."""
        if fork_server.are_wanted(rules, self.site.modules):
            self.forks = fork_server.start(of_timm=self.layout.uses_timm)

    def controller(self, workflow: Any) -> Controller:
        """Return who controls this folder; before a real run, make sure that it is nobody else."""
        controller = Controller()
        if workflow.is_main_process and will_run(sys.argv[1:], workflow.output_settings.dryrun):
            for problem in checkout_problems(ROOT):
                say(str(problem))
            try:
                submits = executor_of(sys.argv[1:], os.environ) == "slurm"
                if submits:
                    check_path(sys.executable)
                    slurm.check_answers()
                elif not PARTIAL.intersection(word.split("=")[0] for word in sys.argv):
                    check_devices(self.layout.settings, missing_gpu(os.environ))
                check_folders(Path(self.layout.dataset))
                clear_the_way(os.environ, controller)
                if submits:
                    slurm.leave_job(os.environ)
                    from scripts.lib.workflow.slurm_executor import be_patient  # imports the plugin

                    be_patient()
            except UserError as error:
                self._exit(str(error))
        elif workflow.is_main_process and "--unlock" in sys.argv:
            unlock(controller)
        return controller

    def ask_for_missing_weights(self, workflow: Any) -> None:
        """Ask again for the weights of candidates that could not be had before; not in a dry run."""
        is_real = workflow.is_main_process and will_run(sys.argv[1:], workflow.output_settings.dryrun)
        if is_real and missing_weights.is_to_ask(sys.argv[1:], os.environ):
            missing_weights.ask_again(self.layout, self.options, self.narrator.say if self.narrator else say)

    def end_if_unchanged(self, workflow: Any) -> None:
        """End here where the last plan of this command found nothing to do, and nothing has changed since."""
        if self.narrator is None or not is_plain(workflow, sys.argv[1:]):
            return
        facts = {
            "settings": self.layout.settings.model_dump(mode="json"),
            "site": self.site.model_dump(mode="json"),
            "config": repr(self.config),
            **facts_of(workflow, os.environ),
        }
        products = [self.layout.dataset, os.path.dirname(self.layout.checkpoint), *LEFT]
        named = named_files(facts["settings"])
        self.last_plan = LastPlan(facts, products, named, self.resources.folder_states)
        note = self.last_plan.note()
        if note is not None:
            self.note, self.last_plan = note, None
            self.narrator.say_nothing()
            sys.exit(0)

    def begin(self, workflow: Any, controller: Controller) -> None:
        """Before the first job: refuse what every job would fail of, take the folder, and spare useless attempts."""
        images = Path(self.layout.images)
        if any(is_edited(change, images) for change in getattr(workflow.persistence, "changes", [])):
            self._exit(edited_images(images))
        devices = {name: experiment.device for name, experiment in self.layout.settings.experiments.items()}
        jobs = list(workflow.dag.needrun_jobs())
        planned = {job.wildcards_dict["experiment"] for job in jobs if job.rule.name in USES_GPU}
        trained = [job.wildcards_dict["experiment"] for job in jobs if job.rule.name == "train_model"]
        if not workflow.non_local_exec:
            self._check_nodes({*trained})
        torch = built_torch()
        has_gpu = not workflow.non_local_exec and bool(Gpus.of(os.environ))
        if problem := device_problem({name: devices[name] for name in devices if name in planned}, torch, has_gpu):
            self._exit(f"{problem.what}: {problem.remedy}")
        if self.narrator is not None:
            self.narrator.is_slurm = workflow.non_local_exec
            for line in why(workflow):
                self.narrator.say(f"because {line}")
        may_use_gpu = not workflow.non_local_exec and any(devices.get(name) in ("auto", "cuda") for name in planned)
        if note := unused_gpu(torch, look_at_gpus()) if may_use_gpu and not Gpus.of(os.environ).hidden else "":
            if has_gpu:
                self._exit(f"{note}; or device: cpu")
            say(f"note: {note}; training runs on the CPU")
        at_once = workflow.global_resources.get("gpu")
        if not workflow.non_local_exec and at_once is not None and torch and torch.cuda:
            runs = sum(devices[name] != "cpu" for name in trained)
            if note := idle_gpus(len(Gpus.of(os.environ).names), int(at_once.value), runs):
                say(f"note: {note}")
        try:
            controller.take(slurm=workflow.non_local_exec)
        except UserError as error:
            self._exit(str(error))
        except OSError as error:
            self._exit(describe_write_error(error, Path.cwd()))
        if not workflow.non_local_exec:
            self._start_forks(job.rule.name for job in jobs)
            self.prefix_shell()
        spare_attempts(workflow.scheduler, self.started)

    def _check_nodes(self, planned: set[str]) -> None:
        """End here where a training of *planned* wants more nodes than the Slurm job of this process has."""
        for name in sorted(planned):
            count = self.layout.settings.experiments[name].nodes
            try:
                problem = count > 1 and nodes.nodes_problem(count, os.environ)
            except UserError as error:
                self._exit(str(error))
            if problem:
                self._exit(f"experiments.{name}.{problem}: {nodes.REMEDY}")

    def settings_json(self, wildcards: Any) -> str:
        """Return the whole configuration for write_report; a params function, since JSON is full of braces."""
        return to_json(self.config)

    def show_command(self, workflow: Any) -> str:
        """Return the shell line that prints the results; nothing where only a part of the workflow was asked for."""
        asked = workflow.dag_settings
        if asked.until or asked.omit_from or set(asked.targets) - {"all"}:
            return "true"
        words = ["python", "-m", "scripts.report.write_report", "--dataset", self.layout.dataset]
        return shlex.join([*words, "--show", "--language", language.language()])

    def note_errors(self, logs: Sequence[str]) -> None:
        """Keep what the failed jobs said for the end: Snakemake prints a page about each, and the reason is lost."""
        self.has_failed = True
        self.causes = [f"error: {cause}" for cause in causes(logs, is_killed_told=self.narrator is not None)]
        files = [path for path in Path("logs").rglob(f"*{SUFFIX}") if is_recent(path, self.started)]
        outcomes = [outcome for outcome in map(Outcome.read, sorted(files)) if outcome]
        calm = {Ending.INTERRUPTED, *([Ending.STOPPED] if self.interrupts else [])}
        told = [f"error: {outcome}" for outcome in outcomes if outcome.ending not in calm]
        self.errors = list(dict.fromkeys(told))


def say(line: str) -> None:
    """Print a line of the whole workflow, in its language."""
    print(tr_line(line), file=sys.stderr, flush=True)


def spare_attempts(scheduler: Any, since: float) -> None:
    """Have a failed job not tried again where another attempt would fail of the same.

    Snakemake's retries know no reasons; each attempt may wait in a queue for hours.

    Parameters
    ----------
    scheduler : Snakemake's.
    since : when this Snakemake began; the outcomes of earlier ones count for nothing.
    """
    tell_scheduler = scheduler.error_callback

    def on_error(job: Any) -> None:
        logs = [Path(log) for member in getattr(job, "jobs", [job]) for log in member.log]
        outcomes = [Outcome.read(path) for path in map(outcome_path, logs) if is_recent(path, since)]
        if any(outcome and outcome.ending == Ending.FAILED and not outcome.again for outcome in outcomes):
            job.attempt = job.restart_times + 1
        tell_scheduler(job)

    scheduler.error_callback = on_error


def rules_of_cluster_job(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the rules whose steps this Snakemake runs itself, on the node of one cluster job.

    Parameters
    ----------
    arguments : Snakemake's, after the program's name: it has read them itself, but not told its workflow yet.
    """
    if executor_of(arguments, environment) != "local":
        return []
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--target-jobs", nargs="+", default=[])
    known, _ = parser.parse_known_args(arguments)
    return [target.split(":")[0] for target in known.target_jobs]


def _without_interrupts(show: Callable[..., Any]) -> Callable[..., Any]:
    """Return an excepthook that says nothing of Ctrl-C: the last line does."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            show(kind, error, trace)

    return hook


def check_options(words: Sequence[str]) -> None:
    """Refuse ``--config`` that stands twice: Snakemake takes the last one, and says nothing.

    Raises
    ------
    UserError : it does.
    """
    if sum(word.partition("=")[0] in ("--config", "-C") for word in words) > 1:
        raise UserError("--config stands there twice", "write all KEY=VALUE after one: --config a=1 b=2")


def read_configuration(files: Sequence[str | Path], arguments: Sequence[str]) -> dict[str, Any]:
    """Return what the files and --config say together, as Snakemake merges it but read strictly.

    Snakemake's own reader takes the last of two equal keys, and 1e-4 as text.

    Raises
    ------
    UserError : a file, or an argument, that is no clear YAML; a key that two arguments set.
    """
    config: dict[str, Any] = {}
    keys = [argument.partition("=")[0] for argument in arguments]
    if twice := next((key for key in keys if keys.count(key) > 1), ""):
        raise UserError(f"--config: {twice} stands there twice", "leave one of them")
    for file in files:
        update_config(config, read_file(Path(os.path.relpath(file))))
    for argument in arguments:
        key, _, text = argument.partition("=")
        update_config(config, {key: strict_yaml.parse(text, f"--config {key}")})
    return config


def use_this_python() -> None:
    """Make `python` in shell lines the one that runs Snakemake, also where .venv is not activated.

    By its own folder, not by the link .venv, which may become a link to another environment while this one is in use.
    """
    folder = str(Path(sys.prefix).resolve() / "bin")
    sys.executable = str(Path(folder, Path(sys.executable).name))
    if os.environ.get("PATH", "").split(os.pathsep)[0] != folder:
        os.environ["PATH"] = folder + os.pathsep + os.environ.get("PATH", "")


def check_encoding(encoding: str) -> None:
    """Make sure that names of files and classes are what the settings say: Snakemake hands them on as its locale does.

    Raises
    ------
    UserError : they would become others.
    """
    if encoding.lower().replace("-", "") != "utf8":
        what = f"this shell's locale takes names of files and classes as {encoding}, not as UTF-8"
        raise UserError(what, "start it by `make run`, or `export PYTHONUTF8=1` first")
