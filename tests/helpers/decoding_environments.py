"""What decodes in each environment: small virtual environments with its numpy, OpenCV and Pillow, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("cpu", "cuda11", "cuda13")
PROGRAM = """
import hashlib, json, pathlib, sys
import numpy as np
from PIL import Image
from scripts.lib.data.decoding import decode_image
hashes = {}
noise = np.random.Generator(np.random.Philox(key=0)).integers(0, 256, (500, 500, 3), dtype=np.uint8)
for width, height in ((500, 500), (200, 500), (500, 200)):
    for name in ("NEAREST", "BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS"):
        pixels = np.asarray(Image.fromarray(noise[:height, :width]).resize((128, 128), Image.Resampling[name]))
        hashes[f"{width} x {height} by {name}"] = hashlib.sha256(pixels.tobytes()).hexdigest()
for path in pathlib.Path(sys.argv[1]).iterdir():
    for grey in (False, True):
        hashes[f"{path.name} {grey}"] = hashlib.sha256(decode_image(path.read_bytes(), grey).tobytes()).hexdigest()
    if path.name.startswith("jpeg"):
        for factor in (2, 4, 8):
            pixels = decode_image(path.read_bytes(), factor=factor)
            hashes[f"{path.name} {factor}"] = hashlib.sha256(pixels.tobytes()).hexdigest()
print(json.dumps(hashes))
"""
#: The same of what a program leaves in `pixels`, which gets a file as its second argument; "" where it fails.
OF_A_PROGRAM = """
import hashlib, json, pathlib, sys
program, folder = sys.argv[1:]
hashes = {}
for path in pathlib.Path(folder).iterdir():
    known, sys.argv = {}, ["program", "model.onnx", str(path)]
    try:
        exec(program, known)
    except Exception:
        hashes[path.name] = ""
    else:
        hashes[path.name] = hashlib.sha256(known["pixels"].tobytes()).hexdigest()
print(json.dumps(hashes))
"""


def decoders(lock: str) -> dict[str, str]:
    """Return the versions of what decodes in an environment."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "envs/install.py")
    assert spec and spec.loader
    install = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(install)
    pins = dict(install.read_lock(ROOT / "envs" / f"{lock}.lock"))
    return {name: pins[name] for name in ("numpy", "opencv-python-headless", "pillow")}


def python_of(lock: str, folder: Path) -> str:
    """Return a Python with the decoders of an environment: this one where they are the same, else one in *folder*."""
    wanted = decoders(lock)
    if {name: version(name) for name in wanted} == wanted:
        return sys.executable
    python = folder / "bin/python"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pins = [f"{name}=={number}" for name, number in wanted.items()]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", *pins], check=True)
    return str(python)


def hashes_by(python: str, folder: Path) -> dict[str, str]:
    """Return the sha256 of the pixels of each file in *folder*, by its name and whether they are grey.

    And of noise of three shapes that Pillow resizes, as pipelines do.
    """
    return _answer(python, PROGRAM, str(folder))


def hashes_of_program(python: str, program: str, folder: Path) -> dict[str, str]:
    """Return the sha256 of the pixels that a program makes of each file in *folder*, by its name; "" where it fails."""
    return _answer(python, OF_A_PROGRAM, program, str(folder))


def _answer(python: str, program: str, *words: str) -> dict[str, str]:
    done = subprocess.run([python, "-c", program, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
