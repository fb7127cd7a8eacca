# The whole experiment: data -> model -> training -> evaluation -> report. `snakemake --help`, README.md, docs/.
from snakemake.utils import min_version

min_version("9.27")

# Snakemake merges `configfile:` with --configfile: with one, nothing of the demo may remain.
if not workflow.overwrite_configfiles:

    configfile: "configs/demo.yaml"


from scripts.lib.workflow.session import Session

session = Session(config, workflow.configfiles)
layout, options, resources, menu = session.layout, session.options, session.resources, session.menu


report: menu.caption("workflow")


controller = session.controller(workflow)

shell.prefix(session.shell_prefix())


wildcard_constraints:
    experiment="|".join(map(re.escape, layout.experiments)),
    seed="[0-9]+",
    fold="[0-9]+",
    short_side="[0-9]+",
    checkpoint="[A-Za-z0-9._-]+",
    fetched="|".join(map(re.escape, layout.fetched_names())),


localrules:
    all,
    fetch_archive,
    fetch_checkpoint,
    describe_data,
    compare_runs,
    describe_crate,


rule all:
    message:
        "everything that results/ is to hold"
    input:
        layout.targets(),


# --- data -------------------------------------------------------------------------------------------------------------


rule fetch_archive:
    message:
        "fetching {output}"
    input:
        layout.local_source,
    output:
        layout.fetched,
    params:
        source=options.source_json,
        record=layout.record_of,
        state=resources.folder_state,
    log:
        layout.fetch_log,
    shell:
        "python -m scripts.data.fetch_archive --source {params.source:q} --output {output:q} --record {params.record:q}"
        " --log {log:q}"


rule unpack_archive:
    message:
        "unpacking {input.archives}"
    input:
        archives=layout.archives,
        labels=list(layout.label_files.values()),
    output:
        directory(layout.images),
    params:
        sources=options.sources,
    log:
        f"{layout.logs}/unpack_archive.log",
    group:
        resources.data_group
    resources:
        gpu=resources.data_gpus,
    shell:
        "python -m scripts.data.unpack_archive --archive {input.archives:q} {params.sources} --output {output:q}"
        " --log {log:q}"


rule audit_images:
    message:
        "looking for bad data in {input}"
    input:
        rules.unpack_archive.output,
    output:
        csv=f"{layout.dataset}/audit.csv",
        json=f"{layout.dataset}/audit.json",
    params:
        on_bad_image=layout.settings.dataset.on_bad_image,
        # Never an output: Snakemake deletes outputs before a rerun, and what is in here is not decoded again.
        cache=f"{layout.dataset}/audit.cache",
        group_by=options.group_by,
    log:
        f"{layout.logs}/audit_images.log",
    group:
        resources.data_group
    threads: resources.data_threads(workflow)
    resources:
        gpu=resources.data_gpus,
    shell:
        "python -m scripts.data.audit_images --images {input:q} --on-bad-image {params.on_bad_image} {params.group_by}"
        " --cache {params.cache:q} --threads {threads} --output {output.csv:q} --summary {output.json:q} --log {log:q}"


rule split_dataset:
    message:
        "splitting {input.images} into train, val and test"
    input:
        images=rules.unpack_archive.output,
        audit=rules.audit_images.output.csv,
    output:
        train=layout.splits("train"),
        val=layout.splits("val"),
        test=layout.splits("test"),
        classes=f"{layout.dataset}/classes.txt",
    params:
        split=layout.settings.dataset.split,
        classes=options.classes,
        group_by=options.group_by,
        folds=options.folds,
        folder=subpath(output.classes, parent=True),
    log:
        f"{layout.logs}/split_dataset.log",
    group:
        resources.data_group
    shell:
        "python -m scripts.data.split_dataset --images {input.images:q} --audit {input.audit:q}"
        " --val {params.split.val} --test {params.split.test} --seed {params.split.seed} {params.group_by}"
        " {params.folds} {params.classes} --output {params.folder:q}/splits --class-list {output.classes:q} --log {log:q}"


