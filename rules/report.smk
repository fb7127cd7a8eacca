# What is told of all runs: provenance, model cards, the comparison, the RO-Crate, the report.


rule record_provenance:
    message:
        f"recording where the numbers of {layout.title} come from"
    input:
        archives=layout.archives,
        labels=list(layout.label_files.values()),
        corrections=rules.audit_images.output.corrections,
        classes=rules.split_dataset.output.classes,
        train=layout.train,
        val=layout.val,
        test=layout.test,
        config=rules.patch_config.output,
        checkpoint=layout.checkpoint_of,
        choice=layout.choice_of,
        start=layout.start_of,
        best=rules.train_model.output.best,
        last=rules.train_model.output.last,
        predictions=rules.predict_images.output.test,
        metrics=rules.evaluate_model.output.metrics,
        per_class=rules.evaluate_model.output.per_class,
    output:
        json=layout.run.provenance,
        html=report(layout.run.provenance_page, **menu.shown("provenance", "config and environment")),
    params:
        language=options.language,
        run=subpath(output.json, parent=True),
        splits=subpath(input.train, parent=True),
        records=layout.archive_records(),
        labels=options.labels,
        corrections=options.kept_corrections,
        checkpoint=options.checkpoint,
        choice=options.choice,
        settings=options.run_json,
    log:
        f"{layout.run_logs}/record_provenance.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.report.record_provenance --run {params.run:q} --archive {input.archives:q}"
        " --archive-record {params.records:q} {params.labels} {params.corrections} --splits {params.splits:q} --classes {input.classes:q} {params.checkpoint} {params.choice}"
        " --config {input.config:q} --settings {params.settings:q} --output {output.json:q} --html {output.html:q}"
        " {params.language}"
        " --reads {input:q} {params.records:q} --makes {output:q} --log {log:q}"


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
        suspects=layout.suspects_of_data("json"),
        export=layout.export_of,
    output:
        markdown=layout.run.model_card,
        html=report(layout.run.model_card_page, **menu.shown("model_card", "model card")),
    params:
        language=options.language,
        run=subpath(output.markdown, parent=True),
        license=options.license,
        suspects=options.label_suspects,
        export=options.export,
    log:
        f"{layout.run_logs}/write_model_card.log",
    localrule: True  # in the run's cluster job it would have that wait for the label suspects
    shell:
        "python -m scripts.report.write_model_card --run {params.run:q} --model {input.model:q} {params.export}"
        " --val-predictions {input.val:q} --audit-summary {input.audit:q} {params.suspects} {params.license}"
        " --output {output.markdown:q} --html {output.html:q} {params.language}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule compare_runs:
    message:
        f"comparing the runs of {layout.dataset}"
    input:
        metrics=layout.each(layout.run.metrics),
        predictions=layout.each(layout.run.predictions),
        logs=layout.each(layout.run.train_log),
        provenance=layout.each(layout.run.provenance),
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
        language=options.language,
        runs=layout.runs(layout.run.path),
        price=options.price,
    log:
        f"{layout.logs}/compare_runs.log",
    localrule: True
    shell:
        "python -m scripts.report.compare_runs --runs {params.runs:q} --leaderboard {output.csv:q}"
        " --costs {output.costs:q} --comparisons {output.comparisons:q} {params.price} --audit {input.audit:q}"
        " --figure {output.figure:q} --html {output.html:q} {params.language}"
        " --reads {input.audit:q} --makes {output:q} --log {log:q}"


rule describe_crate:
    message:
        f"describing {layout.dataset} as an RO-Crate"
    input:
        leaderboard=rules.compare_runs.output.csv,
        provenance=layout.each(layout.run.provenance),
        shown=layout.run_results,
        audit=rules.describe_data.output,
        suspects=layout.suspects_of_data("html"),
    output:
        f"{layout.dataset}/ro-crate-metadata.json",
    params:
        folder=subpath(output[0], parent=True),
        runs=layout.runs(layout.run.path),
        license=options.license,
    log:
        f"{layout.logs}/describe_crate.log",
    localrule: True
    shell:
        "python -m scripts.report.describe_crate --folder {params.folder:q} --runs {params.runs:q} {params.license}"
        " --output {output:q}"
        " --makes {output:q} --log {log:q}"


rule write_try_page:
    message:
        f"writing {layout.try_page}"
    input:
        leaderboard=rules.compare_runs.output.csv,
        exports=layout.runs(layout.run.export, experiments=layout.exported()),
        predictions=layout.runs(layout.run.predictions, experiments=layout.exported()),
        train=layout.splits("train"),
    output:
        layout.try_page,
    params:
        language=options.language,
        images=layout.images,
        runs=layout.runs(layout.run.path, experiments=layout.exported()),
        train=layout.runs(layout.train, experiments=layout.exported()),
    log:
        f"{layout.logs}/write_try_page.log",
    localrule: True
    shell:
        "python -m scripts.report.write_try_page --leaderboard {input.leaderboard:q} --runs {params.runs:q}"
        " --train {params.train:q} --images {params.images:q} --output {output:q} {params.language}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule write_report:
    message:
        f"writing {layout.report}"
    input:
        layout.results,
    output:
        layout.report,
    params:
        settings=session.settings_json,
        dataset=subpath(output[0], parent=True),
    log:
        f"{layout.logs}/write_report.log",
    localrule: True
    shell:
        "python -m scripts.report.write_report --settings {params.settings:q}"
        " --dataset {params.dataset:q}"
        " --makes {output:q} {params.dataset:q}/settings.yaml --log {log:q}"
