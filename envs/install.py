"""Build .venv from a hashed lock, or fill a wheelhouse for machines without internet. Standard library only."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
ENVS = ROOT / "envs"
VENV = ROOT / ".venv"
STAMP = VENV / "mimflow-environment.json"
DEV_STAMP = VENV / "mimflow-linters.json"
DEFAULT_ENV = "cpu"

#: What an environment asks of the machine: the oldest glibc its wheels run on, and the room it takes in GB (with what
#: pip unpacks meanwhile; torch of the cpu environment may be PyPI's CUDA build).
GLIBC = {"cpu": (2, 28), "cuda11": (2, 17), "cuda13": (2, 28)}
DISK_GB = {"cpu": 3, "cuda11": 8, "cuda13": 9}

#: On a terminal, no step is silent for longer.
SILENCE_SECONDS = 10
#: Platform tags of the wheels that a wheelhouse holds, newest first; pip takes the first that a package has.
_TAGS_2014 = ["manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_12_x86_64", "manylinux2010_x86_64"]
_TAGS_2014 += ["manylinux_2_5_x86_64", "manylinux1_x86_64"]
WHEEL_TAGS = {
    "cuda11": _TAGS_2014,
    "cuda13": [f"manylinux_2_{minor}_x86_64" for minor in range(28, 17, -1)] + _TAGS_2014,
}

#: One forward pass of a small mmcls model: it fails here rather than in a later step.
SELF_TEST = """
import time, warnings
warnings.filterwarnings("ignore")
import cv2, mmcls, mmcv, snakemake, torch
from mim.version import __version__ as mim_version
from mmcls.models import build_classifier
model = build_classifier(dict(
    type="ImageClassifier", backbone=dict(type="MobileNetV2", widen_factor=0.5), neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", num_classes=2, in_channels=1280, loss=dict(type="CrossEntropyLoss")))).eval()
start = time.perf_counter()
with torch.no_grad():
    probabilities = model(img=torch.zeros(1, 3, 64, 64), img_metas=None, return_loss=False)
assert len(probabilities) == 1 and len(probabilities[0]) == 2, probabilities
print(f"torch {torch.__version__}, mmcls {mmcls.__version__}, mmcv {mmcv.__version__}, mim {mim_version}, "
      f"forward pass {time.perf_counter() - start:.2f} s")
"""


class SetupError(Exception):
    """A problem that the user can solve; its message is one line."""


def main() -> None:
    """Parse the command line and do the one thing it asks for."""
    args = build_parser().parse_args()
    if args.check:
        nothing_to_do = linters_are_there() if args.linters else is_up_to_date(args.env)
        sys.exit(0 if nothing_to_do and not args.wheelhouse else 1)
    if args.status:
        print(json.dumps(status(), indent=2))
        return
    with one_at_a_time():
        if args.wheelhouse:
            fill_wheelhouse(args.env or installed_env() or DEFAULT_ENV)
        elif args.linters:
            install_linters()
        else:
            install(args.env, args.keep)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", choices=sorted(GLIBC), help="which environment (default: the one .venv has, else cpu)")
    parser.add_argument("--keep", action="store_true", help="refuse to replace an environment of another name")
    parser.add_argument("--check", action="store_true", help="only exit 0 if .venv is what is asked for, else 1")
    parser.add_argument("--status", action="store_true", help="print what .venv is, as JSON")
    parser.add_argument("--wheelhouse", action="store_true", help="fill wheelhouse/ENV for a machine without internet")
    parser.add_argument("--linters", action="store_true", help="add the linters of dev.lock to .venv")
    return parser


# --- what .venv is -----------------------------------------------------------------------------------------------


def inputs_of(env: str) -> list[Path]:
    """Return the files that determine what environment *env* holds."""
    files = [ENVS / "build.lock", ENVS / f"{env}.lock", ENVS / "sdists.lock"]
    if env == "cpu":
        files += [ENVS / "cpu-torch.txt", *sorted((ENVS / "torchvision-standin").rglob("*.toml"))]
        files += sorted((ENVS / "torchvision-standin" / "torchvision").glob("*.py"))
    return files


def hash_of(files: list[Path]) -> str:
    """Return one sha256 over the names and contents of *files*."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def read_stamp(stamp: Path = STAMP) -> dict[str, Any]:
    """Return what the last finished set-up wrote, or {} when none finished."""
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def installed_env() -> str | None:
    """Return the name of the environment that a finished set-up left in .venv, or None."""
    env = read_stamp().get("env")
    return env if env in GLIBC else None


def problem_of(env: str) -> str | None:
    """Say why .venv is not the environment *env* as its lock has it now; None when it is."""
    stamp = read_stamp()
    if not stamp:
        return "a set-up of .venv did not finish" if VENV.exists() else "there is no .venv yet"
    if stamp.get("env") != env:
        return f".venv holds {stamp.get('env')}, not {env}"
    if stamp.get("path") != str(VENV):
        return f"this folder was moved or copied from {stamp.get('path')}"
    if stamp.get("inputs") != hash_of(inputs_of(env)):
        return f"envs/{env}.lock (or what goes with it) has changed since .venv was built"
    if not (VENV / "bin" / "python").exists():
        return "the Python that .venv was built with is gone"
    return None


def is_up_to_date(env: str | None) -> bool:
    """Tell whether .venv is the environment *env* (None: any) as its lock has it now."""
    there = installed_env()
    return there is not None and (env is None or env == there) and problem_of(there) is None


def linters_are_there() -> bool:
    """Tell whether .venv has what dev.lock has now."""
    return read_stamp(DEV_STAMP).get("inputs") == hash_of([ENVS / "dev.lock"])


def status() -> dict[str, Any]:
    """Return what .venv is, for `make doctor`: its environment, and what is wrong with it (None: nothing)."""
    env = installed_env()
    return {"env": env, "problem": problem_of(env or DEFAULT_ENV), "wheelhouses": wheelhouses()}


def wheelhouses() -> list[str]:
    """Return the environments that wheelhouse/ has everything for, as the locks have it now."""
    return [
        env
        for env in sorted(GLIBC)
        if read_stamp(ROOT / "wheelhouse" / env / "complete").get("inputs") == hash_of(inputs_of(env))
    ]


# --- building .venv ----------------------------------------------------------------------------------------------


def install(env: str | None, keep: bool) -> None:
    """Make .venv the environment *env* (None: the one it has, else cpu), from nothing unless it is that already."""
    there = installed_env() or read_stamp(VENV / "mimflow-started.json").get("env")
    env = env or there or fitting_env()
    if keep and there and there != env:
        raise SetupError(f".venv holds {there}: leave ENV={env} out, or replace it by `make setup ENV={env}`")
    reason = problem_of(env)
    if reason is None:
        return
    check_machine(env)
    say(f"setup: {reason}; building environment {env} with {sys.executable}")
    wheelhouse = ROOT / "wheelhouse" / env
    source = ["--no-index", "--find-links", str(wheelhouse)] if env in wheelhouses() else []
    if source:
        say(f"setup: from wheelhouse/{env}, without network")
    elif wheelhouse.exists():
        say(
            f"setup: wheelhouse/{env} is unfinished or of another lock and left aside; `make wheelhouse` fills it again"
        )

    started = time.monotonic()
    # From scratch: repairing an unfinished or older environment is harder to get right than building it again.
    shutil.rmtree(VENV, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(VENV)], "creating .venv")
    # A set-up that is killed from here on leaves this name behind, so that the next one goes on with the same ENV.
    (VENV / "mimflow-started.json").write_text(json.dumps({"env": env}), encoding="utf-8")
    build_environment(env, source)
    (site_packages() / "mimflow.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    run([python(), "-m", "pip", "check"], "checking that all requirements agree")
    versions = run([python(), "-c", SELF_TEST], "importing mmcv, mmcls, mim", capture=True).strip().splitlines()[-1]
    write_stamp(STAMP, {"env": env, "inputs": hash_of(inputs_of(env)), "path": str(VENV)})
    say(f"setup: environment {env} is ready in {time.monotonic() - started:.0f} s: {versions}")


def fitting_env() -> str:
    """Return the environment that fits the GPU of this machine, cpu where there is none, and say so."""
    sys.path.insert(0, str(ROOT))
    from scripts.lib.workflow.machine_check import environment_for, look_at_gpus  # standard library only, like this

    gpus = look_at_gpus()
    if not gpus:
        return DEFAULT_ENV
    has = f"setup: this machine has a GPU ({gpus[0].name}, driver {gpus[0].driver})"
    env = environment_for(gpus[0])
    if env is not None and glibc_problem(env, platform.libc_ver()):
        env = next((name for name in ("cuda11",) if env != name), None)
    if env is None:
        say(f"{has}, and no environment fits it: {DEFAULT_ENV}, on which training is slow; a newer driver may help")
        return DEFAULT_ENV
    say(f"{has}: environment {env}; ENV={DEFAULT_ENV} is smaller, and slow")
    return env


def build_environment(env: str, source: list[str]) -> None:
    """Install everything that environment *env* holds into .venv; *source* is pip's options that say from where."""
    hashed = ["install", *source, "--require-hashes", "--no-deps", "-r"]
    pip([*hashed, str(ENVS / "build.lock")], "installing pip and setuptools", quiet=True)
    pip([*hashed, str(ENVS / f"{env}.lock")], f"installing {env}.lock")
    if env == "cpu":
        # Not --no-deps: where PyPI's CUDA build of torch comes, it brings libraries that it needs to be imported.
        pip(["install", *source, "-r", str(ENVS / "cpu-torch.txt")], "installing torch")
    with scratch_folder() as scratch:
        wheels = scratch if not source else ROOT / "wheelhouse" / env
        if not source:
            build_own_wheels(env, python(), scratch)
        built = ["mmcv", "connection_pool", *(["torchvision"] if env == "cpu" else [])]
        pip(
            ["install", "--no-index", "--no-deps", "--find-links", str(wheels), *built],
            "installing " + ", ".join(built),
            quiet=True,
        )


def build_own_wheels(env: str, python_: str, target: Path) -> None:
    """Build the wheels that PyPI lacks into *target*, by an interpreter with build.lock and opencv-python-headless.

    Without isolation, because mmcv's setup.py needs the pinned setuptools and asks for opencv-python unless it finds
    the headless one. Without pip's cache, which may hold an mmcv that was built where the headless one was missing.
    What comes from PyPI is still checked against its hash.
    """
    wheel = ["wheel", "--no-cache-dir", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target)]
    pip([*wheel, "--require-hashes", "-r", str(ENVS / "sdists.lock")], "building mmcv", python_, quiet=True)
    if env == "cpu":
        with scratch_folder() as scratch:  # setuptools builds inside the source folder: keep the repository clean
            copy = shutil.copytree(ENVS / "torchvision-standin", scratch / "standin")
            pip([*wheel, "--no-index", str(copy)], "building the stand-in for torchvision", python_, quiet=True)


def install_linters() -> None:
    """Add what `make lint` needs to a finished .venv; packages of cpu.lock are never changed by it."""
    if linters_are_there():
        return
    pip(["install", "--require-hashes", "--no-deps", "-r", str(ENVS / "dev.lock")], "adding the linters", quiet=True)
    write_stamp(DEV_STAMP, {"inputs": hash_of([ENVS / "dev.lock"])})


# --- for machines without internet -------------------------------------------------------------------------------


def fill_wheelhouse(env: str) -> None:
    """Download and build every wheel of environment *env* into wheelhouse/ENV, so that install() needs no network."""
    house = ROOT / "wheelhouse" / env
    complete = house / "complete"
    state = {"inputs": hash_of(inputs_of(env))}
    if read_stamp(complete) == state:
        say(f"wheelhouse: wheelhouse/{env} is complete")
        return
    shutil.rmtree(house, ignore_errors=True)
    house.mkdir(parents=True)
    with scratch_folder() as scratch:
        venv = scratch / "venv"
        run([sys.executable, "-m", "venv", str(venv)], "creating a scratch environment")
        helper = str(venv / "bin" / "python")
        pip(["install", "--require-hashes", "--no-deps", "-r", str(ENVS / "build.lock")], "its pip", helper, quiet=True)

        download = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(house)]
        target = [word for tag in WHEEL_TAGS.get(env, []) for word in ("--platform", tag)]
        target = [*target, "--python-version", "3.11", "--implementation", "cp"] if target else []
        for lock in ("build.lock", f"{env}.lock"):
            pip([*download, *target, "--require-hashes", "-r", str(ENVS / lock)], f"downloading {lock}", helper)
        if env == "cpu":
            pins = scratch / "pins.txt"
            pins.write_text("".join(f"{name}=={version}\n" for name, version in read_lock(ENVS / "cpu.lock")))
            torch = ["download", "--dest", str(house), "-c", str(pins), "--find-links", str(house)]
            pip([*torch, "-r", str(ENVS / "cpu-torch.txt")], "downloading torch", helper)

        opencv = dict(read_lock(ENVS / f"{env}.lock"))["opencv-python-headless"]
        pip(
            ["install", "--no-deps", f"opencv-python-headless=={opencv}"],
            "what mmcv's build looks for",
            helper,
            quiet=True,
        )
        build_own_wheels(env, helper, house)
    write_stamp(complete, state)
    size = sum(file.stat().st_size for file in house.iterdir()) / 1e9
    say(f"wheelhouse: wheelhouse/{env} is complete ({size:.1f} GB): copy it into the other machine's project folder")


