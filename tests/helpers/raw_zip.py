"""Zips whose names are any bytes, without the flag that says UTF-8."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path


def zip_of_raw_names(path: Path, files: Mapping[bytes, bytes], system: int = 0) -> Path:
    """Write a zip as tools of Windows do (*system* 0; 3: of Unix)."""
    placeholders = {f"{number:04d}".ljust(len(raw), "x"): raw for number, raw in enumerate(files)}
    with zipfile.ZipFile(path, "w") as zipped:
        for placeholder, raw in placeholders.items():
            info = zipfile.ZipInfo(placeholder)
            info.create_system = system
            zipped.writestr(info, files[raw])
    data = path.read_bytes()
    for placeholder, raw in placeholders.items():
        data = data.replace(placeholder.encode(), raw)
    path.write_bytes(data)
    return path
