# What a trained model is worth: predictions, metrics, figures, explanations, and the model as ONNX.


rule predict_images:
    message:
        f"predicting the test and val splits with {layout.title}"
    input:
        config=rules.patch_config.output,
        checkpoint=rules.train_model.output.best,
        test=layout.test,
        val=layout.val,
        train=layout.train,
        classes=rules.split_dataset.output.classes,
    output:
        test=layout.run.predictions,
        val=layout.run.val_predictions,
        features=layout.run.features,
        known=layout.run.known,
        certainty=layout.run.certainty,
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
        " --train {input.train:q} --known {output.known:q} --certainty {output.certainty:q}"
        " --threads {threads} --gpus {resources.gpu}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule evaluate_model:
    message:
        f"evaluating {layout.title}"
    input:
        predictions=rules.predict_images.output.test,
        features=rules.predict_images.output.features,
        known=rules.predict_images.output.known,
        certainty=rules.predict_images.output.certainty,
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
        " --certainty {input.certainty:q} --known {input.known:q} --features {input.features:q}"
        " --metrics {output.metrics:q}"
        " --per-class {output.per_class:q}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


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
        language=options.language,
        background=options.background,
        images=layout.images,
        figures=subpath(output[0], parent=True),
    log:
        f"{layout.run_logs}/plot_predictions.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.evaluate.plot_predictions --predictions {input.test:q} --val-predictions {input.val:q}"
        " --images {params.images:q} --output {params.figures:q}"
        f" --title '{layout.title}' {{params.background}} {{params.language}}"
        f" --reads {{input:q}} --makes {{output:q}} --log {{log:q}}"


rule map_embedding:
    message:
        f"mapping the test images as {layout.title}, sees them"
    input:
        predictions=rules.predict_images.output.test,
        features=rules.predict_images.output.features,
    output:
        report(layout.run.figures / "embedding.html", **menu.shown("embedding", "map of the test images")),
    params:
        language=options.language,
        background=options.background,
        images=layout.images,
    log:
        f"{layout.run_logs}/map_embedding.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.evaluate.map_embedding --predictions {input.predictions:q} --features {input.features:q}"
        f" --images {{params.images:q}} --title '{layout.title}' --seed {{wildcards.seed}}"
        " --output {output:q} {params.background} {params.language}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


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
        language=options.language,
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
        " --threads {threads} --gpus {resources.gpu} {params.language}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule export_model:
    message:
        f"exporting {layout.title}, to ONNX"
    input:
        config=rules.patch_config.output,
        checkpoint=rules.train_model.output.best,
        split=layout.test,
        classes=rules.split_dataset.output.classes,
        predictions=rules.predict_images.output.test,
        known=rules.predict_images.output.known,
        certainty=rules.predict_images.output.certainty,
    output:
        onnx=layout.run.onnx,
        json=layout.run.export,
        example=layout.run.onnx_example,
        html=report(layout.run.export_page, **menu.shown("export", "the model as ONNX")),
    params:
        language=options.language,
        images=layout.images,
    log:
        f"{layout.run_logs}/export_model.log",
    group:
        resources.run_group
    threads: resources.threads
    shell:
        "python -m scripts.evaluate.export_model --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --images {params.images:q} --split {input.split:q} --classes {input.classes:q}"
        " --predictions {input.predictions:q} --known {input.known:q} --certainty {input.certainty:q}"
        " --output {output.onnx:q} --report {output.json:q}"
        " --example {output.example:q} --html {output.html:q} --threads {threads} {params.language}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule describe_model:
    message:
        f"listing the layers of {layout.title}"
    input:
        config=rules.patch_config.output,
        checkpoint=rules.train_model.output.best,
    output:
        html=report(layout.run.model_page, **menu.shown("model", "layers, parameters, FLOPs")),
        json=layout.run.model,
    params:
        language=options.language,
    log:
        f"{layout.run_logs}/describe_model.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.evaluate.describe_model --config {input.config:q} --checkpoint {input.checkpoint:q}"
        " --output {output.html:q} --json {output.json:q} {params.language}"
        " --reads {input:q} --makes {output:q} --log {log:q}"


rule plot_training_curves:
    message:
        f"drawing the training curves of {layout.title}"
    input:
        rules.train_model.output.log,
    output:
        report(layout.run.figures / "training_curves.svg", **menu.shown("training_curves", "training curves")),
    params:
        language=options.language,
    log:
        f"{layout.run_logs}/plot_training_curves.log",
    group:
        resources.run_group
    shell:
        "python -m scripts.evaluate.plot_training_curves --train-log {input:q} --output {output:q}"
        f" --title '{layout.title}' {{params.language}}"
        f" --reads {{input:q}} --makes {{output:q}} --log {{log:q}}"
