# From the source to images in train, val and test: fetched, unpacked, audited, split, decoded once.


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
    localrule: True
    shell:
        "python -m scripts.data.fetch_archive --source {params.source:q} --output {output:q} --record {params.record:q}"
        " --makes {output:q} {params.record:q} --log {log:q}"


rule unpack_archive:
    message:
        "unpacking {input.archives}"
    input:
        archives=layout.archives,
        labels=list(layout.label_files.values()),
    output:
        images=directory(layout.images),
        record=f"{layout.dataset}/unpacked.json",
    params:
        sources=options.sources,
    log:
        f"{layout.logs}/unpack_archive.log",
    group:
        resources.unpack_group
    resources:
        gpu=resources.data_gpus,
    shell:
        "python -m scripts.data.unpack_archive --archive {input.archives:q} {params.sources}"
        " --output {output.images:q} --record {output.record:q}"
        " --makes {output.record:q} --log {log:q}"


# After this, Snakemake plans the jobs of the shards.
if layout.settings.data_shards == "auto":

    checkpoint count_images:
        message:
            "counting the images of {input.images}"
        input:
            images=rules.unpack_archive.output.images,
        output:
            layout.shards,
        log:
            f"{layout.logs}/count_images.log",
        localrule: True
        shell:
            "python -m scripts.data.count_images --images {input.images:q} --output {output:q}"
            " --makes {output:q} --log {log:q}"


# With data_shards: N, N jobs of their own, whose products are removed once they are put together.
rule check_images:
    message:
        "looking for bad data in shard {wildcards.shard} of the images"
    input:
        images=rules.unpack_archive.output.images,
    output:
        temp(layout.checks),
    params:
        # Never an output: see audit_images.
        cache=layout.checks_cache,
        reading=options.reading,
    log:
        f"{layout.logs}/check_images_{{shard}}.log",
    threads: resources.data_threads(workflow)
    resources:
        gpu=resources.data_gpus,
    shell:
        "python -m scripts.data.check_images --images {input.images:q} --shard {wildcards.shard} {params.reading}"
        " --cache {params.cache:q} --threads {threads} --output {output:q}"
        " --makes {output:q} --log {log:q}"


rule audit_images:
    message:
        "looking for bad data in {input.images}"
    input:
        images=rules.unpack_archive.output.images,
        record=rules.unpack_archive.output.record,
        shards=layout.in_shards(layout.checks, checkpoints),
        corrections=layout.corrections,
    output:
        csv=f"{layout.dataset}/audit.csv",
        json=f"{layout.dataset}/audit.json",
        corrections=f"{layout.dataset}/corrections.csv",
        corrected=f"{layout.dataset}/corrected.csv",
    params:
        on_bad_image=layout.settings.dataset.on_bad_image,
        # Never an output: Snakemake deletes outputs before a rerun, and what is in here is not decoded again.
        cache=f"{layout.dataset}/audit.cache",
        reading=options.reading,
        group_by=options.group_by,
        corrections=options.corrections,
    log:
        f"{layout.logs}/audit_images.log",
    group:
        resources.data_group
    threads: resources.data_threads(workflow)
    resources:
        gpu=resources.data_gpus,
    shell:
        "python -m scripts.data.audit_images --images {input.images:q} --unpacked {input.record:q} --on-bad-image {params.on_bad_image} {params.group_by}"
        " {params.reading} {params.corrections} --kept-corrections {output.corrections:q} --corrected {output.corrected:q}"
        " --cache {params.cache:q} --threads {threads} --output {output.csv:q} --summary {output.json:q}"
        " --shards {input.shards:q}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule split_dataset:
    message:
        "splitting {input.images} into train, val and test"
    input:
        images=rules.unpack_archive.output.images,
        audit=rules.audit_images.output.csv,
        corrected=rules.audit_images.output.corrected,
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
        "python -m scripts.data.split_dataset --images {input.images:q} --audit {input.audit:q} --corrected {input.corrected:q}"
        " --val {params.split.val} --test {params.split.test} --seed {params.split.seed} {params.group_by}"
        " {params.folds} {params.classes} --output {params.folder:q}/splits --class-list {output.classes:q}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule describe_data:
    message:
        f"describing the images of {layout.dataset}"
    input:
        audit=rules.audit_images.output.csv,
        summary=rules.audit_images.output.json,
        corrected=rules.audit_images.output.corrected,
        train=rules.split_dataset.output.train,
        classes=rules.split_dataset.output.classes,
    output:
        report(f"{layout.dataset}/audit.html", **menu.shown("audit", "audit of the images", category="Data")),
    params:
        language=options.language,
        background=options.background,
        images=layout.images,
        folder=subpath(input.classes, parent=True),
        dataset=layout.settings.dataset.name,
        labels_page=options.labels_page,
    log:
        f"{layout.logs}/describe_data.log",
    localrule: True
    shell:
        "python -m scripts.data.describe_data --audit {input.audit:q} --summary {input.summary:q}"
        " --images {params.images:q} --splits {params.folder:q}/splits --classes {input.classes:q} --title {params.dataset:q}"
        " --corrected {input.corrected:q} {params.labels_page} --output {output:q} {params.background} {params.language}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule decode_images:
    message:
        "decoding shard {wildcards.shard} of the images, with {wildcards.short_side} pixels on the short side"
    input:
        images=rules.unpack_archive.output.images,
        splits=[rules.split_dataset.output.train, rules.split_dataset.output.val],  # of all folds
    output:
        temp(directory(layout.decoded)),
    params:
        reading=options.reading,
    log:
        f"{layout.logs}/decode_images_{{short_side}}_{{shard}}.log",
    threads: resources.data_threads(workflow)
    resources:
        gpu=resources.data_gpus,
    shell:
        "python -m scripts.data.decode_images --images {input.images:q} --splits {input.splits:q}"
        " --short-side {wildcards.short_side} --shard {wildcards.shard} --threads {threads} {params.reading}"
        " --output {output:q}"
        " --reads {input.splits:q} --makes {output:q} --log {log:q}"


