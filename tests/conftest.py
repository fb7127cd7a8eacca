"""What holds for every test: waiting threads do not spin.

pyproject.toml puts the repository, tests/helpers/ and tests/slurm/ on the path, so that a test imports what several of
them share by its name (dag, tiny_run, cluster, ...). Not a package ``tests``: mmcls's dependencies install one of that
name into site-packages.
"""

from __future__ import annotations

import os

# Before torch is loaded, and for every process that a test starts: threads of libgomp that wait for each other take the
# processor from the threads that they wait for, wherever more threads run than there are cores. The bits are the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
