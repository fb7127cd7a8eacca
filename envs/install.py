"""Build .venv from a hashed lock. Standard library only."""

from __future__ import annotations

import os
import signal


def _stop(_number: int, _frame: object) -> None:
    os.write(2, b"stopped; the same command goes on\n")
    os._exit(130)


if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, _stop)  # while the rest is being loaded

import argparse
import contextlib
import fcntl
import hashlib
import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "envs")]  # python -I leaves out the folder of the script

import uv_settings

from scripts.lib.base.environment import is_stopped, writable_home, writing_problem

ENVS = ROOT / "envs"
#: A link to the environment in use. Each is built in a folder of its own, so that the one before serves until then.
VENV = ROOT / ".venv"
STORE = ROOT / ".venvs"
#: The uv that installer.lock names, beside the environments.
UV_FOLDER = "uv"
#: An environment that is no longer .venv stays for as long after a workflow last ran from it: its jobs may be queued.
UNUSED_SECONDS = 86400.0
#: What has torchvision and timm loaded when something of them is used, and not before.
LAZY_MODULES = ENVS / "lazy_modules.py"
STAMP = VENV / "mimflow-environment.json"
DEV_STAMP = VENV / "mimflow-linters.json"
#: Written when a set-up begins: the next one goes on with the same ENV.
STARTED = "mimflow-started.json"
DEFAULT_ENV = "cpu"

#: What an environment asks of the machine: the oldest glibc its wheels run on, and the room it takes in GB (with what
#: pip unpacks meanwhile; torch of the cpu environment may be PyPI's CUDA build).
GLIBC = {"cpu": (2, 28), "cuda11": (2, 17), "cuda13": (2, 28)}
DISK_GB = {"cpu": 3, "cuda11": 8, "cuda13": 9}

#: Lines of `pip check` that are no problem. timm imports huggingface_hub only where it downloads, which mimflow does.
FINE = (
    r"^No broken requirements|^timm \S+ requires huggingface[-_]hub, which is not installed"  # pip's words
    r"|^(Using Python|Checked \d|Found \d+ incompatib|All installed)"  # uv's
    r"|^The package `timm` requires `huggingface[-_]hub`, but it's not installed"
)

#: Options of Snakemake with which it computes nothing: then an older environment will do.
LOOKING = {
    *(
        "--dry-run",
        "--dryrun",
        "--unlock",
        "--report",
        "--lint",
        "--summary",
        "--detailed-summary",
        "-D",
        "-S",
        "--dag",
    ),
    *("--rulegraph", "--filegraph", "--d3dag", "--list", "-l", "--list-rules", "--list-target-rules", "--lt"),
    *("--archive", "--list-changes", "--list-input-changes", "--list-params-changes", "--list-untracked", "--lu"),
    *("--cleanup-shadow", "--cleanup-metadata", "--cm", "--delete-all-output", "--delete-temp-output"),
    *("--print-compilation", "--version"),
}
#: On a terminal, no step is silent for longer; and elsewhere.
SILENCE_SECONDS, PIPE_SILENCE_SECONDS = 8, 30

#: One forward pass of a small mmcls model: it fails here rather than in a later step.
SELF_TEST = """
import subprocess, sys, time, warnings
# What mimflow imports is compiled by importing it, in a second process; uv compiles nothing, and all would take longer.
beside = subprocess.Popen([sys.executable, "-I", "-c", '''
import importlib, pkgutil, warnings, scripts
warnings.filterwarnings("ignore")
for module in pkgutil.walk_packages(scripts.__path__, "scripts."):
    try:
        importlib.import_module(module.name)
    except Exception:
        pass  # what uses it says why
'''], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
warnings.filterwarnings("ignore")
import cv2, mmcls, mmcv, snakemake, timm, torch
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
      f"timm {timm.__version__}, forward pass {time.perf_counter() - start:.2f} s")
beside.wait()
"""


class SetupError(Exception):
    """A problem that the user can solve; its message is one line."""


class UvError(Exception):
    """uv cannot do what pip may; the message says why."""


def main() -> None:
    """Parse the command line and do the one thing it asks for."""
    args = build_parser().parse_args()
    if args.look or (args.unless_looking and is_looking(os.environ.get("ARGS", ""))):
        look()
    if args.check:
        nothing_to_do = linters_are_there() if args.linters else is_up_to_date(args.env)
        sys.exit(0 if nothing_to_do else 1)
    if args.status:
        print(json.dumps(status(), indent=2))
        return
    with one_at_a_time():
        if args.linters:
            install_linters()
        else:
            install(args.env, args.keep, args.pip)


class Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = Parser(description=__doc__)
    parser.add_argument("--env", choices=sorted(GLIBC), help="which environment (default: the one .venv has, else cpu)")
    parser.add_argument("--keep", action="store_true", help="refuse to replace an environment of another name")
    parser.add_argument("--check", action="store_true", help="only exit 0 if .venv is what is asked for, else 1")
    parser.add_argument("--look", action="store_true", help="build nothing; say in one line what .venv is not")
    parser.add_argument("--unless-looking", action="store_true", help="--look if the words of ARGS make Snakemake idle")
    parser.add_argument("--status", action="store_true", help="print what .venv is, as JSON")
    parser.add_argument("--pip", action="store_true", help="install by pip, not by uv")
    parser.add_argument("--linters", action="store_true", help="add the linters of dev.lock to .venv")
    return parser


# --- what .venv is -----------------------------------------------------------------------------------------------


def inputs_of(env: str) -> list[Path]:
    """Return the files that determine what environment *env* holds."""
    files = [ENVS / "build.lock", ENVS / f"{env}.lock", ENVS / "sdists.lock", LAZY_MODULES]
    return [*files, ENVS / "cpu-torch.txt"] if env == "cpu" else files


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
        return "a set-up of .venv did not finish" if VENV.exists() or started_env() else "there is no .venv yet"
    if stamp.get("env") != env:
        return f".venv holds {stamp.get('env')}, not {env}"
    if stamp.get("path") != os.path.realpath(VENV):
        return f"this folder was moved or copied from {stamp.get('path')}"
    if stamp.get("inputs") != hash_of(inputs_of(env)):
        return f"envs/{env}.lock (or what goes with it) has changed since .venv was built"
    if not (VENV / "bin" / "python").exists():
        return "the Python that .venv was built with is gone"
    return None


def started_env() -> str | None:
    """Return the environment whose set-up began last and did not end, or None."""
    began = sorted([*STORE.glob(f"*/{STARTED}"), *VENV.glob(STARTED)], key=lambda file: file.stat().st_mtime)
    return read_stamp(began[-1]).get("env") if began else None


def is_looking(arguments: str) -> bool:
    """Tell whether Snakemake computes nothing with these words (`ARGS`)."""
    try:
        words = shlex.split(arguments)
    except ValueError:
        return False
    return any(word.split("=")[0] in LOOKING or re.fullmatch(r"-[Fknpqr]*n[Fknpqr]*", word) for word in words)


def look() -> NoReturn:
    """Exit with 0 if there is a .venv, with a note where it is not what its lock says now; else with 1."""
    env = installed_env()
    if env is None:
        raise SetupError("there is no .venv yet: `make setup` builds it")
    if problem := problem_of(env):
        say(f"note: {problem}; this command goes on with it, `make setup` builds the new one")
    sys.exit(0)


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


def install(env: str | None, keep: bool, by_pip: bool = False) -> None:
    """Make .venv the environment *env* (None: the one it has, else cpu), from nothing unless it is that already."""
    there = installed_env() or started_env()
    env = env or there or fitting_env()
    if keep and there and there != env:
        raise SetupError(f".venv holds {there}: leave ENV={env} out, or replace it by `make setup ENV={env}`")
    reason = problem_of(env)
    if reason is None:
        return
    remove_unused()
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
    venv = STORE / f"{env}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        versions = build(env, venv, source, by_pip)
    except SetupError as error:
        shutil.rmtree(venv, ignore_errors=True)
        raise SetupError(f"{error}; .venv is as it was" if installed_env() else str(error)) from error
    take_into_use(venv)
    say(f"setup: environment {env} is ready in {time.monotonic() - started:.0f} s: {versions}")
    remove_unused()


