"""A process that loads torch and the like once, and becomes each step of a run by forking: no step loads them again.

Loading takes 2 to 5 seconds of the processor, most of what the steps around a small training cost. The shell lines of
the rules stay as they are: the workflow's shell becomes :mod:`fork_client`, which hands its arguments, environment and
open files to this server and ends as the step does. Where there is no server, or the environment is another, the client
becomes the ordinary ``python``. Training is never forked: it starts as ``mim`` starts it. On Slurm, the Snakemake that
runs the steps of a job on its node has a server of its own.
"""

from __future__ import annotations

import atexit
import gc
import marshal
import os
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from scripts.lib.base import early_errors, interrupts, usage
from scripts.lib.base.environment import Variable
from scripts.lib.base.subprocesses import die_with_parent
from scripts.lib.workflow import fork_client

#: What the steps load beside mimflow itself. Nothing of mimflow: a step runs the code that is there when it starts.
LIBRARIES = (
    *("torch", "mmcls.models", "mmcls.datasets", "matplotlib.pyplot", "pandas", "scipy.optimize", "scipy.stats"),
    *("sklearn.metrics", "sklearn.manifold", "captum.attr", "onnx", "fontTools.subset", "jinja2", "markdown_it"),
)
#: The steps that are forked, as patterns of the shell and as the rules whose steps they are.
MODULES = (
    *("scripts.evaluate.*", "scripts.report.*", "scripts.train.patch_config", "scripts.train.fit_head"),
    *("scripts.train.fetch_checkpoint", "scripts.data.find_label_suspects"),
    *("scripts.search.probe_*", "scripts.search.choose_*", "scripts.search.describe_*"),
)
RULES = frozenset(
    {
        *("fetch_checkpoint", "find_label_suspects"),
        *("patch_config", "fit_head", "probe_candidate", "choose_finalists", "choose_model", "describe_search"),
        *("predict_images", "evaluate_model", "plot_training_curves", "plot_predictions"),
        *("map_embedding", "describe_model", "export_model", "explain_model"),
        *("record_provenance", "write_model_card", "compare_runs", "describe_crate", "write_try_page", "write_report"),
    }
)
#: So many of them must be planned: fewer, as those after a change of the report, load less than the server does.
ENOUGH = 5
#: As the steps are started: bash takes variables out (PS1, which activate exports), and a step has them no more.
BY_THE_SHELL = ("bash", "-c", 'exec "$@"', "bash")
#: What may differ between a step and the server: what each shell sets, and what Snakemake sets for each job.
OF_A_JOB = (
    *("_", "SHLVL", "PWD", "OLDPWD", "TMPDIR", "TMP", "TEMPDIR", "TEMP"),
    *("*_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
#: The socket in the server's folder.
SOCKET = "fork"
#: What the last server that started here says: of loading, which steps it refused and why, its end.
LOG = Path(".snakemake/mimflow-forks.log")
#: So long a client may take to say what it asks for.
SECONDS = 5


@dataclass(frozen=True)
class Forks:
    """A server that was started. It serves until the other end of its standard input is closed, as by a SIGKILL.

    Parameters
    ----------
    process : the server's.
    folder : where its socket lies; the server removes it.
    """

    process: subprocess.Popen[bytes]
    folder: Path

    def shell_prefix(self) -> str:
        """Return what stands before each shell line (bash), so that a step goes to the server: in place of ``exec``."""
        client = shlex.join([str(Path(fork_client.__file__).resolve()), str(self.folder / SOCKET)])
        return (
            f'step() {{ case "$3" in {"|".join(MODULES)}) shift; exec python -I -S {client} "$@";; *) exec "$@";; esac;'
            " }; step "
        )


def are_wanted(planned: Iterable[str], modules: Sequence[str]) -> bool:
    """Tell whether steps are to be forked: enough of them, in this process's environment.

    Parameters
    ----------
    planned : the rule of each job that this Snakemake runs itself: the whole workflow's, or those of one Slurm job.
    modules : those of the site, which make another environment.
    """
    is_possible = not (modules or os.environ.get(Variable.FORK) == "no")
    return is_possible and sum(rule in RULES for rule in planned) >= ENOUGH


def start(of_timm: bool = False) -> Forks | None:
    """Begin to load what the steps need; return None where there can be no socket.

    Parameters
    ----------
    of_timm : some of them build models of timm.
    """
    folder = Path(tempfile.mkdtemp(prefix="mimflow-"))  # nobody else may enter it
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(folder / SOCKET))
        except OSError:  # the name is too long for a socket, or the file system has none
            folder.rmdir()
            return None
        listener.listen(256)
        words = [sys.executable, "-m", __name__, str(folder), str(listener.fileno()), *(["timm.models"] * of_timm)]
        with open_log() as log:
            server = subprocess.Popen(
                [*BY_THE_SHELL, *words],
                env={**os.environ},  # as the jobs have it: a C library may have set more
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[listener.fileno()],
                process_group=0,  # Ctrl-C reaches a step through its client, once
            )
    return Forks(server, folder)


def open_log() -> BinaryIO:
    """Return `LOG`, empty; where it cannot be written, a file that keeps nothing."""
    try:
        LOG.parent.mkdir(exist_ok=True)
        LOG.write_bytes(b"")
        return LOG.open("ab")
    except OSError:
        return open(os.devnull, "ab")


class Step(BaseException):
    """Unwinds the server in the process of a step.

    Parameters
    ----------
    request : what the client asked for.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        super().__init__(request)
        self.request = request


class Server:
    """Forks for each request, and tells each client how its step ended."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.environment = comparable(os.environ)
        self.clients: dict[int, socket.socket] = {}  # by the process of the step
        self.selector = selectors.DefaultSelector()
        self.children, self.wakes = socket.socketpair()
        for end in (self.children, self.wakes):
            end.setblocking(False)

    def serve(self) -> None:
        """Serve until the workflow is gone; what steps it has left end with this process.

        Raises
        ------
        Step : in the process of a step.
        """
        signal.set_wakeup_fd(self.wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (self.listener, self.children, sys.stdin):
            self.selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _events in self.selector.select():
                if key.fileobj is sys.stdin:  # the other end is closed
                    return
                if key.fileobj is self.listener:
                    self.accept()
                elif key.fileobj is self.children:
                    self.reap()
                else:
                    self.abandon(key.fileobj)

    def accept(self) -> None:
        """Fork for a client, or send it away."""
        connection, _address = self.listener.accept()
        connection.settimeout(SECONDS)  # one that was stopped must not stop the others
        process, files = 0, list[int]()
        with suppress(OSError, EOFError, ValueError, TypeError, struct.error):  # one that was killed
            try:
                head, files, _flags, _address = socket.recv_fds(connection, fork_client.HEAD.size, 3)
                with connection.makefile("rb") as stream:
                    request = marshal.loads(stream.read(*fork_client.HEAD.unpack(head)))
                if other := self.differing(request):
                    print(f"refused {request['arguments'][1:2]}: other {', '.join(other)}", file=sys.stderr, flush=True)
                else:
                    process = self.fork(request, files, connection)
                connection.sendall(fork_client.ANSWER.pack(process))
            finally:
                for file in files:
                    os.close(file)
        if process:
            self.clients[process] = connection
            self.selector.register(connection, selectors.EVENT_READ)  # also where it is gone by now
        else:
            connection.close()

    def differing(self, request: Mapping[str, Any]) -> list[str]:
        """Return the names of what a step has otherwise than this server: variables, and the folder."""
        there = comparable(request["environment"])
        names = there.keys() | self.environment.keys()
        other = [f"variable {name}" for name in sorted(names) if there.get(name) != self.environment.get(name)]
        return other + ["folder"] * (request["folder"] != os.getcwd())

    def fork(self, request: Mapping[str, Any], files: list[int], connection: socket.socket) -> int:
        """Return the process of a step; in that process, raise it."""
        server = os.getpid()
        process = os.fork()
        if process:
            return process
        die_with_parent(server)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in fork_client.FORWARDED:
            signal.signal(number, signal.SIG_IGN if number in request["ignored"] else signal.SIG_DFL)
        if signal.SIGINT not in request["ignored"]:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for standard, file in enumerate(files):
            os.dup2(file, standard)
        for end in (connection, self.listener, self.children, self.wakes, *self.clients.values()):
            end.close()
        self.selector.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, request["mask"])
        raise Step(request)

    def reap(self) -> None:
        """Tell the clients whose steps have ended."""
        with suppress(BlockingIOError):
            self.children.recv(4096)
        for process in list(self.clients):
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                connection = self.clients.pop(process)
                with suppress(OSError):
                    connection.sendall(fork_client.ANSWER.pack(status))
                with suppress(KeyError):
                    self.selector.unregister(connection)
                connection.close()

    def abandon(self, connection: Any) -> None:
        """End the step whose client was killed."""
        for process, client in self.clients.items():
            if client is connection:  # else it has just been told
                self.selector.unregister(connection)
                os.kill(process, signal.SIGKILL)


def comparable(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment of which the loaded libraries may have taken notice."""
    return {
        name: value
        for name, value in environment.items()
        if not any(fnmatchcase(name, pattern) for pattern in OF_A_JOB)
    }


def load(*more: str) -> None:
    """Load the libraries, and *more*; end where that alone has started a GPU, which no fork could use then."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asks for the driver's version without starting it
    for name in (*LIBRARIES, *more):
        with suppress(ImportError):  # the step that needs it says so
            import_module(name)
    if "/libcuda.so" in Path("/proc/self/maps").read_text():
        sys.exit("a library has started the GPU while it was loaded: nothing is forked")
    gc.collect()
    gc.freeze()  # the pages of what was loaded stay shared


def run(request: Mapping[str, Any]) -> None:
    """Run a step as ``python -m`` does."""
    import threadpoolctl
    import torch

    usage.is_fork = True
    os.environ.clear()  # also of what the libraries have set
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    if threads:  # which the libraries read when they were loaded
        threadpoolctl.threadpool_limits(threads)
        torch.set_num_threads(threads)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=os.isatty(1))
    _option, module, *words = request["arguments"]
    sys.argv = [module, *words]
    early_errors.watch(words)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def end(status: object) -> NoReturn:
    """End the process of a step as Python does, but without taking apart what the server has loaded.

    That alone takes a quarter of a second: it writes to the pages that the steps share, so that each is copied first.

    Parameters
    ----------
    status : of the step's SystemExit.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # waits for its threads
    atexit._run_exitfuncs()
    if not isinstance(status, int | None):
        print(status, file=sys.stderr)
        status = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status or 0)


def main() -> None:
    """Load, and serve."""
    interrupts.hold()
    folder, file = Path(sys.argv[1]), int(sys.argv[2])
    step = None
    with socket.socket(fileno=file) as listener:
        try:
            server = Server(listener)
            load(*sys.argv[3:])
            server.serve()
        except Step as caught:
            step = caught.request
        finally:
            if step is None:
                shutil.rmtree(folder, ignore_errors=True)
    if step is not None:
        status: object = None
        try:
            run(step)
        except SystemExit as ended:
            status = ended.code
        end(status)


if __name__ == "__main__":
    main()
