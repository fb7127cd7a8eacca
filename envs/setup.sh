#!/bin/sh
# Make .venv what `make setup` promises: at once when it is already that, else with a Python 3.11 and install.py.
# Arguments are install.py's (`install.py --help`).
cd "$(dirname "$0")/.." || exit 1

trap 'echo "stopped; the same command goes on" >&2; exit 130' INT

# The .venv that is there answers first: it needs no search, and works in a shell where the module of its Python is not loaded.
if [ -x .venv/bin/python ]; then
    # Ctrl-C meanwhile ends this script, and no half loaded Python with a traceback.
    case " $* " in *" --look "*) (trap '' INT && exec .venv/bin/python -I envs/install.py "$@"); exit $? ;; esac
    (trap '' INT && exec .venv/bin/python -I envs/install.py --check "$@")
    case $? in 0) exit 0 ;; 2) exit 2 ;; esac # 2: it has said what it does not understand
fi

# The site says where caches may lie (PROFILE, its folder). Read by sed: a Python that knows YAML comes only now.
[ -z "$PROFILE" ] || [ ! -d "profiles/$PROFILE" ] || PROFILE=profiles/$PROFILE
site=${PROFILE:-profiles/local}/site.yaml
if [ -f "$site" ] && [ -z "${PIP_CACHE_DIR:-}${XDG_CACHE_HOME:-}" ]; then
    caches=$(sed -n -e "s/^caches:[[:space:]]*[\"']\{0,1\}\([^\"'#]*[^\"'#[:space:]]\).*/\1/p" -- "$site")
    case $caches in
        "~/"*) caches=$HOME/${caches#"~/"} ;;
        *"$"*) caches= ;; # a variable: not worth an eval
    esac
    [ -z "$caches" ] || export PIP_CACHE_DIR="$caches/pip" UV_CACHE_DIR="${UV_CACHE_DIR:-$caches/uv}"
fi

python=$(sh envs/find_python.sh) || exit 1
exec "$python" -I envs/install.py "$@"
