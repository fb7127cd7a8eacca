"""Writes down which GPU a process was given; the config of a test's run loads it.

Each process leaves one file in the folder MIMFLOW_TEST_GPUS: its Slurm job, its GPU, its command line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

_folder = os.environ.get("MIMFLOW_TEST_GPUS")
if _folder:
    _seen = {"job": os.environ.get("SLURM_JOB_ID"), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "command": sys.argv}
    Path(_folder, f"{os.getpid()}.json").write_text(json.dumps(_seen))
