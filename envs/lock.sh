#!/bin/sh
# Resolve envs/*.in into envs/*.lock (`make locks`): pinned, with PyPI's hashes, and naming no index, so that a mirror serves too.
# Needs PyPI and a Python 3.11 as $1. Without `--upgrade` as $2, pins that still fit are kept.
set -euf
python=$1
upgrade=${2:-}
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --require-hashes --no-deps --only-binary :all: -r installer.lock
# A uv.toml of the machine must not change the result.
export UV_NO_CONFIG=1

compile() { # OUTPUT PLATFORM ARGUMENTS...
    output=$1 platform=$2
    shift 2
    echo "locks: $output ($platform)"
    "$work/venv/bin/uv" pip compile --quiet --no-annotate --generate-hashes --no-emit-index-url --no-emit-find-links \
        --custom-compile-command "make locks" --python-version 3.11 --python-platform "$platform" $upgrade \
        --output-file "$output" "$@"
}

compile installer.lock x86_64-manylinux2014 --only-binary :all: installer.in
compile build.lock x86_64-manylinux2014 --only-binary :all: build.in
compile sdists.lock x86_64-manylinux2014 --no-deps --no-binary :all: sdists.in

# `--only-binary :all:` is what makes cuda11.lock install on glibc 2.17; the two sdists join the resolution as wheels built here.
"$work/venv/bin/pip" install --quiet --require-hashes --no-deps -r build.lock
"$work/venv/bin/pip" wheel --quiet --require-hashes --no-deps --no-build-isolation --wheel-dir "$work/wheels" -r sdists.lock
lock() { # ENV PLATFORM ARGUMENTS...
    name=$1 on=$2
    shift 2
    compile "$name.lock" "$on" --only-binary :all: --override overrides.in "$@" \
        --find-links "$work/wheels" --no-emit-package mmcv --no-emit-package connection-pool "$name.in"
}
lock cpu x86_64-manylinux_2_28 --override cpu-overrides.in
lock cuda11 x86_64-manylinux2014
lock cuda13 x86_64-manylinux_2_28

# The linters' lock leaves out what cpu.lock has: it only adds packages, it never changes one.
have=$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' cpu.lock)
# shellcheck disable=SC2086  # $have is a list of options
compile dev.lock x86_64-manylinux_2_28 --only-binary :all: $have dev.in

"$python" -I apptainer.py # what is made of the locks