def build(env: str, venv: Path, source: list[str], by_pip: bool) -> str:
    """Build environment *env* in the folder *venv*, from scratch; return the versions that its self-test printed.

    At its final path, since the programs in it name their Python by its path.
    """
    create_venv(env, venv, "--without-pip")
    try:
        uv = None if by_pip else find_uv(env, venv, source)
        if uv:
            uv.build_environment()
    except UvError as error:
        say(f"setup: by pip, which takes longer, since uv cannot: {error}")
        uv = None
    if uv is None:
        shutil.rmtree(venv)
        create_venv(env, venv)
        build_environment(env, source, venv)
    (site_packages(venv) / "mimflow.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    shutil.copy(LAZY_MODULES, site_packages(venv) / "mimflow_lazy_modules.py")
    (site_packages(venv) / "mimflow_lazy_modules.pth").write_text("import mimflow_lazy_modules\n", encoding="utf-8")
    write_snakemake(venv)
    check_requirements(venv, uv)
    printed = run([python(venv), "-c", SELF_TEST], "importing mmcv, mmcls, mim", capture=True)
    write_stamp(venv / STAMP.name, {"env": env, "inputs": hash_of(inputs_of(env)), "path": str(venv)})
    (venv / STARTED).unlink()
    return printed.strip().splitlines()[-1]


def check_requirements(venv: Path, uv: Uv | None) -> None:
    """Raise SetupError where a package misses one that it requires, but for those that nothing of ours imports."""
    check = uv.command("check") if uv else [python(venv), "-m", "pip", "check"]
    environment = uv_settings.uv_environment(child_environment(), uv.told) if uv else None
    # Always with status 0: whether it saw something else than what is fine is read here.
    quietly = "import subprocess, sys; subprocess.run(sys.argv[1:], stderr=subprocess.STDOUT)"
    doing = "checking that all requirements agree"
    printed = run([python(venv), "-c", quietly, *check], doing, True, environment)
    problems = [line for line in printed.splitlines() if line.strip() and not re.search(FINE, line)]
    if problems:
        raise SetupError(f"packages of the lock do not agree: {'; '.join(problems)}; run `make locks`")


def create_venv(env: str, venv: Path, *options: str) -> None:
    """Create an empty environment in *venv*, and note that it is to become *env*."""
    venv.mkdir(parents=True)
    write_stamp(venv / STARTED, {"env": env})
    run([sys.executable, "-m", "venv", *options, "--prompt", "mimflow", str(venv)], "creating the environment")


def write_snakemake(venv: Path) -> None:
    """Have `snakemake`, typed by hand, start as `make` starts it: whatever the shell has set, and without a home.

    In Python: of what it inherits, dash drops the functions, as `module` is one, and bash does what BASH_ENV says.
    """
    interpreter = python(venv)
    first = f"#!{interpreter} -I\n"
    if len(first) > 127 or " " in interpreter:  # more than old kernels read; as pip writes its programs then
        first = f"#!/bin/sh\n'''exec' \"{interpreter}\" -I \"$0\" \"$@\"\n' '''\n"
    script = venv / "bin" / "snakemake"
    script.unlink(missing_ok=True)
    script.write_text(
        f"{first}# Snakemake in the known environment, of the copy of mimflow that this folder is.\n"
        "import os\nimport sys\n\n"
        'is_copy = os.path.isfile("Snakefile") and os.path.isfile("scripts/start.py")\n'
        f'start = os.path.join("." if is_copy else {str(ROOT)!r}, "scripts/start.py")\n'
        'os.environ.pop("ARGS", None)\n'
        f'command = [{interpreter!r}, "-I", "-X", "utf8", start, "python", "-m", "scripts.lib.workflow.start"]\n'
        "os.execv(command[0], [*command, *sys.argv[1:]])\n",
        encoding="utf-8",
    )
    script.chmod(0o755)


def take_into_use(venv: Path) -> None:
    """Make .venv a link to *venv*, at one stroke."""
    if VENV.is_dir() and not VENV.is_symlink():  # built in place
        if processes := processes_of(VENV):
            numbers = ", ".join(map(str, processes))
            raise SetupError(f"the new environment is in {venv}, but .venv is in use (process {numbers}): wait for it")
        VENV.rename(STORE / f"before-{venv.name}")
    link = STORE / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(STORE.name, venv.name))
    os.replace(link, VENV)


def remove_unused() -> None:
    """Remove environments that .venv is not: unfinished ones, and those from which nothing runs any more."""
    for folder in sorted(STORE.iterdir()) if STORE.is_dir() else []:
        if folder.resolve() == VENV.resolve() or folder.name == UV_FOLDER:
            continue
        is_recent = time.time() - folder.stat().st_mtime < UNUSED_SECONDS
        if (folder / STAMP.name).exists() and (is_recent or processes_of(folder)):
            say(f"setup: .venvs/{folder.name} stays for what may still run; after a day without, a set-up removes it")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def processes_of(venv: Path) -> list[int]:
    """Return this user's processes on this machine that run from an environment."""
    inside = f"{venv}{os.sep}".encode()
    processes = []
    for process in Path("/proc").glob("[0-9]*"):
        # maps: the libraries it has loaded; cmdline: a program of the environment has its Python's path.
        with contextlib.suppress(OSError):
            if any(inside in (process / name).read_bytes() for name in ("cmdline", "maps")):
                processes.append(int(process.name))
    return [process for process in processes if process not in (os.getpid(), os.getppid())]


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


