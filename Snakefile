# The whole experiment: data -> model -> training -> evaluation -> report. `snakemake --help`, README.md, docs/.
import sys
from importlib.util import find_spec

from snakemake.utils import min_version

min_version("9.27")

if not find_spec("mmcls"):
    sys.exit(
        "error: this Snakemake has no mimflow beside it: use .venv/bin/snakemake of a clone where `make setup` ran"
    )

from scripts.lib.workflow.start import catch_interrupts

catch_interrupts(workflow)

# Snakemake merges `configfile:` with --configfile: with one, nothing of the demo may remain.
if not workflow.overwrite_configfiles:

    configfile: "configs/demo.yaml"


from scripts.lib.workflow.session import Session

session = Session(workflow, config)
layout, options, resources, menu = session.layout, session.options, session.resources, session.menu


report: menu.caption("workflow")


session.narrate(workflow)
controller = session.controller(workflow)
session.ask_for_missing_weights(workflow)
session.end_if_unchanged(workflow)

session.prefix_shell()


wildcard_constraints:
    experiment="|".join(map(re.escape, layout.experiments)),
    seed="[0-9]+",
    fold="[0-9]+",
    short_side="[0-9]+",
    shard="[0-9]+of[0-9]+",
    checkpoint="[A-Za-z0-9._-]+",
    candidate="|".join(map(re.escape, layout.candidate_names())) or "-",
    round="[0-9]+",
    slot="[0-9]+",
    fetched="|".join(map(re.escape, layout.fetched_names())),


rule all:
    message:
        "everything that results/ is to hold"
    input:
        layout.targets(),
    localrule: True


include: "rules/data.smk"  # the source -> images, looked at and split
include: "rules/search.smk"  # base_config: auto: candidates -> the one that is best on val
include: "rules/train.smk"  # pretrained weights and settings -> a trained model
include: "rules/evaluate.smk"  # a trained model -> predictions, metrics, figures, ONNX
include: "rules/report.smk"  # all runs -> provenance, model cards, leaderboard, RO-Crate, the report


onstart:
    session.begin(workflow, controller)


onsuccess:
    controller.release()
    shell("{show}", show=session.show_command(workflow))
    session.remember_run(workflow)


onerror:
    controller.release()
    session.note_errors(log)
