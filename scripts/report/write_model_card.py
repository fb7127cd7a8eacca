"""Write the model card of a run: what the model is, how to use it, what made it, how good it is, what is unknown.

Mitchell et al. (2019), Model Cards for Model Reporting, https://doi.org/10.1145/3287560.3287596
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.lib.base import language
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import read_json, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.data.findings import read_summary
from scripts.lib.metrics import cost
from scripts.lib.pages.hub_metadata import front_matter
from scripts.lib.pages.model_card import CardInputs, fold_of, to_html, to_markdown
from scripts.lib.runs.config_file import read_config
from scripts.lib.runs.predictions import read_predictions
from scripts.lib.runs.provenance import read_provenance
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.runs.train_log import read_train_log


def read_inputs(
    run: RunFolder,
    model: Path,
    *,
    export: Path | None = None,
    val_predictions: Path | None = None,
    costs: Path | None = None,
    audit: Path | None = None,
    label_suspects: Path | None = None,
    license: str = "",
) -> CardInputs:
    """Read all that a model card is written from; the files that may be missing are those with a default.

    Raises
    ------
    UserError : a file is missing, or not what its name says.
    """
    provenance = read_provenance(run.provenance)
    if not run.per_class.is_file():
        raise UserError(f"{run.per_class}: no such file", "make it with scripts.evaluate.evaluate_model")
    return CardInputs(
        folder=run.path,
        provenance=provenance,
        metrics=read_json(run.metrics),
        model=read_json(model),
        config=read_config(run.config),
        per_class=pd.read_csv(run.per_class, encoding="utf-8", keep_default_na=False, dtype={"class": str}),
        predictions=read_predictions(run.predictions),
        log=read_train_log(run.train_log),
        export=read_json(export) if export else None,
        val=read_predictions(val_predictions) if val_predictions else None,
        costs=read_costs(costs, run.path, provenance),
        license=license.strip(),
        audit=read_summary(audit) if audit else None,
        label_suspects=read_json(label_suspects) if label_suspects else None,
    )


def read_costs(table: Path | None, folder: Path, provenance: dict[str, Any]) -> pd.DataFrame:
    """Return the row of a run in costs.csv; without that file, what provenance.json and train_log.csv say of it."""
    experiment, fold = provenance["run"]["experiment"], fold_of(provenance)
    seed = provenance["inputs"]["training"].get("seed")
    if table is not None and table.is_file():
        costs = pd.read_csv(table, encoding="utf-8", dtype={"experiment": str, "currency": str, "energy_of": str})
        costs = costs.fillna({"currency": "", "energy_of": ""})
        rows = costs[(costs["experiment"] == experiment) & (costs["seed"] == seed)]
        if fold is not None and "fold" in rows:
            rows = rows[rows["fold"] == fold]
        if len(rows) == 1:
            return rows
    return cost.estimate([cost.read_history(folder, experiment, seed, fold)], {})


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.report.write_model_card", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="results/<dataset>/<experiment>/seed<k>")
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="model.json of describe_model")
    parser.add_argument("--export", type=Path, metavar="FILE", help="export.json, where the model was exported")
    parser.add_argument("--val-predictions", type=Path, metavar="FILE", help="the same of the val images, if there")
    parser.add_argument("--costs", type=Path, metavar="FILE", help="costs.csv, if there; else the run's own record")
    parser.add_argument("--audit-summary", type=Path, metavar="FILE", help="audit.json, where the images were audited")
    parser.add_argument("--label-suspects", type=Path, metavar="FILE", help="label_suspects.json, where there is one")
    parser.add_argument("--license", default="", metavar="TEXT", help="of the images, as the settings say")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="model_card.md")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the same as a page for the report")
    language.add_option(parser)
    return parser


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Write the model card."""
    inputs = read_inputs(
        RunFolder(args.run), args.model, export=args.export, val_predictions=args.val_predictions, costs=args.costs,
        audit=args.audit_summary, label_suspects=args.label_suspects, license=args.license,
    )  # fmt: skip
    if args.html:
        write_text(args.html, to_html(inputs))
    write_text(args.output, front_matter(inputs.provenance, inputs.metrics) + to_markdown(inputs))


if __name__ == "__main__":
    run_cli(build_parser, main)
