#!/bin/sh
# Print the path of a Python 3.11 that can make virtual environments, or stop with the ways to get one.
# PYTHON=/path/to/python chooses it; otherwise the usual places are looked at.

# A module or conda that sets these would make the wrong packages visible.
unset PYTHONPATH PYTHONHOME

# The base interpreter is printed, not a virtual environment's or a pyenv shim: ours may be about to be replaced.
probe='import sys
if sys.version_info[:2] != (3, 11): sys.exit(3)
import ensurepip, venv
print(getattr(sys, "_base_executable", None) or sys.executable)'

try() {
    found=$("$1" -c "$probe" 2>/dev/null)
    status=$?
    # 1: an ImportError, so a 3.11 without venv (Debian splits it off).
    [ "$status" -eq 1 ] && "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && without_venv=$1
    [ "$status" -eq 0 ] && [ -n "$found" ] && printf '%s\n' "$found" && exit 0
}

stop() {
    echo "error: $1" >&2
    exit 1
}

without_venv=
if [ -n "$PYTHON" ]; then
    try "$PYTHON"
    [ -n "$without_venv" ] && stop "PYTHON=$PYTHON is a 3.11 without the venv module: apt-get install python3.11-venv, or give another PYTHON="
    stop "PYTHON=$PYTHON is not a Python 3.11: give the path of one, or leave PYTHON= out to have it looked for"
fi

for candidate in python3.11 python3 python \
    "${CONDA_PREFIX:-/nonexistent}/bin/python" \
    "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}"/versions/3.11*/bin/python3.11 \
    "${XDG_DATA_HOME:-${HOME:-/nonexistent}/.local/share}"/uv/python/cpython-3.11*/bin/python3.11 \
    .venv/bin/python; do
    command -v "$candidate" >/dev/null 2>&1 && try "$candidate"
done

[ -n "$without_venv" ] && stop "$without_venv is Python 3.11 without the venv module: apt-get install python3.11-venv, or give another with PYTHON="
stop "no Python 3.11 found; get one by 'apt-get install python3.11-venv', 'uv python install 3.11', 'pyenv install 3.11', or on a cluster 'module load' one that 'module avail python' lists or 'conda create -y -p ~/run/py311 python=3.11' (outside a small home), then: make setup PYTHON=/path/to/bin/python3.11"
