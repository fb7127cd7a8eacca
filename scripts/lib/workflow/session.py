"""What happens around one start of Snakemake: settings read, the folder taken, the report made, errors repeated."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from scripts.lib.base.disks import check_folders
from scripts.lib.base.environment import Variable
from scripts.lib.base.outcome import SUFFIX, Ending, Outcome
from scripts.lib.base.problems import UserError
from scripts.lib.settings.load import file_names, load_settings
from scripts.lib.settings.site import enter_site, module_prefix
from scripts.lib.workflow.controller import Controller, clear_the_way, will_run
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.options import Options
from scripts.lib.workflow.profile_check import check_path
from scripts.lib.workflow.report_menu import ReportMenu
from scripts.lib.workflow.resources import Resources, with_device_of


class Session:
    """One start of Snakemake on a checked configuration.

    Parameters
    ----------
    config : what Snakemake read.
    files : the configuration files that it read it from.
    """

    def __init__(self, config: Mapping[str, Any], files: Sequence[str | Path]) -> None:
        self.started = time.time()
        self.config = config
        use_this_python()
        os.environ[Variable.CONFIG_FILES] = file_names(files)
        try:
            settings = load_settings(config, files)
            self.site = enter_site(sys.argv[1:], os.environ)
        except UserError as error:
            _exit(str(error))
        settings = with_device_of(self.site, settings)
        self.layout = Layout(settings)
        self.options = Options(settings, self.site, self.layout)
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
                check_folders(Path(self.layout.dataset))
                clear_the_way(os.environ, controller)
            except UserError as error:
                _exit(str(error))
        return controller

    def report_command(self, workflow: Any) -> str:
        """Return the shell line that makes the report; nothing to do when only a part of the workflow was asked for."""
        asked = workflow.dag_settings
        if asked.until or asked.omit_from or set(asked.targets) - {"all"}:
            return "true"
        settings = json.dumps(self.config, ensure_ascii=False)
        words = ["python", "-m", "scripts.report.write_report", "--snakefile", str(workflow.main_snakefile)]
        return shlex.join([*words, "--settings", settings, "--dataset", self.layout.dataset])

    def tell_errors(self) -> None:
        """Repeat what the failed jobs said: Snakemake prints a page about each, and the reason is lost in it."""
        files = [path for path in Path("logs").rglob(f"*{SUFFIX}") if path.stat().st_mtime >= self.started]
        outcomes = [outcome for outcome in map(Outcome.read, sorted(files)) if outcome]
        for line in dict.fromkeys(f"error: {outcome}" for outcome in outcomes if outcome.ending != Ending.INTERRUPTED):
            print(line, file=sys.stderr, flush=True)


def use_this_python() -> None:
    """Make `python` in shell lines the one that runs Snakemake, also where .venv is not activated."""
    folder = str(Path(sys.executable).parent)
    if os.environ.get("PATH", "").split(os.pathsep)[0] != folder:
        os.environ["PATH"] = folder + os.pathsep + os.environ.get("PATH", "")


def _exit(message: str) -> NoReturn:
    # Not an exception: Snakemake would show it with the Snakefile's line, where the user has no mistake.
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(1)
