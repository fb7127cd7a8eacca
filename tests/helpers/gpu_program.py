"""A program that stands for nvidia-smi, where there is no GPU, and prints what the real one prints."""

from __future__ import annotations

import os
from pathlib import Path


def nvidia_smi(folder: Path, name: str, driver: str, capability: str) -> str:
    """Write a program that stands for nvidia-smi, and return the PATH with which it is found."""
    program = folder / "nvidia-smi"
    line = f"{name}, 24576, {driver}"
    # A driver before 510 knows no compute_cap.
    known = f'echo "{line}, {capability}"' if capability else "exit 2"
    program.write_text(f'#!/bin/sh\ncase "$1" in *compute_cap*) {known};; *) echo "{line}";; esac\n')
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"
