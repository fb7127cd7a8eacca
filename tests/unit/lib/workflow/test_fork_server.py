"""A forked step is what an ordinary process would have been: words, files, environment, threads, signals and end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from dag import ROOT, archive_bytes, settings, snakemake

from scripts.lib.base import interrupts
from scripts.lib.base.environment import Variable, job_environment
from scripts.lib.workflow import fork_client, fork_server
from scripts.lib.workflow.fork_server import Forks

PROBE = """
import json, os, signal, sys, time

def main():
    words = sys.argv[1:]
    if words[0] == "tell":
        environment = {name: value for name, value in os.environ.items() if name != "_"}
        import torch, threadpoolctl  # which add to it
        print(json.dumps({
            "words": words, "name": __name__, "file": os.path.basename(sys.argv[0]), "folder": os.getcwd(),
            "environment": environment,
            "threads": torch.get_num_threads(), "input": sys.stdin.read(), "path": sys.path[0],
            "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "handlers": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
            "pools": sorted({pool["num_threads"] for pool in threadpoolctl.threadpool_info()}),
        }, sort_keys=True))
        print("to stderr", file=sys.stderr)
    elif words[0] == "loaded":
        print([name for name in ("mmcls.models", "timm.models") if name in sys.modules])
    elif words[0] == "exit":
        sys.exit(int(words[1]))
    elif words[0] == "last":  # what Python still does at its end
        import atexit, threading
        atexit.register(print, "at the end")
        threading.Thread(target=lambda: (time.sleep(0.3), print("of a thread"))).start()
        sys.exit("why")
    elif words[0] == "raise":
        raise ValueError("wrong")
    elif words[0] == "abort":
        os.abort()
    elif words[0] == "wait":
        print(os.getpid(), flush=True)
        try:
            time.sleep(float(words[1]))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            sys.exit(130)

if __name__ == "__main__":
    main()
"""


#: A socket that is not there: each step is an ordinary process.
NOWHERE = Path("/nowhere")
#: Pytest's own variable, another one in each test.
CHANGING = "PYTEST_CURRENT_TEST"


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """A server in the environment of a workflow."""
    folder = tmp_path_factory.mktemp("forks")
    (folder / "probe.py").write_text(PROBE)
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    known = job_environment(os.environ)
    for name in os.environ.keys() - known.keys():
        patch.delenv(name)
    for name, value in known.items():
        patch.setenv(name, value)
    for name in (Variable.FORK, CHANGING):
        patch.delenv(name, raising=False)
    forks = fork_server.start()
    assert forks and forks.process.stdin
    assert run(forks.folder, "exit", "0").returncode == 0  # it has loaded
    assert str(forks.folder) not in " ".join(os.environ.values())  # which sbatch hands to jobs on other machines
    yield forks
    forks.process.stdin.close()
    assert forks.process.wait(120) == 0 and not forks.folder.exists()
    patch.undo()


@pytest.mark.long
@pytest.mark.parametrize(("of_timm", "expected"), [(False, ["mmcls.models"]), (True, ["mmcls.models", "timm.models"])])
def test_models_of_timm_are_loaded_where_they_are_built(
    of_timm: bool, expected: list[str], forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CHANGING, raising=False)
    server = fork_server.start(of_timm) if of_timm else forks
    assert server and server.process.stdin
    assert run(server.folder, "loaded").stdout == f"{expected}\n"
    if of_timm:
        server.process.stdin.close()
        assert server.process.wait(120) == 0


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a job of one thread."""
    known = {name: value for name, value in os.environ.items() if name != CHANGING}
    return {**known, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **changes}


def command(folder: Path, *words: str) -> list[str]:
    client = [sys.executable, "-I", "-S", fork_client.__file__, str(folder / fork_server.SOCKET)]
    return [*client, "-m", "probe", *words]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    options = {"env": environment(), "preexec_fn": interrupts.hold}
    return subprocess.run(
        command(folder, *words), input="given", capture_output=True, text=True, timeout=300, **options
    )


def begin(folder: Path, seconds: float = 0, **changes: str) -> tuple[subprocess.Popen[str], int]:
    """Return a client, and the process of its step, which takes Ctrl-C after some seconds."""
    words, variables = command(folder, "wait", str(seconds)), environment(**changes)
    client = subprocess.Popen(words, env=variables, stdout=subprocess.PIPE, text=True, preexec_fn=interrupts.hold)
    assert client.stdout
    return client, int(client.stdout.readline())


