"""mimflow: a folder of labelled images to a reproducible, explained, exportable classifier."""

import sys

from scripts.lib.base import early_errors

if sys.argv[:1] == ["-m"]:  # as long as `python -m` looks for the command
    early_errors.watch(sys.argv)
