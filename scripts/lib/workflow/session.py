"""What happens around one start of Snakemake: settings read, the folder taken, the report made, errors repeated."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from snakemake.utils import update_config

from scripts.lib.base import strict_yaml
from scripts.lib.base.environment import Variable
from scripts.lib.base.outcome import SUFFIX, Ending, Outcome
from scripts.lib.base.problems import UserError
from scripts.lib.settings.load import file_names, load_settings, read_file
from scripts.lib.settings.site import check_profiles, enter_site, module_prefix
from scripts.lib.workflow.controller import Controller, clear_the_way, will_run
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.options import Options, RuleOptions, to_json
from scripts.lib.workflow.profile_check import check_path
from scripts.lib.workflow.report_menu import ReportMenu
from scripts.lib.workflow.resources import Resources, check_devices, has_gpu, with_device_of

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
        files, is_module = workflow.configfiles, workflow.modifier.skip_configfile
        use_this_python()
        os.environ[Variable.CONFIG_FILES] = file_names(files)
        try:
            check_profiles(sys.argv[1:], os.environ)
            arguments = workflow.config_settings.config_args or ()
            self.config = config if is_module else read_configuration(files, arguments)
            settings = load_settings(self.config, files)
            self.site = enter_site(sys.argv[1:], os.environ)
        except UserError as error:
            _exit(str(error))
        settings = with_device_of(self.site, settings)
        self.layout = Layout(settings)
        self.options = RuleOptions(Options(settings, self.site, self.layout))
        self.resources = Resources(settings, self.site, self.layout)
        self.menu = ReportMenu(settings)

    def shell_prefix(self) -> str:
        """Return what stands before each shell line: the site's modules."""
        return module_prefix(self.site)

    def controller(self, workflow: Any) -> Controller:
        """Return who controls this folder; before a real run, make sure that it is nobody else."""
        controller = Controller()
        if workflow.is_main_process and will_run(sys.argv[1:], workflow.output_settings.dryrun):
            try:
                if workflow.non_local_exec:
                    check_path(sys.executable)
                elif not PARTIAL.intersection(word.split("=")[0] for word in sys.argv):
                    check_devices(self.layout.settings, version("torch"), has_gpu())
                clear_the_way(os.environ, controller)
            except UserError as error:
                _exit(str(error))
        return controller

    def report_command(self, workflow: Any) -> str:
        """Return the shell line that makes the report; nothing to do when only a part of the workflow was asked for."""
        asked = workflow.dag_settings
        if asked.until or asked.omit_from or set(asked.targets) - {"all"}:
            return "true"
        settings = to_json(self.config)
        words = ["python", "-m", "scripts.report.write_report", "--snakefile", str(workflow.main_snakefile)]
        return shlex.join([*words, "--settings", settings, "--dataset", self.layout.dataset])

    def tell_errors(self) -> None:
        """Repeat what the failed jobs said: Snakemake prints a page about each, and the reason is lost in it."""
        files = [path for path in Path("logs").rglob(f"*{SUFFIX}") if path.stat().st_mtime >= self.started]
        outcomes = [outcome for outcome in map(Outcome.read, sorted(files)) if outcome]
        for line in dict.fromkeys(f"error: {outcome}" for outcome in outcomes if outcome.ending != Ending.INTERRUPTED):
            print(line, file=sys.stderr, flush=True)


def read_configuration(files: Sequence[str | Path], arguments: Sequence[str]) -> dict[str, Any]:
    """Return what the files and --config say together, as Snakemake merges it but read strictly.

    Snakemake's own reader takes the last of two equal keys, and 1e-4 as text.

    Raises
    ------
    UserError : a file, or an argument, that is no clear YAML.
    """
    config: dict[str, Any] = {}
    for file in files:
        update_config(config, read_file(Path(os.path.relpath(file))))
    for argument in arguments:
        key, _, text = argument.partition("=")
        update_config(config, {key: strict_yaml.parse(text, f"--config {key}")})
    return config


def use_this_python() -> None:
    """Make `python` in shell lines the one that runs Snakemake, also where .venv is not activated."""
    folder = str(Path(sys.executable).parent)
    if os.environ.get("PATH", "").split(os.pathsep)[0] != folder:
        os.environ["PATH"] = folder + os.pathsep + os.environ.get("PATH", "")


def _exit(message: str) -> NoReturn:
    # Not an exception: Snakemake would show it with the Snakefile's line, where the user has no mistake.
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(1)
