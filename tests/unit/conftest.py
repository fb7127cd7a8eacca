"""Fixtures that tests of several modules share."""

from __future__ import annotations

from slurm_programs import program

__all__ = ["program"]
