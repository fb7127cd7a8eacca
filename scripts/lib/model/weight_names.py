"""Names of weights as other training codes write them, made those of mmcls where that is certain."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch

from scripts.lib.base.problems import UserError
from scripts.lib.model.checkpoint_file import printable

logger = logging.getLogger(__name__)
#: Share of the backbone's tensors that must fit, by name and shape, for a prefix to be certain.
CERTAIN = 0.9
#: Parts of a name that are looked at as its prefix: `state.model.module.` has three.
LONGEST_PREFIX = 4
#: Prefixes of copies that are averaged over training; the weights themselves are taken where both are there.
AVERAGES = ("ema", "teacher", "momentum", "averaged", "swa", "shadow", "target")
BACKBONE = "backbone."
#: Tensors that a message names.
SHOWN = 3


def with_our_names(
    weights: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]], name: str, prefix: str = BACKBONE
) -> dict[str, torch.Tensor]:
    """Return *weights* under our names: without `model.`, `module.`, `_orig_mod.` and the like, with `backbone.`.

    Parameters
    ----------
    shapes : of the backbone's parameters, by our names.
    name : of the file, for messages.
    prefix : what stands before all names of *shapes*, and not before those of the bare network.

    Raises
    ------
    UserError : the names fit with several prefixes, so that the file holds several networks.
    """
    weights = _dotted(weights, shapes)
    counts = {pair: len(_taken(_renamed(weights, *pair), shapes)) for pair in _prefixes(weights, prefix)}
    most = max(counts.values())
    if counts["", ""] == most or most < CERTAIN * len(shapes):
        return dict(weights)
    best = [pair for pair, count in counts.items() if count == most]
    best = [pair for pair in best if not pair[0].lower().startswith(AVERAGES)] or best
    # A prefix with `backbone.` in it, and one without, may lead to the same tensors.
    networks = {frozenset(map(id, _taken(_renamed(weights, *pair), shapes))): pair for pair in reversed(best)}
    if len(networks) > 1:
        names = " and ".join(repr(old) for old, _ in reversed(list(networks.values())))
        raise UserError(f"{name} holds several networks, below {names}", "save the weights of one as a file of its own")
    old, new = best[0]
    changes = [f"without {old!r}"] * bool(old) + [f"with {new!r} before them"] * bool(new)
    logger.info("%s: the names of its weights are taken %s", name, ", ".join(changes))
    return _renamed(weights, old, new)


def difference(weights: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]]) -> str:
    """Say what is in a file and what was expected: the first few names and shapes of what does not fit, of both."""
    expected = {key: shape for key, shape in shapes.items() if key not in weights or weights[key].shape != tuple(shape)}
    held = {key: value.shape for key, value in weights.items() if key not in shapes or key in expected}
    return f"expected {_listed(expected)}; the file has {_listed(held)}"


def _listed(shapes: Mapping[str, Sequence[int]]) -> str:
    first = list(shapes.items())[:SHOWN]
    texts = [f"{printable(key)[:80]} ({'x'.join(map(str, shape)) or 'one number'})" for key, shape in first]
    return ", ".join([*texts, "..."][: len(shapes)]) or "nothing else"


def _prefixes(weights: Mapping[str, torch.Tensor], ours: str) -> dict[tuple[str, str], None]:
    """Return (what to take off, what to put in front) of all that may be meant, the simplest first."""
    heads = dict.fromkeys(
        ".".join(parts[:length]) + "." * bool(length)
        for length in range(LONGEST_PREFIX + 1)
        for parts in (key.split(".") for key in weights)
        if length < len(parts)
    )
    return dict.fromkeys((head, new) for head in heads for new in ("", ours))


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