def read_lock(lock: Path) -> list[tuple[str, str]]:
    """Return (name, version) of each package in a lock."""
    return re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)


# --- the machine -------------------------------------------------------------------------------------------------


def check_machine(env: str) -> None:
    """Stop before gigabytes are downloaded for a machine that cannot hold or run them."""
    problem = glibc_problem(env, platform.libc_ver()) or disk_problem(env, shutil.disk_usage(ROOT).free)
    if problem:
        raise SetupError(problem)


def glibc_problem(env: str, libc: tuple[str, str]) -> str | None:
    """Say why the wheels of *env* do not run on this C library (``platform.libc_ver()``); None when they do."""
    name, version = libc
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) >= GLIBC[env]:
        return None
    needed = ".".join(map(str, GLIBC[env]))
    return (
        f"environment {env} needs glibc {needed} and this system has {version}: use ENV=cuda11 (it runs on a CPU too)"
    )


def disk_problem(env: str, free_bytes: int) -> str | None:
    """Say how much room is missing for *env*; None when there is enough."""
    if free_bytes >= DISK_GB[env] * 1e9:
        return None
    return (
        f"environment {env} needs {DISK_GB[env]} GB where this folder lies and {free_bytes / 1e9:.1f} GB are free: "
        "free some, or move the folder to a larger file system" + ("" if env == "cpu" else "; ENV=cpu needs less")
    )


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let a second set-up in this folder wait for the first."""
    folder = os.open(ENVS, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("setup: waiting for another set-up in this folder")
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:
            pass  # some network file systems have no locks
        yield
    finally:
        os.close(folder)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder beside .venv's content, not in /tmp, which may be small."""
    base = VENV if VENV.exists() else None
    with tempfile.TemporaryDirectory(prefix="mimflow-", dir=os.environ.get("TMPDIR") or base) as folder:
        yield Path(folder)


