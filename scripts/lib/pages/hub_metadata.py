"""What model_card.md begins with: the metadata that hubs of models read (YAML between two lines of dashes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from scripts.lib.base.console import one_line

#: Metrics by their names on the hub, and the keys of metrics.json.
METRICS = {"accuracy": "accuracy_top1", "f1": "f1_macro", "precision": "precision_macro", "recall": "recall_macro"}


def front_matter(provenance: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Return the metadata of a run's model card, with an empty line after it.

    The license is ``unknown``: who publishes the model chooses it, and has to heed those of the pretrained weights and
    of the images, which the model card names.
    """
    run = provenance["run"]
    name = "-".join(str(run[key]) for key in ("experiment", "seed", "fold") if run.get(key))
    dataset = one_line(str(run["dataset"]))
    results = [
        {"type": kind, "name": key, "value": metrics[key]}
        for kind, key in METRICS.items()
        if isinstance(metrics.get(key), int | float)
    ]
    task = {"type": "image-classification", "name": "Image Classification"}
    split = {"name": dataset, "type": dataset, "split": "test"}
    content = {
        "license": "unknown",
        "library_name": "mmcls",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "mmcls", "mimflow"],
        "datasets": [dataset],
        "metrics": list(METRICS),
        "model-index": [{"name": name, "results": [{"task": task, "dataset": split, "metrics": results}]}],
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---\n\n"
