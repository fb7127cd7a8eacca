# The whole experiment: data -> model -> training -> evaluation -> report. `snakemake --help`, README.md, docs/.
from snakemake.utils import min_version

min_version("9.27")

# Snakemake merges `configfile:` with --configfile: with one, nothing of the demo may remain.
if not workflow.overwrite_configfiles:

    configfile: "configs/demo.yaml"


from scripts.lib.workflow.session import Session

session = Session(config, workflow.configfiles)
layout = session.layout


report: layout.caption("workflow")


controller = session.controller(workflow)

shell.prefix(session.shell_prefix())


wildcard_constraints:
    experiment="|".join(map(re.escape, layout.experiments)),
    seed="[0-9]+",
    fold="[0-9]+",
    edge="[0-9]+",
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
    input:
        layout.targets(),
    message:
        "everything that results/ is to hold"


# --- data -------------------------------------------------------------------------------------------------------------


rule fetch_archive:
    input:
        layout.local_source,
    output:
        layout.fetched,
    log:
        layout.fetch_log,
    params:
        source=layout.source_json,
        record=layout.record_of,
        state=layout.folder_state,
    message:
        "fetching {output}"
    shell:
        "python -m scripts.data.fetch_archive --source {params.source:q} --output {output:q} --record {params.record:q}"
        " --log {log:q}"


rule unpack_archive:
    input:
        archives=layout.archives,
        labels=list(layout.label_files.values()),
    output:
        directory(f"{layout.dataset}/images"),
    log:
        f"{layout.logs}/unpack_archive.log",
    group:
        layout.data_group
    resources:
        gpu=layout.data_gpus,
    params:
        sources=layout.sources_option(),
    message:
        "unpacking {input.archives}"
    shell:
        "python -m scripts.data.unpack_archive --archive {input.archives:q} {params.sources} --output {output:q}"
        " --log {log:q}"


rule audit_images:
    input:
        rules.unpack_archive.output,
    output:
        csv=f"{layout.dataset}/audit.csv",
        json=f"{layout.dataset}/audit.json",
    log:
        f"{layout.logs}/audit_images.log",
    group:
        layout.data_group
    threads: layout.data_threads(workflow)
    resources:
        gpu=layout.data_gpus,
    params:
        on_bad_image=layout.settings.dataset.on_bad_image,
        # Never an output: Snakemake deletes outputs before a rerun, and what is in here is not decoded again.
        cache=f"{layout.dataset}/audit.cache",
        group_by=layout.group_by_option(),
    message:
        "looking for bad data in {input}"
    shell:
        "python -m scripts.data.audit_images --images {input:q} --on-bad-image {params.on_bad_image} {params.group_by}"
        " --cache {params.cache:q} --threads {threads} --output {output.csv:q} --summary {output.json:q} --log {log:q}"


rule split_dataset:
    input:
        images=rules.unpack_archive.output,
        audit=rules.audit_images.output.csv,
    output:
        train=layout.splits("train"),
        val=layout.splits("val"),
        test=layout.splits("test"),
        classes=f"{layout.dataset}/classes.txt",
    log:
        f"{layout.logs}/split_dataset.log",
    group:
        layout.data_group
    params:
        split=layout.settings.dataset.split,
        classes=layout.classes_option(),
        group_by=layout.group_by_option(),
        folds=layout.folds_option(),
        folder=subpath(output.classes, parent=True),
    message:
        "splitting {input.images} into train, val and test"
    shell:
        "python -m scripts.data.split_dataset --images {input.images:q} --audit {input.audit:q}"
        " --val {params.split.val} --test {params.split.test} --seed {params.split.seed} {params.group_by}"
        " {params.folds} {params.classes} --output {params.folder:q}/splits --class-list {output.classes:q} --log {log:q}"