# --- running commands --------------------------------------------------------------------------------------------


def python() -> str:
    """Return the path of .venv's interpreter."""
    return str(VENV / "bin" / "python")


def site_packages() -> Path:
    """Return .venv's site-packages."""
    return VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def pip(arguments: list[str], doing: str, python_: str | None = None, quiet: bool = False) -> None:
    """Run pip; its progress shows on a terminal, unless *quiet*. Errors always show."""
    silent = ["-qq"] if quiet or not sys.stdout.isatty() else []
    command = [python_ or python(), "-m", "pip", "--disable-pip-version-check", "--no-input", *silent, *arguments]
    run(command, doing)


def child_environment() -> dict[str, str]:
    """Return the environment of pip and of the self-test, without variables that would change what they do."""
    env = dict(os.environ)
    # Modules of a cluster set the first two; pip's others would put packages elsewhere or change versions.
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT", "PIP_NO_BINARY"):
        env.pop(name, None)
    env |= {"PIP_USER": "0", "PYTHONNOUSERSITE": "1"}
    if "TMPDIR" not in env and VENV.exists():
        # pip unpacks gigabytes: on .venv's own file system, where they must fit anyway, not in a small /tmp.
        (VENV / "tmp").mkdir(exist_ok=True)
        env["TMPDIR"] = str(VENV / "tmp")
    if not {"PIP_CACHE_DIR", "XDG_CACHE_HOME"} & env.keys() and "cuda" in (
        read_stamp(VENV / "mimflow-started.json").get("env") or ""
    ):
        # Gigabytes of CUDA wheels do not go into a cluster's small home unless the user says so.
        env["PIP_NO_CACHE_DIR"] = "1"
    return env


