"""A process that loads torch and the like once, and becomes each step of a run by forking: no step loads them again.

Loading takes 2 to 5 seconds of the processor, most of what the steps around a small training cost. The shell lines of
the rules stay as they are: in the workflow's shell, ``python`` is :mod:`fork_client`, which hands its arguments,
environment and open files to this server and ends as the step does. Where there is no server, or the environment is
another, the client becomes the ordinary ``python``. Training is never forked: it starts as ``mim`` starts it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

from scripts.lib.base.environment import Variable
from scripts.lib.workflow import fork_client

#: What the steps load beside mimflow itself. Nothing of mimflow: a step runs the code that is there when it starts.
LIBRARIES = (
    *("torch", "mmcls.models", "mmcls.datasets", "matplotlib.pyplot", "pandas", "scipy.optimize", "scipy.stats"),
    *("sklearn.metrics", "sklearn.manifold", "captum.attr", "onnx", "jinja2", "markdown_it"),
)
#: The steps that are forked, as patterns of the shell and as the rules whose steps they are.
MODULES = ("scripts.evaluate.*", "scripts.report.*", "scripts.train.patch_config")
RULES = frozenset(
    {
        *("patch_config", "predict_images", "evaluate_model", "plot_training_curves", "plot_predictions"),
        *("map_embedding", "describe_model", "export_model", "explain_model"),
        *("record_provenance", "write_model_card", "compare_runs", "describe_crate"),
    }
)
#: So many of them must be planned: for one, an ordinary start is as quick.
ENOUGH = 2
#: What may differ between a step and the server: what each shell sets, and what Snakemake sets for each job.
OF_A_JOB = (
    *("_", "SHLVL", "PWD", "OLDPWD", str(Variable.FORK), "TMPDIR", "TMP", "TEMPDIR", "TEMP"),
    *("*_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
_PR_SET_PDEATHSIG = 1


def shell_prefix() -> str:
    """Return what stands before each shell line (bash), so that the steps in it go to the server."""
    client = shlex.quote(str(Path(fork_client.__file__).resolve()))
    return (
        f'[ -z "${{{Variable.FORK}:-}}" ] || python() {{ case "${{2:-}}" in {"|".join(MODULES)})'
        f' command python -I -S {client} "$@";; *) command python "$@";; esac; }}; '
    )


def start(planned: Iterable[str]) -> subprocess.Popen[bytes] | None:
    """Begin to load what the steps need, where enough are planned, and tell the jobs where the server is.

    Not where MIMFLOW_FORK is set already.

    It ends with this process, or with the last step after it.

    Parameters
    ----------
    planned : the rule of each planned job.
    """
    if Variable.FORK in os.environ or sum(rule in RULES for rule in planned) < ENOUGH:
        return None
    folder = Path(tempfile.mkdtemp(prefix="mimflow-"))  # nobody else may enter it
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(folder / "fork"))
        except OSError:  # the name is too long for a socket
            folder.rmdir()
            return None
        listener.listen(256)
        server = subprocess.Popen(
            [sys.executable, "-m", __name__, str(folder), str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            process_group=0,  # Ctrl-C reaches a step through its client, once
        )
    os.environ[Variable.FORK] = str(folder / "fork")
    return server


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
        """Serve until the workflow is gone and no step is left.

        Raises
        ------
        Step : in the process of a step.
        """
        signal.set_wakeup_fd(self.wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for source in (self.listener, self.children, sys.stdin):
            self.selector.register(source, selectors.EVENT_READ)
        has_workflow = True
        while has_workflow or self.clients:
            for key, _events in self.selector.select():
                if key.fileobj is self.listener:
                    self.accept()
                elif key.fileobj is self.children:
                    self.reap()
                elif key.fileobj is sys.stdin:  # the other end is closed
                    has_workflow = False
                    self.selector.unregister(sys.stdin)
                else:
                    self.abandon(key.fileobj)

    def accept(self) -> None:
        """Fork for a client, or send it away."""
        connection, _address = self.listener.accept()
        files: list[int] = []
        try:
            head, files, _flags, _address = socket.recv_fds(connection, fork_client.HEAD.size, 3)
            (size,) = fork_client.HEAD.unpack(head)
            request = json.loads(connection.recv(size, socket.MSG_WAITALL))
            is_like_this = (comparable(request["environment"]), request["folder"]) == (self.environment, os.getcwd())
            process = self.fork(request, files) if is_like_this else 0
            connection.sendall(fork_client.ANSWER.pack(process))
        except (OSError, ValueError, fork_client.struct.error):  # a client that was killed
            process = 0
        finally:
            for file in files:
                os.close(file)
        if process:
            self.clients[process] = connection
            self.selector.register(connection, selectors.EVENT_READ)
        else:
            connection.close()

    def fork(self, request: Mapping[str, Any], files: list[int]) -> int:
        """Return the process of a step; in that process, raise it."""
        server = os.getpid()
        process = os.fork()
        if process:
            return process
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:  # it ended in between
            os._exit(1)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in fork_client.FORWARDED:
            signal.signal(number, signal.SIG_IGN if number in request["ignored"] else signal.SIG_DFL)
        if signal.SIGINT not in request["ignored"]:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, file in enumerate(files):
            os.dup2(file, number)
        for end in (self.listener, self.children, self.wakes, *self.clients.values()):
            end.close()
        self.selector.close()
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
        self.selector.unregister(connection)
        os.kill(next(process for process, client in self.clients.items() if client is connection), signal.SIGKILL)


def comparable(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of an environment of which the loaded libraries may have taken notice."""
    return {
        name: value
        for name, value in environment.items()
        if not any(fnmatchcase(name, pattern) for pattern in OF_A_JOB)
    }


def load() -> None:
    """Load the libraries; end where that alone has started a GPU, which no fork could use then."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asks for the driver's version without starting it
    for name in LIBRARIES:
        with suppress(ImportError):  # the step that needs it says so
            import_module(name)
    if "/libcuda.so" in Path("/proc/self/maps").read_text():
        sys.exit(1)
    gc.collect()
    gc.freeze()  # the pages of what was loaded stay shared


def run(request: Mapping[str, Any]) -> None:
    """Run a step as ``python -m`` does."""
    import threadpoolctl
    import torch

    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    if threads:  # which the libraries read when they were loaded
        threadpoolctl.threadpool_limits(threads)
        torch.set_num_threads(threads)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    _option, module, *words = request["arguments"]
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    """Load, and serve."""
    folder, file = Path(sys.argv[1]), int(sys.argv[2])
    step = None
    with socket.socket(fileno=file) as listener:
        try:
            server = Server(listener)
            load()
            server.serve()
        except Step as caught:
            step = caught.request
        finally:
            if step is None:
                shutil.rmtree(folder, ignore_errors=True)
    if step is not None:
        run(step)


if __name__ == "__main__":
    main()
