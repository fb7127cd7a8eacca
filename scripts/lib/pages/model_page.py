"""The page of a model: its stages and layers, parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.lib.pages import templates


def model_page(summary: Mapping[str, Any]) -> str:
    """Return the page of what :func:`scripts.lib.model.summary.summarise` found."""
    return templates.page(
        "model.html", "The model: layers, parameters, multiply-adds", style="model.css", summary=summary
    )
