"""Names of weights as other training codes write them, made those of mmcls where that is certain."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch

from scripts.lib.base.problems import UserError

logger = logging.getLogger(__name__)
#: Share of the backbone's tensors that must fit, by name and shape, for a prefix to be certain.
CERTAIN = 0.9
#: Parts of a name that are looked at as its prefix: `state.model.module.` has three.
LONGEST_PREFIX = 4
#: Prefixes of copies that are averaged over training; the weights themselves are taken where both are there.
AVERAGES = ("ema", "teacher", "momentum", "averaged", "swa", "shadow", "target")
BACKBONE = "backbone."


def with_our_names(
    weights: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]], name: str
) -> dict[str, torch.Tensor]:
    """Return *weights* under mmcls's names: without `model.`, `module.`, `_orig_mod.` and the like, with `backbone.`.

    Parameters
    ----------
    shapes : of the backbone's parameters, by their names in mmcls.
    name : of the file, for messages.

    Raises
    ------
    UserError : the names fit with several prefixes, so that the file holds several networks.
    """
    weights = _dotted(weights, shapes)
    counts = {prefix: len(_taken(_renamed(weights, *prefix), shapes)) for prefix in _prefixes(weights)}
    most = max(counts.values())
    if counts["", ""] == most or most < CERTAIN * len(shapes):
        return dict(weights)
    best = [prefix for prefix, count in counts.items() if count == most]
    best = [prefix for prefix in best if not prefix[0].lower().startswith(AVERAGES)] or best
    # A prefix with `backbone.` in it, and one without, may lead to the same tensors.
    networks = {frozenset(map(id, _taken(_renamed(weights, *prefix), shapes))): prefix for prefix in reversed(best)}
    if len(networks) > 1:
        names = " and ".join(repr(old) for old, _ in reversed(list(networks.values())))
        raise UserError(f"{name} holds several networks, below {names}", "save the weights of one as a file of its own")
    old, new = best[0]
    changes = [f"without {old!r}"] * bool(old) + [f"with {new!r} before them"] * bool(new)
    logger.info("%s: the names of its weights are taken %s", name, ", ".join(changes))
    return _renamed(weights, old, new)


def _prefixes(weights: Mapping[str, torch.Tensor]) -> dict[tuple[str, str], None]:
    """Return (what to take off, what to put in front) of all that may be meant, the simplest first."""
    heads = dict.fromkeys(
        ".".join(parts[:length]) + "." * bool(length)
        for length in range(LONGEST_PREFIX + 1)
        for parts in (key.split(".") for key in weights)
        if length < len(parts)
    )
    return dict.fromkeys((head, new) for head in heads for new in ("", BACKBONE))


def _renamed(weights: Mapping[str, torch.Tensor], old: str, new: str) -> dict[str, torch.Tensor]:
    return {new + key.removeprefix(old): value for key, value in weights.items() if key.startswith(old)}


def _taken(weights: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]]) -> list[torch.Tensor]:
    """Return the tensors that mmcls would take: those of the right name and shape."""
    return [weights[key] for key, shape in shapes.items() if key in weights and weights[key].shape == torch.Size(shape)]


def _dotted(weights: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Return the averages that mmcls's EMAHook writes, as `ema_backbone_conv1_weight`, where there are no others."""
    averaged = {f"ema_{key.replace('.', '_')}": key for key in shapes}
    if not averaged.keys() & weights.keys() or shapes.keys() & weights.keys():
        return dict(weights)
    logger.info("the averaged weights (ema_...) are taken, since there are no others")
    return {averaged.get(key, key): value for key, value in weights.items()}
