"""mimflow as a module of another workflow (`module mimflow: ...`, snakedeploy): what differs, and what cannot be."""

from __future__ import annotations

from typing import Any

from scripts.lib.base.environment import ROOT
from scripts.lib.base.problems import UserError

#: Where the rules stand, seen from the project.
RULES = ("Snakefile", "rules/*.smk")


def is_module(workflow: Any) -> bool:
    """Tell whether another workflow uses the rules, which then names the configuration."""
    return bool(workflow.modifier.skip_configfile)


def check(workflow: Any) -> None:
    """Make sure that a workflow can use the rules as it does.

    Parameters
    ----------
    workflow : Snakemake's, while it reads the Snakefile.

    Raises
    ------
    UserError : their paths are changed, or they are of another version than the scripts.
    """
    if not is_module(workflow):
        return
    if workflow.modifier.modify_path("results/") != "results/":
        what = "`prefix` or `replace_prefix` of the module: mimflow's rules know their paths also by their parameters"
        raise UserError(what, "leave it out; for results elsewhere there is `snakemake --directory FOLDER`")
    folder = workflow.current_basedir
    for file in [path for pattern in RULES for path in sorted(ROOT.glob(pattern))]:
        name = file.relative_to(ROOT).as_posix()
        with workflow.sourcecache.open(folder.join(name)) as used:
            if used.read().strip() != file.read_text(encoding="utf-8").strip():  # of git, Snakemake strips the ends
                what = f"{folder.join(name)} is of another version of mimflow than the scripts in {ROOT}"
                raise UserError(what, f"name the version that is there, or check out that of the module in {ROOT}")