rule describe_data:
    input:
        audit=rules.audit_images.output.csv,
        summary=rules.audit_images.output.json,
        train=rules.split_dataset.output.train,
        classes=rules.split_dataset.output.classes,
    output:
        report(f"{layout.dataset}/audit.html", **layout.shown("audit", "audit of the images", category="Data")),
    log:
        f"{layout.logs}/describe_data.log",
    params:
        images=f"{layout.dataset}/images",
        folder=subpath(input.classes, parent=True),
        dataset=layout.settings.dataset.name,
    message:
        "describing the images of {layout.dataset}"
    shell:
        "python -m scripts.data.describe_data --audit {input.audit:q} --summary {input.summary:q}"
        " --images {params.images:q} --splits {params.folder:q}/splits --classes {input.classes:q} --title {params.dataset:q}"
        " --output {output:q} --log {log:q}"


rule pack_images:
    input:
        images=rules.unpack_archive.output,
        splits=[rules.split_dataset.output.train, rules.split_dataset.output.val],  # of all folds
    output:
        directory(layout.packed),
    log:
        f"{layout.logs}/pack_images_{{edge}}.log",
    group:
        layout.data_group
    threads: layout.data_threads(workflow)
    resources:
        gpu=layout.data_gpus,
    message:
        "decoding the images once, {wildcards.edge} pixels the shorter side"
    shell:
        "python -m scripts.data.pack_images --images {input.images:q} --splits {input.splits:q} --edge {wildcards.edge}"
        " --threads {threads} --output {output:q} --log {log:q}"


# --- model ------------------------------------------------------------------------------------------------------------


rule fetch_checkpoint:
    input:
        layout.local_checkpoint,
    output:
        layout.checkpoint,
    log:
        "logs/checkpoints/{checkpoint}.log",
    params:
        checkpoint=layout.checkpoint_json,
        base_config=layout.checkpoint_base,
    message:
        "fetching pretrained weights: {wildcards.checkpoint}"
    shell:
        "python -m scripts.train.fetch_checkpoint --checkpoint {params.checkpoint:q} --base-config {params.base_config:q}"
        " --output {output:q} --log {log:q}"


# --- train ------------------------------------------------------------------------------------------------------------


rule patch_config:
    input:
        classes=rules.split_dataset.output.classes,
        train=layout.train,
        checkpoint=layout.checkpoint_of,
    output:
        f"{layout.run}/config.py",
    log:
        f"{layout.run_logs}/patch_config.log",
    group:
        layout.run_group
    params:
        experiment=layout.experiment_json,
        checkpoint=layout.checkpoint_option,
        packed=layout.packed_option,
        images=f"{layout.dataset}/images",
        splits=subpath(input.train, parent=True),
    message:
        f"writing the config of {layout.title}"
    shell:
        "python -m scripts.train.patch_config --name {wildcards.experiment:q} --experiment {params.experiment:q}"
        " --seed {wildcards.seed}"
        " --classes {input.classes:q} --splits {params.splits:q} --images {params.images:q} {params.checkpoint}"
        " {params.packed} --output {output:q} --log {log:q}"


rule fit_head:
    input:
        config=rules.patch_config.output,
        checkpoint=layout.checkpoint_of,
        packed=layout.pack_of,
        train=layout.train,
        val=layout.val,
        classes=rules.split_dataset.output.classes,
    output:
        f"{layout.run}/init.pth",
    log:
        f"{layout.run_logs}/fit_head.log",
    group:
        layout.run_group
    threads: lambda wildcards: layout.experiment(wildcards).threads
    resources:
        gpu=layout.gpus,
        nodes=1,
    message:
        f"fitting the head of {layout.title}"
    shell:
        "python -m scripts.train.fit_head --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --packed {input.packed:q} --train {input.train:q} --val {input.val:q} --classes {input.classes:q}"
        " --output {output:q} --cards {resources.gpu} --log {log:q}"


