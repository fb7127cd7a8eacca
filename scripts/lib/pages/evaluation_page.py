"""The page of `make evaluate`: what other labelled images say of a run, beside its own test images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scripts.lib.base.language import tr
from scripts.lib.base.units import in_percent, plural
from scripts.lib.pages import templates

#: More images than this share, 0 to 1, that lie far from the run's own (5 % do by chance) are another kind of images.
MANY_FAR = 0.2
#: How many names a line lists.
LISTED = 5


def remarks(result: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing that one must know to read the numbers.

    Parameters
    ----------
    result : evaluation.json.
    """
    unknown, unread, copies = (result[key] for key in ("unknown_classes", "unread", "copies_of_training_images"))
    lines = []
    if unknown:
        count = plural(sum(unknown.values()), "image")
        lines.append(f"left out {count} of classes that the run does not know: {shortened(unknown)}")
    if unread:
        lines.append(f"left out {plural(len(unread), 'image')} that cannot be read, such as {next(iter(unread))}")
    if result["missing_classes"]:
        names = shortened(result["missing_classes"])
        lines.append(f"no image of these classes, of which nothing is known here: {names}")
    if copies:
        lines.append(f"{plural(copies, 'image')} are training images of the run, so that the accuracy is too good")
    if (far := result["far_share"]) is not None and far > MANY_FAR:
        lines.append(
            f"{100 * far:.0f} % of the images lie far from the run's own test images (5 % would by chance): they are of"
            " another kind, and what was learned may not hold for them"
        )
    return lines


def shortened(names: Iterable[str]) -> str:
    """Return the first of some names, and how many more there are."""
    everything = list(names)
    more = f" (+{len(everything) - LISTED})" if len(everything) > LISTED else ""
    return ", ".join(everything[:LISTED]) + more


def between(low: str, high: str) -> str:
    """Return the ends of an interval as text."""
    return tr(f"{low} to {high}")


def sure_rows(unsure: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the lines of what the run is sure of; *unsure*: of metrics.json."""
    rows = [(tr("sure predictions, by the thresholds of the run"), f"{in_percent(unsure['sure_share'])} %")]
    if unsure["sure_images"]:
        low, high = map(in_percent, unsure["sure_ci95"])
        rows.append((tr("accuracy of these"), f"{in_percent(unsure['sure_accuracy'])} % ({between(low, high)})"))
    return rows


def evaluation_page(result: Mapping[str, Any], metrics: Mapping[str, Any], title: str) -> str:
    """Return the page.

    Parameters
    ----------
    result, metrics : evaluation.json and metrics.json.
    """
    low, high = metrics["accuracy_top1_ci95"]
    least, most = result["interval"]
    rows = [
        (tr("images"), f"{result['images']:,}"),
        (tr("accuracy"), f"{in_percent(result['accuracy'])} % ({between(in_percent(low), in_percent(high))})"),
        (tr("accuracy on the run's own test images"), f"{in_percent(result['reference'])} %"),
        (
            tr("difference, points"),
            f"{100 * result['difference']:+.1f} ({between(f'{100 * least:+.1f}', f'{100 * most:+.1f}')})",
        ),
    ]
    if result["same_mix"] is not None:
        rows.append((tr("accuracy, were the classes as frequent as there"), f"{in_percent(result['same_mix'])} %"))
    if result["far_share"] is not None:
        rows.append((tr("images far from the run's own (5 % by chance)"), f"{100 * result['far_share']:.0f} %"))
    if unsure := metrics.get("unsure"):
        rows += sure_rows(unsure)
    rows.append(("macro F1", f"{metrics['f1_macro']:.3f}"))
    return templates.page(
        "evaluation.html",
        templates.heading("Other images", title),
        rows=rows,
        lines=[tr(line) for line in remarks(result)],
    )