rule describe_data:
    message:
        f"describing the images of {layout.dataset}"
    input:
        audit=rules.audit_images.output.csv,
        summary=rules.audit_images.output.json,
        train=rules.split_dataset.output.train,
        classes=rules.split_dataset.output.classes,
    output:
        report(f"{layout.dataset}/audit.html", **menu.shown("audit", "audit of the images", category="Data")),
    params:
        images=layout.images,
        folder=subpath(input.classes, parent=True),
        dataset=layout.settings.dataset.name,
    log:
        f"{layout.logs}/describe_data.log",
    shell:
        "python -m scripts.data.describe_data --audit {input.audit:q} --summary {input.summary:q}"
        " --images {params.images:q} --splits {params.folder:q}/splits --classes {input.classes:q} --title {params.dataset:q}"
        " --output {output:q} --log {log:q}"


rule pack_images:
    message:
        "decoding the images once, with {wildcards.short_side} pixels on the short side"
    input:
        images=rules.unpack_archive.output,
        splits=[rules.split_dataset.output.train, rules.split_dataset.output.val],  # of all folds
    output:
        directory(layout.pixel_cache),
    log:
        f"{layout.logs}/pack_images_{{short_side}}.log",
    group:
        resources.data_group
    threads: resources.data_threads(workflow)
    resources:
        gpu=resources.data_gpus,
    shell:
        "python -m scripts.data.pack_images --images {input.images:q} --splits {input.splits:q} --edge {wildcards.short_side}"
        " --threads {threads} --output {output:q} --log {log:q}"


# --- model ------------------------------------------------------------------------------------------------------------


rule fetch_checkpoint:
    message:
        "fetching pretrained weights: {wildcards.checkpoint}"
    input:
        layout.local_checkpoint,
    output:
        layout.checkpoint,
    params:
        checkpoint=options.checkpoint_json,
        base_config=options.checkpoint_base,
    log:
        "logs/checkpoints/{checkpoint}.log",
    shell:
        "python -m scripts.train.fetch_checkpoint --checkpoint {params.checkpoint:q} --base-config {params.base_config:q}"
        " --output {output:q} --log {log:q}"


# --- train ------------------------------------------------------------------------------------------------------------


rule patch_config:
    message:
        f"writing the config of {layout.title}"
    input:
        classes=rules.split_dataset.output.classes,
        train=layout.train,
        checkpoint=layout.checkpoint_of,
    output:
        layout.run.config,
    params:
        experiment=options.experiment_json,
        checkpoint=options.checkpoint,
        pixel_cache=options.pixel_cache,
        images=layout.images,
        splits=subpath(input.train, parent=True),
    log:
        f"{layout.run_logs}/patch_config.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.train.patch_config --name {wildcards.experiment:q} --experiment {params.experiment:q}"
        " --seed {wildcards.seed}"
        " --classes {input.classes:q} --splits {params.splits:q} --images {params.images:q} {params.checkpoint}"
        " {params.pixel_cache} --output {output:q} --log {log:q}"


rule warm_start:
    message:
        f"fitting the head of {layout.title}"
    input:
        config=rules.patch_config.output,
        checkpoint=layout.checkpoint_of,
        pixel_cache=layout.pixel_cache_of,
        train=layout.train,
        val=layout.val,
        classes=rules.split_dataset.output.classes,
    output:
        layout.run.init,
    log:
        f"{layout.run_logs}/warm_start.log",
    group:
        resources.run_group
    threads: resources.threads
    resources:
        gpu=resources.gpus,
        nodes=1,
    shell:
        "python -m scripts.train.warm_start --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --packed {input.pixel_cache:q} --train {input.train:q} --val {input.val:q} --classes {input.classes:q}"
        " --output {output:q} --cards {resources.gpu} --log {log:q}"