rule train_model:
    input:
        config=rules.patch_config.output,
        splits=[layout.train, layout.val],
        packed=layout.pack_of,
        checkpoint=layout.start_of,
    output:
        best=f"{layout.run}/best.pth",
        last=f"{layout.run}/last.pth",
        log=f"{layout.run}/train_log.csv",
    log:
        f"{layout.run_logs}/train_model.log",
    group:
        layout.run_group
    threads: lambda wildcards: layout.experiment(wildcards).threads
    resources:
        gpu=layout.gpus,
        nodes=1,  # all cards of a run are in one
    params:
        # Never an output: Snakemake deletes outputs before a rerun, and training goes on from what is in here.
        work_dir=f"{layout.run}/work",
        record=layout.records(),
    message:
        f"training {layout.title}"
    shell:
        "python -m scripts.train.train_model --config {input.config:q} --seed {wildcards.seed}"
        " --work-dir {params.work_dir:q} --best {output.best:q} --last {output.last:q} --train-log {output.log:q}"
        " --depends-on {input.splits:q} {input.checkpoint:q} {params.record:q} --cards {resources.gpu} --log {log:q}"


# --- evaluate ---------------------------------------------------------------------------------------------------------


rule predict_images:
    input:
        config=rules.patch_config.output,
        checkpoint=rules.train_model.output.best,
        test=layout.test,
        val=layout.val,
        classes=rules.split_dataset.output.classes,
    output:
        test=f"{layout.run}/predictions.csv",
        val=f"{layout.run}/val_predictions.csv",
        features=f"{layout.run}/features.npy",
    log:
        f"{layout.run_logs}/predict_images.log",
    group:
        layout.run_group
    threads: lambda wildcards: layout.experiment(wildcards).threads
    resources:
        gpu=layout.gpus,
    params:
        images=f"{layout.dataset}/images",
    message:
        f"predicting the test and val splits with {layout.title}"
    shell:
        "python -m scripts.evaluate.predict_images --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --images {params.images:q} --split {input.test:q} {input.val:q} --classes {input.classes:q}"
        " --output {output.test:q} {output.val:q} --features {output.features:q}"
        " --threads {threads} --cards {resources.gpu} --log {log:q}"


rule evaluate_model:
    input:
        predictions=rules.predict_images.output.test,
        train=layout.train,
    output:
        metrics=f"{layout.run}/metrics.json",
        per_class=report(f"{layout.run}/per_class.csv", **layout.shown("per_class", "metrics of each class")),
    log:
        f"{layout.run_logs}/evaluate_model.log",
    group:
        layout.run_group
    params:
        dataset=layout.settings.dataset.name,
        fold=layout.fold_option,
    message:
        f"evaluating {layout.title}"
    shell:
        "python -m scripts.evaluate.evaluate_model --predictions {input.predictions:q} --train {input.train:q}"
        " --dataset {params.dataset:q} --experiment {wildcards.experiment:q} --seed {wildcards.seed} {params.fold}"
        " --metrics {output.metrics:q}"
        " --per-class {output.per_class:q} --log {log:q}"


rule plot_predictions:
    input:
        test=rules.predict_images.output.test,
        val=rules.predict_images.output.val,
    output:
        report(f"{layout.run}/figures/confusion_matrix.svg", **layout.shown("confusion_matrix", "confusion matrix")),
        report(f"{layout.run}/figures/classes.svg", **layout.shown("classes", "classes, the worst first")),
        report(f"{layout.run}/figures/curves.svg", **layout.shown("curves", "precision-recall, ROC and top-k curves")),
        report(f"{layout.run}/figures/reliability.svg", **layout.shown("reliability", "calibration")),
        report(f"{layout.run}/figures/selective.svg", **layout.shown("selective", "accuracy against confidence")),
        report(f"{layout.run}/figures/errors.html", **layout.shown("errors", "the most confident errors")),
    log:
        f"{layout.run_logs}/plot_predictions.log",
    group:
        layout.run_group
    params:
        images=f"{layout.dataset}/images",
        figures=subpath(output[0], parent=True),
    message:
        f"drawing the predictions of {layout.title}"
    shell:
        "python -m scripts.evaluate.plot_predictions --predictions {input.test:q} --val-predictions {input.val:q}"
        " --images {params.images:q} --output {params.figures:q}"
        f" --title '{layout.title}' --log {{log:q}}"


