"""Where mimflow itself lies, and the environment variables by which its processes tell each other something."""

from __future__ import annotations

from pathlib import Path

#: The repository.
ROOT = Path(__file__).resolve().parents[3]