rule train_model:
    message:
        f"training {layout.title}"
    input:
        config=rules.patch_config.output,
        splits=[layout.train, layout.val],
        pixel_cache=layout.pixel_cache_of,
        checkpoint=layout.start_of,
    output:
        best=layout.run.best,
        last=layout.run.last,
        log=layout.run.train_log,
    params:
        # Never an output: Snakemake deletes outputs before a rerun, and training goes on from what is in here.
        work_dir=str(layout.run.work),
        record=layout.records(),
    log:
        f"{layout.run_logs}/train_model.log",
    group:
        resources.run_group
    threads: resources.threads
    resources:
        gpu=resources.gpus,
        nodes=1,  # all GPUs of a run are in one
    shell:
        "python -m scripts.train.train_model --config {input.config:q} --seed {wildcards.seed}"
        " --work-dir {params.work_dir:q} --best {output.best:q} --last {output.last:q} --train-log {output.log:q}"
        " --depends-on {input.splits:q} {input.checkpoint:q} {params.record:q} --cards {resources.gpu} --log {log:q}"


# --- evaluate ---------------------------------------------------------------------------------------------------------


rule predict_images:
    message:
        f"predicting the test and val splits with {layout.title}"
    input:
        config=rules.patch_config.output,
        checkpoint=rules.train_model.output.best,
        test=layout.test,
        val=layout.val,
        classes=rules.split_dataset.output.classes,
    output:
        test=layout.run.predictions,
        val=layout.run.val_predictions,
        features=layout.run.features,
    params:
        images=layout.images,
    log:
        f"{layout.run_logs}/predict_images.log",
    group:
        resources.run_group
    threads: resources.threads
    resources:
        gpu=resources.gpus,
    shell:
        "python -m scripts.evaluate.predict_images --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --images {params.images:q} --split {input.test:q} {input.val:q} --classes {input.classes:q}"
        " --output {output.test:q} {output.val:q} --features {output.features:q}"
        " --threads {threads} --cards {resources.gpu} --log {log:q}"


rule evaluate_model:
    message:
        f"evaluating {layout.title}"
    input:
        predictions=rules.predict_images.output.test,
        train=layout.train,
    output:
        metrics=layout.run.metrics,
        per_class=report(layout.run.per_class, **menu.shown("per_class", "metrics of each class")),
    params:
        dataset=layout.settings.dataset.name,
        fold=options.fold,
    log:
        f"{layout.run_logs}/evaluate_model.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.evaluate.evaluate_model --predictions {input.predictions:q} --train {input.train:q}"
        " --dataset {params.dataset:q} --experiment {wildcards.experiment:q} --seed {wildcards.seed} {params.fold}"
        " --metrics {output.metrics:q}"
        " --per-class {output.per_class:q} --log {log:q}"


rule plot_predictions:
    message:
        f"drawing the predictions of {layout.title}"
    input:
        test=rules.predict_images.output.test,
        val=rules.predict_images.output.val,
    output:
        report(layout.run.figures / "confusion_matrix.svg", **menu.shown("confusion_matrix", "confusion matrix")),
        report(layout.run.figures / "classes.svg", **menu.shown("classes", "classes, the worst first")),
        report(layout.run.figures / "curves.svg", **menu.shown("curves", "precision-recall, ROC and top-k curves")),
        report(layout.run.figures / "reliability.svg", **menu.shown("reliability", "calibration")),
        report(layout.run.figures / "selective.svg", **menu.shown("selective", "accuracy against confidence")),
        report(layout.run.figures / "errors.html", **menu.shown("errors", "the most confident errors")),
    params:
        images=layout.images,
        figures=subpath(output[0], parent=True),
    log:
        f"{layout.run_logs}/plot_predictions.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.evaluate.plot_predictions --predictions {input.test:q} --val-predictions {input.val:q}"
        " --images {params.images:q} --output {params.figures:q}"
        f" --title '{layout.title}' --log {{log:q}}"


