"""What the licenses of pretrained weights allow, as far as their ids tell: no legal advice, only where to look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: Ids of licenses that allow every use, with the author named.
FREE = frozenset(
    {
        "apache-2.0",
        "mit",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "isc",
        "unlicense",
        "cc0-1.0",
        "cc-by-3.0",
        "cc-by-4.0",
    }
)
#: How ids begin that exclude commercial use, and where that stands.
NON_COMMERCIAL = {
    "cc-by-nc": "creativecommons.org/licenses/by-nc/4.0",
    "fair-noncommercial-research-license": "Meta's FAIR Noncommercial Research License",
    "seer-license": "Meta's SEER model license, in github.com/facebookresearch/vissl",
    "apple-amlr": "Apple's Machine Learning Research Model license: research only",
}
#: Ids of licenses with conditions of their own, and where they stand.
OWN_TERMS = {
    "dinov3-license": "ai.meta.com/resources/models-and-libraries/dinov3-license",
    "gemma": "ai.google.dev/gemma/terms",
    "nvidia-open-model-license": "NVIDIA's Open Model License",
    "apple-ascl": "Apple's Sample Code License",
    "cvnets-license": "LICENSE in github.com/apple/ml-cvnets",
    "fastvit-license": "LICENSE in github.com/apple/ml-fastvit",
    "mobileone-license": "LICENSE in github.com/apple/ml-mobileone",
    "sapiens2-license": "the license beside the weights",
    "qwen-community-1.0": "the license beside the weights",
}
#: Of these the hub asks each person to accept the terms before it gives the file.
GATED = frozenset({"dinov3-license", "gemma"})


def restriction(license: str | None) -> str:
    """Return what is to be known before weights are used; "" for a license that allows every use.

    Parameters
    ----------
    license : its id; None where nobody states it.
    """
    if license is None:
        return "license not stated"
    name = license.lower()
    if name in FREE:
        return ""
    for begin, where in NON_COMMERCIAL.items():
        if name.startswith(begin):
            return f"non-commercial use only ({where})"
    if name in OWN_TERMS:
        gated = ", which the hub may ask you to accept first" if name in GATED else ""
        return f"terms of its own ({OWN_TERMS[name]}){gated}"
    return "a license that mimflow does not know: read it before you use the weights"


def origin_of_run(provenance: Path) -> dict[str, Any]:
    """Return where the weights that a run started from are from, by its provenance.json; empty where it is unknown."""
    try:
        origin = json.loads(provenance.read_text(encoding="utf-8"))["inputs"]["files"]["checkpoint"]["origin"]
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return origin if isinstance(origin, dict) else {}
