"""What is to be known of the licenses of pretrained weights before they cost anything."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.lib.base.problems import Problem
from scripts.lib.model import timm_models
from scripts.lib.runs.weight_license import restriction
from scripts.lib.settings.schema import Experiment, Settings


def weights_notes(settings: Settings) -> list[Problem]:
    """Return a note for each experiment whose weights may not be for every use, or are kept back by their hub.

    Of mmcls's zoo and of files nobody states a license: the model card says so, and no note does.
    """
    return list(_notes(settings))


def _notes(settings: Settings) -> Iterator[Problem]:
    for name, experiment in settings.experiments.items():
        known = _license_of(experiment)
        if known is not None and (text := restriction(known[1])):
            license = f"{known[1]}: " if known[1] else ""
            yield Problem(f"experiments.{name}: the weights of {known[0]} have {license}{text}", "", False)


def _license_of(experiment: Experiment) -> tuple[str, str | None] | None:
    """Return the source of an experiment's weights and their license; None where no note is due."""
    request = experiment.checkpoint_request()
    if request is None:
        return None
    if request.get("license"):
        source = next((str(request[key]) for key in ("path", "url", "member", "run") if request.get(key)), "the zoo")
        return source.rpartition("/")[2], request["license"]
    if "zoo" not in request or not timm_models.is_timm(experiment.base_config):
        return None
    weights = timm_models.find_weights(experiment.base_config, request["zoo"])  # the settings are refused without
    return weights.name, weights.known_license