rule map_embedding:
    input:
        predictions=rules.predict_images.output.test,
        features=rules.predict_images.output.features,
    output:
        report(f"{layout.run}/figures/embedding.html", **layout.shown("embedding", "map of the test images")),
    log:
        f"{layout.run_logs}/map_embedding.log",
    group:
        layout.run_group
    params:
        images=f"{layout.dataset}/images",
    message:
        f"mapping the test images as {layout.title}, sees them"
    shell:
        "python -m scripts.evaluate.map_embedding --predictions {input.predictions:q} --features {input.features:q}"
        f" --images {{params.images:q}} --title '{layout.title}' --seed {{wildcards.seed}}"
        " --output {output:q} --log {log:q}"


rule explain_model:
    input:
        config=rules.patch_config.output,
        checkpoint=rules.train_model.output.best,
        predictions=rules.predict_images.output.test,
        features=rules.predict_images.output.features,
    output:
        report(f"{layout.run}/figures/gradcam.html", **layout.shown("explain", "what the model looks at (Grad-CAM)")),
    log:
        f"{layout.run_logs}/explain_model.log",
    group:
        layout.run_group
    resources:
        gpu=layout.gpus,
    params:
        images=f"{layout.dataset}/images",
    message:
        f"explaining {layout.title}"
    shell:
        "python -m scripts.evaluate.explain_model --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --images {params.images:q} --predictions {input.predictions:q} --features {input.features:q}"
        f" --output {{output:q}} --title '{layout.title}'"
        " --threads {threads} --cards {resources.gpu} --log {log:q}"


rule export_model:
    input:
        config=rules.patch_config.output,
        checkpoint=rules.train_model.output.best,
        split=layout.test,
        classes=rules.split_dataset.output.classes,
        predictions=rules.predict_images.output.test,
    output:
        onnx=f"{layout.run}/model.onnx",
        json=f"{layout.run}/export.json",
        example=f"{layout.run}/onnx_example.py",
        html=report(f"{layout.run}/export.html", **layout.shown("export", "the model as ONNX")),
    log:
        f"{layout.run_logs}/export_model.log",
    group:
        layout.run_group
    threads: lambda wildcards: layout.experiment(wildcards).threads
    params:
        images=f"{layout.dataset}/images",
    message:
        f"exporting {layout.title}, to ONNX"
    shell:
        "python -m scripts.evaluate.export_model --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --images {params.images:q} --split {input.split:q} --classes {input.classes:q}"
        " --predictions {input.predictions:q} --output {output.onnx:q} --parity {output.json:q}"
        " --example {output.example:q} --html {output.html:q} --threads {threads} --log {log:q}"


rule describe_model:
    input:
        config=rules.patch_config.output,
        checkpoint=rules.train_model.output.best,
    output:
        html=report(f"{layout.run}/model.html", **layout.shown("model", "layers, parameters, FLOPs")),
        json=f"{layout.run}/model.json",
    log:
        f"{layout.run_logs}/describe_model.log",
    group:
        layout.run_group
    message:
        f"listing the layers of {layout.title}"
    shell:
        "python -m scripts.evaluate.describe_model --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --output {output.html:q} --json {output.json:q} --log {log:q}"


rule plot_training_curves:
    input:
        rules.train_model.output.log,
    output:
        report(f"{layout.run}/figures/training_curves.svg", **layout.shown("training_curves", "training curves")),
    log:
        f"{layout.run_logs}/plot_training_curves.log",
    group:
        layout.run_group
    message:
        f"drawing the training curves of {layout.title}"
    shell:
        "python -m scripts.evaluate.plot_training_curves --train-log {input:q} --output {output:q}"
        f" --title '{layout.title}' --log {{log:q}}"


