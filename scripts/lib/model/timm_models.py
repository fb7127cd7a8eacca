"""timm's models by name: what a configuration is checked against, and what `base_config: timm/NAME` needs to know.

Names, sizes, licenses and parameters are in timm_models.csv, since importing timm loads torch, which takes seconds.
`python -m scripts.lib.model.timm_models` writes that file for the timm that is installed.
"""

from __future__ import annotations

import argparse
import csv
import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import UserError

#: How the name of such a base config begins.
PREFIX = "timm/"
TABLE = Path(__file__).with_suffix(".csv")
COLUMNS = ("name", "image_size", "any_size", "parameters", "license")


@dataclass(frozen=True)
class TimmModel:
    """A model of timm, or one set of weights for it.

    Attributes
    ----------
    name : ``ARCHITECTURE.WEIGHTS``, or the architecture alone where timm knows no weights.
    image_size : pixels a side that its weights were trained with.
    any_size : it computes images of other sizes without being told; its weights know of none.
    parameters : how many, without the classifier; None: not counted.
    license : of the weights, in timm's word; "": it does not say.
    """

    name: str
    image_size: int
    any_size: bool
    parameters: int | None
    license: str

    @property
    def architecture(self) -> str:
        """What timm builds, whatever weights go in."""
        return self.name.partition(".")[0]

    @property
    def has_weights(self) -> bool:
        """Whether timm knows weights for it."""
        return "." in self.name

    @property
    def known_license(self) -> str | None:
        """The license; None where timm does not know it."""
        return None if self.license in ("", "unknown") else self.license


def is_timm(base_config: str) -> bool:
    """Tell whether a base config is a model of timm."""
    return base_config.startswith(PREFIX)


@cache
def models() -> dict[str, TimmModel]:
    """Return all models by name, and each architecture by its name alone: with the weights that are timm's default."""
    with open(TABLE, encoding="utf-8", newline="") as file:
        rows = [
            TimmModel(
                row["name"],
                int(row["image_size"]),
                row["any_size"] == "yes",
                int(row["parameters"]) if row["parameters"] else None,
                row["license"],
            )
            for row in csv.DictReader(file)
        ]
    by_name = {row.name: row for row in rows}
    for row in rows:
        by_name.setdefault(row.architecture, row)
    return by_name


def find(base_config: str) -> TimmModel | None:
    """Return the model that ``timm/NAME`` names, or None."""
    return models().get(base_config.removeprefix(PREFIX)) if is_timm(base_config) else None


def find_weights(base_config: str, name: str | None = None) -> TimmModel:
    """Return the weights that a ``zoo`` checkpoint means for ``timm/NAME``.

    Parameters
    ----------
    name : of weights of the same architecture, without PREFIX; None: those that *base_config* names.

    Raises
    ------
    UserError : there are none of this name, or none at all for this model, or they are another model's.
    """
    model, base = find(PREFIX + name if name else base_config), find(base_config)
    wanted = name or base_config.removeprefix(PREFIX)
    if model is None or base is None:
        raise UserError(f"checkpoint: timm has no weights {wanted!r}", hint(wanted))
    if model.architecture != base.architecture:
        raise UserError(f"checkpoint.zoo: {name} are not weights of {base_config}", hint(f"{base.architecture}.{name}"))
    if not model.has_weights:
        raise UserError(
            f"checkpoint: timm has no weights for {wanted}",
            "train from scratch by checkpoint: none, or give some by checkpoint: {path: ...}",
        )
    return model


def hint(name: str) -> str:
    """Say which names, with PREFIX, are most like one that is none: of its architecture's weights, if that is right."""
    architecture, dot, _ = name.lower().partition(".")
    if dot and architecture in models():
        names = [other for other in models() if other.startswith(f"{architecture}.")]
        close = difflib.get_close_matches(name.lower(), names, n=4, cutoff=0.0)
    else:
        names = sorted({other.partition(".")[0] for other in models()})
        close = difflib.get_close_matches(architecture, names, n=4, cutoff=0.5)
    text = f"the closest are {', '.join(PREFIX + other for other in close)}" if close else "no name is close to it"
    return f"{text}; all names: .venv/bin/python -m scripts.lib.model.model_zoo {PREFIX}"


def pretrained_cfg(base_config: str) -> dict[str, Any]:
    """Return what timm says of the weights of ``timm/NAME``: url, hf_hub_id, input_size, mean, std, license and others.

    Raises
    ------
    UserError : timm is not installed.
    """
    from scripts.mmcls_plugins.timm_backbone import require_timm

    require_timm()
    from timm.models import get_pretrained_cfg

    model = find(base_config)
    assert model is not None, f"{base_config}: the settings refuse names that are not in the table"
    config = get_pretrained_cfg(model.name)
    assert config is not None
    return config.to_dict(remove_source=False, remove_null=False)


def rows() -> list[dict[str, Any]]:
    """Return the table as the installed timm has it: of each architecture first the weights that are its default."""
    import timm
    from timm.models import get_pretrained_cfg

    weights: dict[str, list[str]] = {}
    for name in timm.list_pretrained():
        weights.setdefault(name.partition(".")[0], []).append(name)
    result = []
    for architecture in timm.list_models():
        default = get_pretrained_cfg(architecture)
        tag = f"{architecture}.{default.tag}" if default else ""
        names = sorted(weights.get(architecture, [architecture]), key=lambda name: (name != tag, name))
        parameters = count_parameters(architecture)
        for name in names:
            config = get_pretrained_cfg(name) or default
            assert config  # of a model that timm lists
            result.append(
                {
                    "name": name,
                    "image_size": min(config.input_size[1:]),
                    "any_size": "no" if config.fixed_input_size else "yes",
                    "parameters": parameters,
                    "license": config.license or "",
                }
            )
    return result


def count_parameters(architecture: str) -> int | None:
    """Return the parameters of a model of timm without its classifier; None where it cannot be built without memory."""
    import timm

    from scripts.lib.model.dry_step import FAILURES, OnMeta

    try:
        with OnMeta():
            model = timm.create_model(architecture, num_classes=0)
    except FAILURES:
        return None
    return sum(parameter.numel() for parameter in model.parameters())


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    return argparse.ArgumentParser(prog="python -m scripts.lib.model.timm_models", description=__doc__)


def main(_args: argparse.Namespace) -> None:
    """Write the table."""
    with atomic_path(TABLE) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows())


if __name__ == "__main__":
    run_cli(build_parser, main)
