# From pretrained weights and the settings of an experiment to a trained model.


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
        optional=options.optional,
    log:
        "logs/checkpoints/{checkpoint}.log",
    localrule: True
    shell:
        "python -m scripts.train.fetch_checkpoint --checkpoint {params.checkpoint:q} --base-config {params.base_config:q}"
        " {params.optional} --output {output:q}"
        " --makes {output:q} --log {log:q}"


rule patch_config:
    message:
        f"writing the config of {layout.title}"
    input:
        classes=rules.split_dataset.output.classes,
        train=layout.train,
        checkpoint=layout.checkpoint_of,
        choice=layout.choice_of,
        base_config=layout.base_files_of,
    output:
        layout.run.config,
    params:
        experiment=options.experiment_json,
        choice=options.choice,
        checkpoint=options.checkpoint,
        pixel_cache=options.pixel_cache,
        reading=options.reading,
        images=layout.images,
        splits=subpath(input.train, parent=True),
    log:
        f"{layout.run_logs}/patch_config.log",
    group:
        resources.group_before_training
    shell:
        "python -m scripts.train.patch_config --name {wildcards.experiment:q} --experiment {params.experiment:q}"
        " {params.choice} --seed {wildcards.seed}"
        " --classes {input.classes:q} --splits {params.splits:q} --images {params.images:q} {params.checkpoint}"
        " {params.pixel_cache} {params.reading} --output {output:q}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule fit_head:
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
        f"{layout.run_logs}/fit_head.log",
    group:
        resources.group_before_training
    threads: resources.threads
    resources:
        gpu=resources.gpus,
        nodes=1,
    shell:
        "python -m scripts.train.fit_head --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --pixel-cache {input.pixel_cache:q} --train {input.train:q} --val {input.val:q} --classes {input.classes:q}"
        " --output {output:q} --gpus {resources.gpu}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


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
        resources.training_group
    threads: resources.threads
    resources:
        gpu=resources.training_gpus(workflow),
        gres=resources.gpus_by_node(workflow),
        nodes=resources.nodes,
        mpi=resources.starts_itself,
        tasks=resources.tasks,
        tasks_per_gpu=resources.tasks_per_gpu,
        trainings_on_nodes=resources.trainings_on_nodes,
    shell:
        "python -m scripts.train.train_model --config {input.config:q} --seed {wildcards.seed}"
        " --work-dir {params.work_dir:q} --best {output.best:q} --last {output.last:q} --train-log {output.log:q}"
        " --depends-on {input.splits:q} {input.checkpoint:q} {params.record:q} --gpus {resources.gpu}"
        " --reads {input:q} {params.record:q} --makes {output:q} --log {log:q}"