def build_environment(env: str, source: list[str], venv: Path) -> None:
    """Install everything that environment *env* holds into *venv*; *source* is pip's options that say from where."""
    interpreter = python(venv)
    hashed = ["install", *source, "--require-hashes", "--no-deps", "-r"]
    pip([*hashed, str(ENVS / "build.lock")], "installing pip and setuptools", interpreter)
    pip([*hashed, str(ENVS / f"{env}.lock")], f"installing {env}.lock", interpreter)
    if env == "cpu":
        # Not --no-deps: where PyPI's CUDA build of torch comes, it brings libraries that it needs to be imported.
        # What does not agree is told by check_requirements, which knows what is fine.
        torch = ["install", "--no-warn-conflicts", *source, "-r", str(ENVS / "cpu-torch.txt")]
        pip(torch, "installing torch", interpreter)
    with scratch_folder() as scratch:
        wheels = scratch if not source else ROOT / "wheelhouse" / env
        if not source:
            build_own_wheels(interpreter, scratch)
        built = ["mmcv", "connection_pool"]
        pip(
            ["install", "--no-index", "--no-deps", "--find-links", str(wheels), *built],
            "installing " + ", ".join(built),
            interpreter,
        )


def build_own_wheels(python_: str, target: Path) -> None:
    """Build the wheels that PyPI lacks into *target*, by an interpreter with build.lock and opencv-python-headless.

    Without isolation, because mmcv's setup.py needs the pinned setuptools and asks for opencv-python unless it finds
    the headless one. Without pip's cache, which may hold an mmcv that was built where the headless one was missing.
    What comes from PyPI is still checked against its hash.
    """
    wheel = ["wheel", "--no-cache-dir", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target)]
    pip([*wheel, "--require-hashes", "-r", str(ENVS / "sdists.lock")], "building mmcv", python_)


def install_linters() -> None:
    """Add what `make lint` needs to a finished .venv; packages of cpu.lock are never changed by it."""
    if linters_are_there():
        return
    lock = ["install", "--require-hashes", "--no-deps", "-r", str(ENVS / "dev.lock")]
    try:
        uv = find_uv(installed_env() or DEFAULT_ENV, VENV, [])
        uv.install(lock[1:], "adding the linters")
    except UvError as error:
        say(f"setup: by pip, since uv cannot: {error}")
        pip(lock, "adding the linters", python(VENV))
    write_stamp(DEV_STAMP, {"inputs": hash_of([ENVS / "dev.lock"])})


# --- uv in pip's place -------------------------------------------------------------------------------------------


class Uv:
    """The uv of installer.lock, which fills one environment as the user's pip settings say."""

    def __init__(self, program: Path, env: str, venv: Path, source: list[str], told: uv_settings.Translation) -> None:
        self.program, self.env, self.venv, self.source, self.told = program, env, venv, source, told
        cache = uv_settings.cache_folder(child_environment(), told.uses_cache)
        self.cache = cache if cache and not writing_problem(Path(cache)) else None

    def command(self, verb: str, *arguments: str) -> list[str]:
        """Return a command of `uv pip` for this environment."""
        return [str(self.program), "pip", verb, "--no-config", "--python", python(self.venv), *arguments]

    def install(
        self, arguments: list[str], doing: str, uses_cache: bool = True, source: list[str] | None = None
    ) -> None:
        """Install by uv what pip's options *arguments* name; *source* in place of where else it comes from.

        Raises
        ------
        SetupError : pip would fail as well.
        UvError : pip may do it.
        """
        # Copies: an edit of a linked file, in .venv, would change every environment of this cache (clone falls back to
        # links too). A cache of this one call is gone after it, so there is nobody to share a link with.
        cache = ["--no-cache", "--link-mode", "hardlink"]
        if self.cache and uses_cache:
            cache = ["--cache-dir", self.cache, "--link-mode", "copy"]
        command = self.command("install", "--quiet", *cache, *(source or self.source or self.told.options), *arguments)
        environment = uv_settings.uv_environment(child_environment(), self.told)
        output = run(command, doing, capture=True, environment=environment, fails=judge_uv)
        if output.strip():
            say(output.strip())

    def build_environment(self) -> None:
        """Do what the function of this name does by pip."""
        hashed = ["--require-hashes", "--no-deps", "-r"]
        locks = [str(ENVS / "build.lock"), "-r", str(ENVS / f"{self.env}.lock")]
        self.install([*hashed, *locks], f"installing {self.env}.lock")
        if self.env == "cpu":
            constraints = [] if self.source else self.told.constraints
            self.install(["-r", str(ENVS / "cpu-torch.txt"), *constraints], "installing torch")
        if self.source:
            built = ["mmcv", "connection-pool"]
            self.install(["--no-deps", *built], "installing " + ", ".join(built))
            return
        # As in build_own_wheels: without isolation, and without a cache that may hold another build of mmcv.
        sdists = ["--no-build-isolation", *hashed, str(ENVS / "sdists.lock")]
        self.install(sdists, "building mmcv and connection_pool", uses_cache=False)