def run(command: list[str], doing: str, capture: bool = False) -> str:
    """Run *command*; return what it printed if *capture*. Raises SetupError naming the step when it fails."""
    say(f"setup: {doing}")
    began = time.monotonic()
    pipe = subprocess.PIPE if capture else None
    # A session of its own: Ctrl-C comes to us, and pip has no page of its own to say about it.
    child = subprocess.Popen(command, cwd=ROOT, env=child_environment(), text=True, stdout=pipe, start_new_session=True)
    try:
        output = wait_aloud(child, lambda: say(f"setup: {doing}, {time.monotonic() - began:.0f} s so far"))
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        raise
    if child.returncode:
        raise SetupError(
            f"{doing} failed (see above); mend it and run the same command again (no internet here: `make wheelhouse` "
            "on a machine that has it; a slow one: PIP_INDEX_URL=<a mirror near you>)"
        )
    return output


def wait_aloud(child: subprocess.Popen[str], speak: Callable[[], None]) -> str:
    """Return what *child* printed, if it is captured; on a terminal, *speak* every ten seconds until then."""
    while True:
        try:
            return child.communicate(timeout=SILENCE_SECONDS if sys.stderr.isatty() else None)[0] or ""
        except subprocess.TimeoutExpired:
            speak()


def write_stamp(path: Path, content: dict[str, Any]) -> None:
    """Write *content* as JSON, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def say(message: str) -> None:
    """Print one line of progress."""
    print(message, file=sys.stderr, flush=True)


def stop(message: str) -> NoReturn:
    """Print *message* as an error and exit."""
    say(f"error: {message}")
    sys.exit(1)


def interrupted(number: int, _frame: object) -> NoReturn:
    """Turn a polite kill into the same clean end as Ctrl-C."""
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupted)
    try:
        main()
    except SetupError as error:
        stop(" ".join(str(error).split()))
    except OSError as error:
        stop(f"{error.strerror or error}: {error.filename or ROOT}")
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        sys.exit(130)
