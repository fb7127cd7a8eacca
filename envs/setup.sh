#!/bin/sh
# Make .venv what `make setup` promises: at once when it is already that, else with a Python 3.11 and install.py.
# Arguments are install.py's (`install.py --help`).
cd "$(dirname "$0")/.." || exit 1

# The .venv that is there answers first: it needs no search, and works in a shell where the module of its Python is not loaded.
[ -x .venv/bin/python ] && .venv/bin/python -I envs/install.py --check "$@" 2>/dev/null && exit 0

python=$(sh envs/find_python.sh) || exit 1
exec "$python" -I envs/install.py "$@"