def judge_uv(output: str) -> Exception:
    """Return what a failure of uv, or of fetching it, means, from what was printed."""
    if problem := uv_settings.certain_problem(output):
        return SetupError(f"{problem[0]}: {problem[1]}, and run the same command again")
    return UvError(uv_settings.reason_in(output))


def find_uv(env: str, venv: Path, source: list[str]) -> Uv:
    """Return the pinned uv, fetched by the pip that came with Python unless it is here.

    Raises
    ------
    UvError : there is none for this machine, or it cannot do what the user's pip settings ask for.
    """
    program = STORE / UV_FOLDER / f"uv-{dict(read_lock(ENVS / 'installer.lock'))['uv']}"
    with scratch_folder() as scratch:
        python_pip = [python(venv), str(unpack_pip(scratch) / "pip")]
        try:
            listing = run([*python_pip, "config", "list"], "reading pip's settings", capture=True)
            told = uv_settings.translate(uv_settings.parse_listing(listing), os.environ)
        except uv_settings.CannotFollowError as error:
            raise UvError(f"your pip settings ask for {error} (`pip config list`)") from error
        if not program.exists():
            fetch = ["download", "-q", "--disable-pip-version-check", "--no-input", *source, "--require-hashes"]
            fetch += ["--no-deps", "--only-binary", ":all:", "--dest", str(scratch)]
            fetch += ["-r", str(ENVS / "installer.lock")]
            run([*python_pip, *fetch], "fetching uv", capture=True, fails=judge_uv)
            unpack_uv(next(scratch.glob("uv-*.whl")), program)
    return Uv(program, env, venv, source, told)


def unpack_pip(scratch: Path) -> Path:
    """Unpack the pip that came with Python, which is quicker than to install it; return its folder."""
    import ensurepip

    name = f"pip-{ensurepip.version()}-py3-none-any.whl"
    folders = [Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels")]
    wheel = next((folder / name for folder in folders if (folder / name).exists()), None)
    if wheel is None:
        raise UvError("this Python hides its pip")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch / "pip")
    return scratch / "pip"


def unpack_uv(wheel: Path, program: Path) -> None:
    """Take the one program out of uv's wheel, whole or not at all."""
    shutil.rmtree(program.parent, ignore_errors=True)
    program.parent.mkdir(parents=True)
    temporary = program.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as archive:
        inside = next(name for name in archive.namelist() if name.endswith(".data/scripts/uv"))
        temporary.write_bytes(archive.read(inside))
    temporary.chmod(0o755)
    os.replace(temporary, program)


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
    """Yield a temporary folder where environments lie, not in /tmp, which may be small."""
    base = STORE if STORE.exists() else None
    with tempfile.TemporaryDirectory(prefix="mimflow-", dir=os.environ.get("TMPDIR") or base) as folder:
        yield Path(folder)


# --- running commands --------------------------------------------------------------------------------------------


def python(venv: Path) -> str:
    """Return the path of an environment's interpreter."""
    return str(venv / "bin" / "python")


def site_packages(venv: Path) -> Path:
    """Return an environment's site-packages."""
    return venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def pip(arguments: list[str], doing: str, python_: str) -> None:
    """Run pip, which shows errors only: a lock is hundreds of lines of it (PIP_LOG=FILE writes them to a file)."""
    command = [python_, "-m", "pip", "--disable-pip-version-check", "--no-input", "-qq", *arguments]
    output = run(command, doing, capture=True, fails=judge_pip)
    if output.strip():
        say(output.strip())