rule map_embedding:
    message:
        f"mapping the test images as {layout.title}, sees them"
    input:
        predictions=rules.predict_images.output.test,
        features=rules.predict_images.output.features,
    output:
        report(layout.run.figures / "embedding.html", **menu.shown("embedding", "map of the test images")),
    params:
        images=layout.images,
    log:
        f"{layout.run_logs}/map_embedding.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.evaluate.map_embedding --predictions {input.predictions:q} --features {input.features:q}"
        f" --images {{params.images:q}} --title '{layout.title}' --seed {{wildcards.seed}}"
        " --output {output:q} --log {log:q}"


rule explain_model:
    message:
        f"explaining {layout.title}"
    input:
        config=rules.patch_config.output,
        checkpoint=rules.train_model.output.best,
        predictions=rules.predict_images.output.test,
        features=rules.predict_images.output.features,
    output:
        report(layout.run.figures / "gradcam.html", **menu.shown("explain", "what the model looks at (Grad-CAM)")),
    params:
        images=layout.images,
    log:
        f"{layout.run_logs}/explain_model.log",
    group:
        resources.run_group
    threads: resources.threads
    resources:
        gpu=resources.gpus,
    shell:
        "python -m scripts.evaluate.explain_model --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --images {params.images:q} --predictions {input.predictions:q} --features {input.features:q}"
        f" --output {{output:q}} --title '{layout.title}'"
        " --threads {threads} --cards {resources.gpu} --log {log:q}"


rule export_model:
    message:
        f"exporting {layout.title}, to ONNX"
    input:
        config=rules.patch_config.output,
        checkpoint=rules.train_model.output.best,
        split=layout.test,
        classes=rules.split_dataset.output.classes,
        predictions=rules.predict_images.output.test,
    output:
        onnx=layout.run.onnx,
        json=layout.run.export,
        example=layout.run.onnx_example,
        html=report(layout.run.export_page, **menu.shown("export", "the model as ONNX")),
    params:
        images=layout.images,
    log:
        f"{layout.run_logs}/export_model.log",
    group:
        resources.run_group
    threads: resources.threads
    shell:
        "python -m scripts.evaluate.export_model --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --images {params.images:q} --split {input.split:q} --classes {input.classes:q}"
        " --predictions {input.predictions:q} --output {output.onnx:q} --parity {output.json:q}"
        " --example {output.example:q} --html {output.html:q} --threads {threads} --log {log:q}"


rule describe_model:
    message:
        f"listing the layers of {layout.title}"
    input:
        config=rules.patch_config.output,
        checkpoint=rules.train_model.output.best,
    output:
        html=report(layout.run.model_page, **menu.shown("model", "layers, parameters, FLOPs")),
        json=layout.run.model,
    log:
        f"{layout.run_logs}/describe_model.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.evaluate.describe_model --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --output {output.html:q} --json {output.json:q} --log {log:q}"


rule plot_training_curves:
    message:
        f"drawing the training curves of {layout.title}"
    input:
        rules.train_model.output.log,
    output:
        report(layout.run.figures / "training_curves.svg", **menu.shown("training_curves", "training curves")),
    log:
        f"{layout.run_logs}/plot_training_curves.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.evaluate.plot_training_curves --train-log {input:q} --output {output:q}"
        f" --title '{layout.title}' --log {{log:q}}"


# --- report -----------------------------------------------------------------------------------------------------------


rule record_provenance:
    message:
        f"recording where the numbers of {layout.title} come from"
    input:
        archives=layout.archives,
        labels=list(layout.label_files.values()),
        classes=rules.split_dataset.output.classes,
        train=layout.train,
        val=layout.val,
        test=layout.test,
        config=rules.patch_config.output,
        checkpoint=layout.checkpoint_of,
        best=rules.train_model.output.best,
        metrics=rules.evaluate_model.output.metrics,
    output:
        json=layout.run.provenance,
        html=report(layout.run.provenance_page, **menu.shown("provenance", "config and environment")),
    params:
        run=subpath(output.json, parent=True),
        splits=subpath(input.train, parent=True),
        records=layout.archive_records(),
        labels=options.labels,
        checkpoint=options.checkpoint,
        settings=options.run_json,
    log:
        f"{layout.run_logs}/record_provenance.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.report.record_provenance --run-dir {params.run:q} --archive {input.archives:q}"
        " --archive-record {params.records:q} {params.labels} --splits {params.splits:q} --classes {input.classes:q} {params.checkpoint}"
        " --config {input.config:q} --settings {params.settings:q} --output {output.json:q} --html {output.html:q}"
        " --log {log:q}"


