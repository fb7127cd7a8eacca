"""The page of a model: its stages and layers, parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from scripts.lib.base.units import human
from scripts.lib.model.summary import FLOPS
from scripts.lib.pages import html

STYLE = """
.stages { font-variant-numeric: tabular-nums } .stages details, .stages .head { border-bottom: 1px solid #ddd }
.stages summary, .stages .head { display: grid; grid-template-columns: 1em 14em 13em 9em 7em 8.5em 1fr; gap: .6em;
  padding: .3em 0; overflow-wrap: anywhere; align-items: center }
.stages .head { background: #f4f4f4; font-weight: 600 } .stages summary { cursor: pointer }
.stages summary > :first-child::before { content: "\\25b8" }
.stages details[open] > summary > :first-child::before { content: "\\25be" }
.stages .number { text-align: right } .stages details > table { margin: .3em 0 1em 1.6em; font-size: 13px }
.parameters { fill: #0072B2 } .madds { fill: #D55E00 }
"""


def _shape(shape: Sequence[int] | None) -> str:
    return " × ".join(map(str, shape)) if shape else "-"


def render(summary: Mapping[str, Any]) -> str:
    """Return the page of what :func:`summarise` found."""
    channels, height, width = summary["input"]
    parts = [
        html.table((), [*summary["model"].items(), *_totals(summary)]),
        f"<p>For one image of {width} × {height} pixels and {channels} channels. A multiply-add is {FLOPS} FLOPs."
        " Counted are convolutions, linear layers and products of matrices (attention), as in papers; normalisation,"
        " activations and pooling, a few per cent more, are not. A layer that works on windows of the image, as in"
        " Swin, shows the shape of one window, and the numbers of all.</p>",
        html.section("Stages"),
        "<p>Each stage opens to its layers. The bars are its share of all parameters (blue, above) and of all"
        " multiply-adds (red, below).</p>",
        _stage_list(summary),
    ]
    return html.page("The model: layers, parameters, multiply-adds", parts, style=STYLE)


def _totals(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    parameters, trainable = summary["parameters"], summary["parameters_trainable"]
    return [
        ("parameters", f"{parameters:,}"),
        ("trainable", f"{trainable:,}" + (" (all)" if trainable == parameters else "")),
        ("multiply-adds", f"{human(summary['multiply_adds'])} ({summary['multiply_adds']:,})"),
        ("FLOPs", human(summary["flops"])),
        ("weights in memory", f"{summary['weights_bytes'] / 1e6:.1f} MB"),
        ("checkpoint file", f"{summary['checkpoint_bytes'] / 1e6:.1f} MB"),
    ]


def _stage_list(summary: Mapping[str, Any]) -> str:
    head = _cells(("stage", "type", "output", "parameters", "multiply-adds", "share"))
    return f'<div class="stages">\n<div class="head">{head}</div>\n' + "\n".join(_stages(summary)) + "\n</div>"


def _cells(texts: Sequence[str]) -> str:
    """Return the cells of a line, after the one of the mark that opens it; the fourth and fifth are numbers."""
    cells = [
        f'<span class="number">{text}</span>' if 3 <= place < 5 else f"<span>{escape(text)}</span>"
        for place, text in enumerate(texts)
    ]
    return "<span></span>" + "".join(cells)


def _stages(summary: Mapping[str, Any]) -> Iterable[str]:
    for stage in summary["stages"]:
        prefix = f"backbone.{stage['name']}."
        rows = [
            (
                layer["name"].removeprefix(prefix),
                layer["type"],
                _shape(layer["output"]),
                f"{layer['parameters']:,}",
                f"{layer['multiply_adds']:,}",
            )
            for layer in stage["layers"]
        ]
        table = html.table(("layer", "type", "output", "parameters", "multiply-adds"), rows, numbers=(3, 4))
        texts = [stage["name"], stage["type"], _shape(stage["output"])]
        cells = _cells([*texts, human(stage["parameters"]), human(stage["multiply_adds"])])
        bars = _bars(_share(stage, summary, "parameters"), _share(stage, summary, "multiply_adds"))
        yield f"<details><summary>{cells}{bars}</summary>\n{table}</details>"


def _share(stage: Mapping[str, Any], summary: Mapping[str, Any], key: str) -> float:
    return float(stage[key] / summary[key]) if summary[key] else 0.0


def _bars(parameters: float, madds: float) -> str:
    """Return two bars, one below the other, of these shares (0 to 1)."""
    return (
        '<svg viewBox="0 0 100 12" width="100%" height="14" preserveAspectRatio="none" role="img"'
        f' aria-label="{parameters:.1%} of the parameters, {madds:.1%} of the multiply-adds">'
        f'<rect class="parameters" y="0" width="{100 * parameters:.2f}" height="5"/>'
        f'<rect class="madds" y="6" width="{100 * madds:.2f}" height="5"/></svg>'
    )