def judge_pip(output: str) -> SetupError | None:
    """Return what a failure of pip means where its last line does not: an index out of its reach is empty to it."""
    if problem := uv_settings.pip_problem(output):
        return SetupError(f"{problem[0]}: {problem[1]}, and run the same command again")
    say(output.strip())
    return None


def child_environment() -> dict[str, str]:
    """Return the environment of pip and of the self-test, without variables that would change what they do."""
    env = {name: value for name, value in os.environ.items() if not is_stopped(name)}
    # They would put packages elsewhere or change versions.
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_CONSTRAINT", "PIP_NO_BINARY"):
        env.pop(name, None)
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # the self-test compiles what it imports
    env |= {"PIP_USER": "0", "PYTHONNOUSERSITE": "1", "HOME": writable_home(env)}
    if "TMPDIR" not in env and STORE.exists():
        # pip unpacks gigabytes: on the environment's own file system, where they must fit anyway, not in a small /tmp.
        (STORE / "tmp").mkdir(exist_ok=True)
        env["TMPDIR"] = str(STORE / "tmp")
    if not {"PIP_CACHE_DIR", "XDG_CACHE_HOME"} & env.keys() and "cuda" in (started_env() or ""):
        # Gigabytes of CUDA wheels do not go into a cluster's small home unless the user says so.
        env["PIP_NO_CACHE_DIR"] = "1"
    return env


def run(
    command: list[str],
    doing: str,
    capture: bool = False,
    environment: dict[str, str] | None = None,
    fails: Callable[[str], Exception | None] | None = None,
) -> str:
    """Run *command*; return what it printed if *capture*.

    Raises SetupError naming the step when it fails, or what *fails* makes of all that it printed, if anything.
    """
    say(f"setup: {doing}")
    began = time.monotonic()
    pipe = subprocess.PIPE if capture else None
    # A session of its own: Ctrl-C comes to us, and pip has no page of its own to say about it.
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment or child_environment(),
        text=True,
        stdout=pipe,
        stderr=subprocess.STDOUT if fails else None,
        start_new_session=True,
    )
    try:
        output = wait_aloud(child, lambda: say(f"setup: {doing}, {time.monotonic() - began:.0f} s so far", True))
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        raise
    if child.returncode and fails and (error := fails(output)):
        raise error
    if child.returncode:
        raise SetupError(
            f"{doing} failed (see above); mend it and run the same command again (no internet here: `make wheelhouse` "
            "on a machine that has it; a slow one: PIP_INDEX_URL=<a mirror near you>)"
        )
    return output


def wait_aloud(child: subprocess.Popen[str], speak: Callable[[], None]) -> str:
    """Return what *child* printed, if it is captured; *speak* until then, less often where nobody watches."""
    silence = SILENCE_SECONDS if sys.stderr.isatty() else PIPE_SILENCE_SECONDS
    while True:
        try:
            return child.communicate(timeout=silence)[0] or ""
        except subprocess.TimeoutExpired:
            speak()


def write_stamp(path: Path, content: dict[str, Any]) -> None:
    """Write *content* as JSON, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def say(message: str, until_next: bool = False) -> None:
    """Print one line of progress; on a terminal, the next one takes its place if *until_next*."""
    if sys.stderr.isatty():
        # The cursor waits at the beginning of the line: what pip says stands there too, not behind the message.
        print(f"\r\x1b[2K{message}", end="\r" if until_next else "\n", file=sys.stderr, flush=True)
    else:
        print(message, file=sys.stderr, flush=True)


def stop(message: str) -> NoReturn:
    """Print *message* as an error and exit."""
    say(f"error: {message}")
    sys.exit(1)


def interrupted(number: int, _frame: object) -> NoReturn:
    """Turn a polite kill into the same clean end as Ctrl-C."""
    raise KeyboardInterrupt(number)


def run_main(main: Callable[[], None]) -> None:
    """Run *main*; what stops it is one line."""
    signal.signal(signal.SIGTERM, interrupted)
    if signal.getsignal(signal.SIGINT) == _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except SetupError as error:
        stop(" ".join(str(error).split()))
    except OSError as error:
        stop(f"{error.strerror or error}: {error.filename or ROOT}")
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        sys.exit(130)


if __name__ == "__main__":
    run_main(main)