rule pack_images:
    message:
        "decoding the images once, with {wildcards.short_side} pixels on the short side"
    input:
        images=rules.unpack_archive.output.images,
        splits=[rules.split_dataset.output.train, rules.split_dataset.output.val],  # of all folds
        shards=layout.in_shards(layout.decoded, checkpoints),
    output:
        directory(layout.pixel_cache),
    params:
        reading=options.reading,
    log:
        f"{layout.logs}/pack_images_{{short_side}}.log",
    group:
        resources.pack_group
    threads: resources.data_threads(workflow)
    resources:
        gpu=resources.data_gpus,
    shell:
        "python -m scripts.data.pack_images --images {input.images:q} --splits {input.splits:q} --short-side {wildcards.short_side}"
        " --threads {threads} {params.reading} --output {output:q} --shards {input.shards:q}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule find_label_suspects:
    message:
        f"looking for wrong labels in {layout.dataset}"
    input:
        checkpoint=layout.judge_checkpoint,
        pixel_cache=layout.judge_pixel_cache,
        train=layout.splits("train")[0],
        other_splits=[layout.splits(split)[0] for split in ("val", "test")],
        classes=rules.split_dataset.output.classes,
        audit=rules.audit_images.output.csv,
    output:
        csv=f"{layout.dataset}/label_suspects.csv",
        json=f"{layout.dataset}/label_suspects.json",
    params:
        judge=options.label_judge,
        reading=options.reading,
        group_by=options.group_by,
        images=layout.images,
        splits=subpath(input.train, parent=True),
        seed=layout.seeds[0],
    log:
        f"{layout.logs}/find_label_suspects.log",
    priority: 1  # before training, where both could run: labels may be mended first
    group:
        resources.suspects_group
    threads: resources.judge_threads
    resources:
        gpu=resources.judge_gpus,
        nodes=1,
    shell:
        "python -m scripts.data.find_label_suspects {params.judge} --seed {params.seed}"
        " --checkpoint {input.checkpoint:q} --pixel-cache {input.pixel_cache:q} --images {params.images:q}"
        " --splits {params.splits:q} --classes {input.classes:q} --audit {input.audit:q} {params.group_by}"
        " {params.reading} --output {output.csv:q} --summary {output.json:q} --gpus {resources.gpu}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule describe_label_suspects:
    message:
        f"describing the labels of {layout.dataset} that may be wrong"
    input:
        csv=rules.find_label_suspects.output.csv,
        json=rules.find_label_suspects.output.json,
        corrected=rules.audit_images.output.corrected,
        classes=rules.split_dataset.output.classes,
    output:
        report(
            f"{layout.dataset}/label_suspects.html",
            **menu.shown("label_suspects", "labels that may be wrong", category="Data"),
        ),
    params:
        language=options.language,
        background=options.background,
        images=layout.images,
        dataset=layout.settings.dataset.name,
    log:
        f"{layout.logs}/describe_label_suspects.log",
    localrule: True
    shell:
        "python -m scripts.data.describe_label_suspects --suspects {input.csv:q} --summary {input.json:q}"
        " --classes {input.classes:q} --images {params.images:q} --title {params.dataset:q} --output {output:q}"
        " --corrected {input.corrected:q} {params.background} {params.language}"
        " --reads {input:q} --makes {output:q} --log {log:q}"