# --- report -----------------------------------------------------------------------------------------------------------


rule record_provenance:
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
        json=f"{layout.run}/provenance.json",
        html=report(f"{layout.run}/provenance.html", **layout.shown("provenance", "config and environment")),
    log:
        f"{layout.run_logs}/record_provenance.log",
    group:
        layout.run_group
    params:
        run=subpath(output.json, parent=True),
        splits=subpath(input.train, parent=True),
        records=layout.archive_records(),
        labels=layout.labels_option(),
        checkpoint=layout.checkpoint_option,
        settings=layout.run_json,
    message:
        f"recording where the numbers of {layout.title} come from"
    shell:
        "python -m scripts.report.record_provenance --run-dir {params.run:q} --archive {input.archives:q}"
        " --archive-record {params.records:q} {params.labels} --splits {params.splits:q} --classes {input.classes:q} {params.checkpoint}"
        " --config {input.config:q} --settings {params.settings:q} --output {output.json:q} --html {output.html:q}"
        " --log {log:q}"


rule write_model_card:
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
        markdown=f"{layout.run}/model_card.md",
        html=report(f"{layout.run}/model_card.html", **layout.shown("model_card", "model card")),
    log:
        f"{layout.run_logs}/write_model_card.log",
    group:
        layout.run_group
    params:
        run=subpath(output.markdown, parent=True),
        licence=layout.licence_option(),
        export=layout.export_option,
    message:
        f"writing the model card of {layout.title}"
    shell:
        "python -m scripts.report.write_model_card --run {params.run:q} --model {input.model:q} {params.export}"
        " --val-predictions {input.val:q} --audit-summary {input.audit:q} {params.licence}"
        " --output {output.markdown:q} --html {output.html:q} --log {log:q}"


rule compare_runs:
    input:
        metrics=layout.runs("metrics.json"),
        predictions=layout.runs("predictions.csv"),
        logs=layout.runs("train_log.csv"),
        provenance=layout.runs("provenance.json"),
        audit=rules.audit_images.output.csv,
    output:
        csv=f"{layout.dataset}/leaderboard.csv",
        costs=f"{layout.dataset}/costs.csv",
        comparisons=(
            report(
                f"{layout.dataset}/comparisons.csv",
                **layout.shown("comparisons", "comparisons", category="Leaderboard"),
            )
            if len(layout.experiments) > 1  # else the table is empty
            else f"{layout.dataset}/comparisons.csv"
        ),
        html=report(
            f"{layout.dataset}/leaderboard.html", **layout.shown("leaderboard", "table", category="Leaderboard")
        ),
        figure=report(
            f"{layout.dataset}/figures/leaderboard.svg",
            **layout.shown("leaderboard_figure", "figure", category="Leaderboard"),
        ),
    log:
        f"{layout.logs}/compare_runs.log",
    params:
        runs=layout.runs(),
        price=layout.price_option(),
    message:
        "comparing the runs of {layout.dataset}"
    shell:
        "python -m scripts.report.compare_runs --runs {params.runs:q} --leaderboard {output.csv:q}"
        " --costs {output.costs:q} --comparisons {output.comparisons:q} {params.price} --audit {input.audit:q}"
        " --figure {output.figure:q} --html {output.html:q} --log {log:q}"


rule describe_crate:
    input:
        leaderboard=rules.compare_runs.output.csv,
        provenance=layout.runs("provenance.json"),
        shown=layout.run_results(),
        audit=rules.describe_data.output,
    output:
        f"{layout.dataset}/ro-crate-metadata.json",
    log:
        f"{layout.logs}/describe_crate.log",
    params:
        folder=subpath(output[0], parent=True),
        runs=layout.runs(),
        licence=layout.licence_option(),
    message:
        "describing {layout.dataset} as an RO-Crate"
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