def is_gone(process: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.long
def test_a_step_is_told_what_an_ordinary_process_is(forks: Forks) -> None:
    forked, ordinary = (run(folder, "tell", "a b", "草莓", "") for folder in (forks.folder, NOWHERE))
    assert forked.returncode == ordinary.returncode == 0, forked.stderr
    assert forked.stdout == ordinary.stdout and '"threads": 1' in forked.stdout and '"blocked": [2]' in forked.stdout
    assert forked.stderr == ordinary.stderr == "to stderr\n"


@pytest.mark.long
@pytest.mark.parametrize("words", [("exit", "0"), ("exit", "3"), ("last",), ("raise",), ("abort",)])
def test_a_step_ends_as_an_ordinary_process_does(forks: Forks, words: tuple[str, ...]) -> None:
    forked, ordinary = run(forks.folder, *words), run(NOWHERE, *words)
    assert forked.returncode == ordinary.returncode and forked.stdout == ordinary.stdout
    assert forked.stderr.splitlines()[-1:] == ordinary.stderr.splitlines()[-1:]


@pytest.mark.long
@pytest.mark.parametrize("seconds", [0, 1])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_to_the_client_reaches_the_step_once(forks: Forks, number: int, status: int, seconds: int) -> None:
    client, step = begin(forks.folder, seconds)
    assert step != client.pid, "it was not forked"
    client.send_signal(number)
    words, _ = client.communicate(timeout=30)
    assert client.returncode == status and words.count("interrupted") == (number == signal.SIGINT)
    assert is_gone(step)


@pytest.mark.long
def test_ctrl_c_before_the_step_is_there_reaches_it(forks: Forks) -> None:
    os.kill(forks.process.pid, signal.SIGSTOP)  # as one that is loading
    with subprocess.Popen(
        command(forks.folder, "wait", "0"),
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        preexec_fn=interrupts.hold,
    ) as client:
        time.sleep(0.5)
        client.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert client.poll() is None
        os.kill(forks.process.pid, signal.SIGCONT)
        words, _ = client.communicate(timeout=30)
    assert client.returncode == 130 and "interrupted" in words


@pytest.mark.long
def test_no_step_outlives_its_client_and_the_next_is_served(forks: Forks) -> None:
    client, step = begin(forks.folder)
    client.kill()
    client.communicate(timeout=30)
    assert is_gone(step)
    os.kill(forks.process.pid, signal.SIGINT)  # is not for the server
    client, step = begin(forks.folder)
    os.kill(step, signal.SIGKILL)  # as the system does when memory is short
    assert client.wait(30) == -signal.SIGKILL
    assert run(forks.folder, "exit", "0").returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("change", ["LD_LIBRARY_PATH", "MPLCONFIGDIR", "MKL_CBWR"])
def test_another_environment_gets_a_process_of_its_own(forks: Forks, change: str) -> None:
    client, step = begin(forks.folder, **{change: "/elsewhere"})
    assert step == client.pid
    client.kill()
    client.communicate()
    assert fork_server.LOG.read_text().splitlines()[-1] == f"refused ['probe']: other variable {change}"


@pytest.mark.long
@pytest.mark.parametrize(
    "variables",
    [{"PS1": "(.venv) $ "}, {"PS2": "> ", "OLDPWD": "/nowhere"}, {"IFS": ":", "_": "/usr/bin/env", "SHLVL": "3"}],
)
def test_what_the_shell_changes_is_no_other_environment(
    variables: dict[str, str], forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(CHANGING, raising=False)
    server = fork_server.start()
    assert server and server.process.stdin
    line = f"{server.shell_prefix()}python -m scripts.report.write_model_card --help"
    done = subprocess.run(["bash", "-c", line], env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "refused" not in fork_server.LOG.read_text()
    server.process.stdin.close()
    assert server.process.wait(120) == 0


@pytest.mark.long
def test_a_client_that_says_nothing_stops_no_other(forks: Forks, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as torn:
        silent.connect(str(forks.folder / fork_server.SOCKET))
        torn.connect(str(forks.folder / fork_server.SOCKET))
        torn.sendall(fork_client.HEAD.pack(1000) + b"half")
        torn.shutdown(socket.SHUT_WR)
        assert run(forks.folder, "exit", "0").returncode == 0


@pytest.mark.long
def test_nothing_remains_when_the_workflow_is_killed(tmp_path: Path) -> None:
    """The server and its steps end with the process that started the server, and no file of theirs stays."""
    (tmp_path / "probe.py").write_text(PROBE)
    code = (
        "import sys; from scripts.lib.workflow import fork_server as f; forks = f.start();"
        "print(forks.folder, forks.process.pid, flush=True); sys.stdin.read()"
    )
    variables = {**job_environment(os.environ), "TMPDIR": str(tmp_path)}
    variables.pop(Variable.FORK, None)
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as workflow:
        assert workflow.stdout
        folder, server = workflow.stdout.readline().split()
        client = subprocess.Popen(
            command(Path(folder), "wait", "0"), cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True
        )
        assert client.stdout
        step = int(client.stdout.readline())
        assert step != client.pid
        loaded = Path(f"/proc/{server}/maps").read_text()
        assert "libtorch" in loaded and "onnxruntime" not in loaded, "its thread aborts at the end of a fork"
        workflow.kill()
        assert client.wait(30) == -signal.SIGKILL
    assert is_gone(step) and is_gone(int(server)) and not Path(folder).exists()


@pytest.mark.parametrize(
    ("planned", "modules", "value", "wanted"),
    [
        (["patch_config", "predict_images", "evaluate_model", "export_model", "write_report"], [], None, True),
        (["write_model_card", "compare_runs", "describe_crate", "write_report"], [], None, False),
        (["split_dataset", "pack_images", "train_model"] * 9, [], None, False),
        (["probe_candidate"] * 6 + ["train_finalist"] * 5, [], None, True),
        (["predict_images"] * 9, ["cuda/11.8"], None, False),
        (["predict_images"] * 9, [], "no", False),
    ],
)
def test_steps_are_forked_where_many_of_them_run_here(
    planned: list[str], modules: list[str], value: str | None, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(Variable.FORK, raising=False)
    if value:
        monkeypatch.setenv(Variable.FORK, value)
    assert fork_server.are_wanted(planned, modules) == wanted


def test_a_folder_whose_name_is_too_long_for_a_socket_leaves_ordinary_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 30)))
    (tmp_path / ("long" * 30)).mkdir()
    assert fork_server.start() is None and not any((tmp_path / ("long" * 30)).iterdir())


def test_the_shell_becomes_the_client_or_the_command(tmp_path: Path) -> None:
    """In place of the shell, whatever the words: no process stands between a step and the Ctrl-C of its terminal."""
    prefix = Forks(None, tmp_path / "it's here").shell_prefix()  # type: ignore[arg-type]
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s|" "$PPID" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    variables = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def words(line: str) -> list[str]:
        shell = ["bash", "-c", f"set -euo pipefail; {prefix}{line}"]
        result = subprocess.run(shell, env=variables, capture_output=True, text=True, check=True)
        parent, *words = result.stdout.split("|")[:-1]
        assert parent == str(os.getpid())
        return words

    client = ["-I", "-S", str(Path(fork_client.__file__)), str(tmp_path / "it's here" / fork_server.SOCKET)]
    for module in ("scripts.evaluate.predict_images", "scripts.search.probe_candidate", "scripts.train.fit_head"):
        assert words(f"python -m {module} --title 'a  b' ''") == [*client, "-m", module, "--title", "a  b", ""]
    for module in ("scripts.train.train_model", "scripts.search.train_finalist", "scripts.data.split_dataset"):
        assert words(f"python -m {module} --seed 1") == ["-m", module, "--seed", "1"]
    assert subprocess.run(["bash", "-c", f"{prefix}true"]).returncode == 0  # as where no report is asked for


def test_the_rules_that_are_forked_are_those_whose_lines_the_shell_hands_on() -> None:
    rules = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    assert rules.count("shell:") == len(re.findall(r"shell:\s+f?\"python -m scripts\.", rules)), "a step is one command"
    modules = dict(re.findall(r"^rule (\w+):.*?f?\"python -m ([\w.]+)", rules, re.MULTILINE | re.DOTALL))
    matching = {rule for rule, module in modules.items() if any(fnmatchcase(module, p) for p in fork_server.MODULES)}
    assert matching == fork_server.RULES


@pytest.mark.long
@pytest.mark.timeout(600)
def test_forked_steps_write_the_same_bytes(tmp_path: Path) -> None:
    """A run whose steps are forked is made again by ordinary processes, from the same trained model."""
    (tmp_path / "data.zip").write_bytes(archive_bytes(["a", "b"], 6))
    config = settings({"path": "data.zip"})
    result = snakemake(tmp_path, config)
    assert result.returncode == 0, result.stdout
    folder = tmp_path / "results/small/quick/seed0"
    names = [
        "predictions.csv",
        "features.npy",
        "known.npy",
        "certainty.json",
        "metrics.json",
        "per_class.csv",
        "model.onnx",
        "model.json",
        "config.py",
    ]
    names += [str(path.relative_to(folder)) for path in (folder / "figures").iterdir() if path.is_file()]
    before = {name: (folder / name).read_bytes() for name in names}
    rules = ("patch_config", "predict_images", "export_model", "plot_predictions", "explain_model", "map_embedding")
    result = snakemake(
        tmp_path, config, "--forcerun", *rules, "--omit-from", "train_model", environment={str(Variable.FORK): "no"}
    )
    assert result.returncode == 0, result.stdout
    assert {name for name in names if (folder / name).read_bytes() != before[name]} == set()