rule write_model_card:
    message:
        f"writing the model card of {layout.title}"
    input:
        provenance=rules.record_provenance.output.json,
        metrics=rules.evaluate_model.output.metrics,
        per_class=rules.evaluate_model.output.per_class,
        predictions=rules.predict_images.output.test,
        val=rules.predict_images.output.val,
        model=rules.describe_model.output.json,
        audit=rules.audit_images.output.json,
        export=layout.export_of,
    output:
        markdown=layout.run.model_card,
        html=report(layout.run.model_card_page, **menu.shown("model_card", "model card")),
    params:
        run=subpath(output.markdown, parent=True),
        licence=options.licence,
        export=options.export,
    log:
        f"{layout.run_logs}/write_model_card.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.report.write_model_card --run {params.run:q} --model {input.model:q} {params.export}"
        " --val-predictions {input.val:q} --audit-summary {input.audit:q} {params.licence}"
        " --output {output.markdown:q} --html {output.html:q} --log {log:q}"


rule compare_runs:
    message:
        f"comparing the runs of {layout.dataset}"
    input:
        metrics=layout.runs(layout.run.metrics),
        predictions=layout.runs(layout.run.predictions),
        logs=layout.runs(layout.run.train_log),
        provenance=layout.runs(layout.run.provenance),
        audit=rules.audit_images.output.csv,
    output:
        csv=f"{layout.dataset}/leaderboard.csv",
        costs=f"{layout.dataset}/costs.csv",
        comparisons=(
            report(
                f"{layout.dataset}/comparisons.csv",
                **menu.shown("comparisons", "comparisons", category="Leaderboard"),
            )
            if len(layout.experiments) > 1  # else the table is empty
            else f"{layout.dataset}/comparisons.csv"
        ),
        html=report(f"{layout.dataset}/leaderboard.html", **menu.shown("leaderboard", "table", category="Leaderboard")),
        figure=report(
            f"{layout.dataset}/figures/leaderboard.svg",
            **menu.shown("leaderboard_figure", "figure", category="Leaderboard"),
        ),
    params:
        runs=layout.runs(layout.run.path),
        price=options.price,
    log:
        f"{layout.logs}/compare_runs.log",
    shell:
        "python -m scripts.report.compare_runs --runs {params.runs:q} --leaderboard {output.csv:q}"
        " --costs {output.costs:q} --comparisons {output.comparisons:q} {params.price} --audit {input.audit:q}"
        " --figure {output.figure:q} --html {output.html:q} --log {log:q}"


rule describe_crate:
    message:
        f"describing {layout.dataset} as an RO-Crate"
    input:
        leaderboard=rules.compare_runs.output.csv,
        provenance=layout.runs(layout.run.provenance),
        shown=layout.run_results(),
        audit=rules.describe_data.output,
    output:
        f"{layout.dataset}/ro-crate-metadata.json",
    params:
        folder=subpath(output[0], parent=True),
        runs=layout.runs(layout.run.path),
        licence=options.licence,
    log:
        f"{layout.logs}/describe_crate.log",
    shell:
        "python -m scripts.report.describe_crate --folder {params.folder:q} --runs {params.runs:q} {params.licence}"
        " --output {output:q} --log {log:q}"


onstart:
    controller.take(slurm=workflow.non_local_exec)


onsuccess:
    controller.release()
    # In braces, since Snakemake formats a shell line, and JSON is full of braces.
    shell("{report}", report=session.report_command(workflow))


onerror:
    controller.release()
    session.tell_errors()
