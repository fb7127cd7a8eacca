# base_config: auto: from a list of candidates to the one that is best on val. Test is not read.


rule probe_candidate:
    message:
        "trying {wildcards.candidate} for {wildcards.experiment}"
    input:
        checkpoint=layout.candidate_checkpoint,
        pixel_cache=layout.candidate_pixel_cache,
        train=layout.train,
        val=layout.val,
        classes=rules.split_dataset.output.classes,
    output:
        json=f"{layout.candidate}/probe.json",
        init=f"{layout.candidate}/{layout.run.init.name}",
        config=f"{layout.candidate}/{layout.run.config.name}",
    params:
        experiment=options.candidate_json,
        seconds=options.probe_seconds,
        reading=options.reading,
        images=layout.images,
        splits=subpath(input.train, parent=True),
        seed=layout.seeds[0],
    log:
        f"{layout.search_logs}/{{candidate}}.log",
    group:
        resources.probe_group
    threads: resources.threads
    resources:
        gpu=resources.gpus,
        nodes=1,
    shell:
        "python -m scripts.search.probe_candidate --name {wildcards.candidate:q} --experiment {params.experiment:q}"
        " --seed {params.seed} --checkpoint {input.checkpoint:q} --pixel-cache {input.pixel_cache:q}"
        " --images {params.images:q} --splits {params.splits:q} --classes {input.classes:q} {params.reading}"
        " {params.seconds} --config {output.config:q} --init {output.init:q} --output {output.json:q}"
        " --gpus {resources.gpu}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule choose_finalists:
    message:
        "choosing what round {wildcards.round} trains for {wildcards.experiment}"
    input:
        probes=layout.probes,
        rounds=layout.rounds,
        logs=layout.finalist_logs,
        weights=layout.finalist_weights,
        train=layout.train,
        val=layout.val,
    output:
        json=f"{layout.search}/round{{round}}.json",
        configs=layout.starts_of_round(layout.finalist.config.name),
        inits=layout.starts_of_round(layout.finalist.init.name),
    params:
        folder=layout.search,
        slots=layout.slots,
        minutes=options.search_minutes,
    log:
        f"{layout.search_logs}/round{{round}}.log",
    localrule: True
    shell:
        "python -m scripts.search.choose_finalists --folder {params.folder:q} --round {wildcards.round}"
        " --probes {input.probes:q} --train {input.train:q} --val {input.val:q} --slots {params.slots}"
        " {params.minutes} --output {output.json:q}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule train_finalist:
    message:
        "training a finalist of round {wildcards.round} for {wildcards.experiment}"
    input:
        config=layout.finalist.config,
        init=layout.finalist.init,
        splits=[layout.train, layout.val],
        pixel_cache=layout.pixel_cache_of,
    output:
        best=layout.finalist.best,
        last=layout.finalist.last,
        log=layout.finalist.train_log,
    params:
        # Never an output: as in train_model.
        work_dir=str(layout.finalist.work),
        record=layout.records(),
        seed=layout.seed_of_round,
    log:
        f"{layout.search_logs}/round{{round}}_{{slot}}.log",
    group:
        resources.finalist_group
    threads: resources.threads
    resources:
        gpu=resources.gpus,
        nodes=1,
    shell:
        "python -m scripts.search.train_finalist --config {input.config:q} --seed {params.seed}"
        " --work-dir {params.work_dir:q} --best {output.best:q} --last {output.last:q} --train-log {output.log:q}"
        " --depends-on {input.splits:q} {input.init:q} {params.record:q} --gpus {resources.gpu}"
        " --reads {input:q} {params.record:q} --makes {output:q} --log {log:q}"


rule choose_model:
    message:
        "choosing the model of {wildcards.experiment}"
    input:
        probes=layout.probes,
        checkpoints=layout.candidate_checkpoints,
        rounds=layout.rounds,
        logs=layout.finalist_logs,
        val=layout.val,
    output:
        json=layout.choice,
        weights=f"{layout.search}/weights.pth",
    log:
        f"{layout.search_logs}/choose_model.log",
    localrule: True
    shell:
        "python -m scripts.search.choose_model --probes {input.probes:q} --checkpoints {input.checkpoints:q}"
        " --rounds {input.rounds:q} --val {input.val:q} --output {output.json:q} --weights {output.weights:q}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule describe_search:
    message:
        "describing the candidates of {wildcards.experiment}"
    input:
        layout.choice,
    output:
        report(layout.search_page, **menu.shown("search", "candidates", category="Leaderboard")),
    params:
        language=options.language,
    log:
        f"{layout.search_logs}/describe_search.log",
    localrule: True
    shell:
        "python -m scripts.search.describe_search --choice {input:q} --title {wildcards.experiment:q} --output {output:q}"
        " {params.language}"
        " --reads {input:q} --makes {output:q} --log {log:q}"
