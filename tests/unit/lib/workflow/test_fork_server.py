"""A forked step is what an ordinary process would have been: words, files, environment, threads, signals and end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from dag import ROOT, archive_bytes, settings, snakemake

from scripts.lib.base.environment import Variable, job_environment
from scripts.lib.workflow import fork_client, fork_server

PROBE = """
import json, os, signal, sys, time
import torch, threadpoolctl

def main():
    words = sys.argv[1:]
    if words[0] == "tell":
        print(json.dumps({
            "words": words, "name": __name__, "file": os.path.basename(sys.argv[0]), "folder": os.getcwd(),
            "environment": {k: v for k, v in os.environ.items() if k not in ("_", "MIMFLOW_FORK")},
            "threads": torch.get_num_threads(), "input": sys.stdin.read(), "path": sys.path[0],
            "pools": sorted({pool["num_threads"] for pool in threadpoolctl.threadpool_info()}),
        }))
        print("to stderr", file=sys.stderr)
    elif words[0] == "exit":
        sys.exit(int(words[1]))
    elif words[0] == "raise":
        raise ValueError("wrong")
    elif words[0] == "abort":
        os.abort()
    elif words[0] == "wait":
        print(os.getpid(), flush=True)
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            sys.exit(130)

if __name__ == "__main__":
    main()
"""


OFF = {str(Variable.FORK): "no"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of jobs whose steps a server forks, with PWD as their folder."""
    folder = tmp_path_factory.mktemp("forks")
    (folder / "probe.py").write_text(PROBE)
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    known = job_environment(os.environ)
    for name in os.environ.keys() - known.keys():
        patch.delenv(name)
    for name, value in known.items():
        patch.setenv(name, value)
    patch.setenv(Variable.FORK, "")  # so that it is restored
    patch.delenv(Variable.FORK)
    process = fork_server.start(["predict_images", "export_model"])
    assert process and process.stdin
    assert run({**os.environ}, "exit", "0").returncode == 0  # it has loaded
    yield {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    process.stdin.close()
    assert process.wait(120) == 0
    assert not Path(os.environ[Variable.FORK]).parent.exists()
    patch.undo()


def command(*words: str) -> list[str]:
    return [sys.executable, "-I", "-S", fork_client.__file__, "-m", "probe", *words]


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), env=environment, input="given", capture_output=True, text=True, timeout=300)


def begin(environment: dict[str, str]) -> tuple[subprocess.Popen[str], int]:
    """Return a client, and the process of its step."""
    client = subprocess.Popen(command("wait"), env=environment, stdout=subprocess.PIPE, text=True)
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
def test_a_step_is_told_what_an_ordinary_process_is(server: dict[str, str]) -> None:
    forked, ordinary = (run(environment, "tell", "a b", "草莓", "") for environment in (server, {**server, **OFF}))
    assert forked.returncode == ordinary.returncode == 0, forked.stderr
    assert forked.stdout == ordinary.stdout and '"threads": 1' in forked.stdout
    assert forked.stderr == ordinary.stderr == "to stderr\n"


@pytest.mark.long
@pytest.mark.parametrize("words", [("exit", "0"), ("exit", "3"), ("raise",), ("abort",)])
def test_a_step_ends_as_an_ordinary_process_does(server: dict[str, str], words: tuple[str, ...]) -> None:
    forked, ordinary = run(server, *words), run({**server, **OFF}, *words)
    assert forked.returncode == ordinary.returncode
    assert forked.stderr.splitlines()[-1:] == ordinary.stderr.splitlines()[-1:]


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_to_the_client_reaches_the_step_once(server: dict[str, str], number: int, status: int) -> None:
    client, step = begin(server)
    assert step != client.pid, "it was not forked"
    client.send_signal(number)
    words, _ = client.communicate(timeout=30)
    assert client.returncode == status and words.count("interrupted") == (number == signal.SIGINT)
    assert is_gone(step)


@pytest.mark.long
def test_no_step_outlives_its_client_and_the_next_is_served(server: dict[str, str]) -> None:
    client, step = begin(server)
    client.kill()
    client.communicate(timeout=30)
    assert is_gone(step)
    client, step = begin(server)
    os.kill(step, signal.SIGKILL)  # as the system does when memory is short
    assert client.wait(30) == -signal.SIGKILL
    assert run(server, "exit", "0").returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("change", ["LD_LIBRARY_PATH", "MPLCONFIGDIR", "MKL_CBWR"])
def test_another_environment_gets_a_process_of_its_own(server: dict[str, str], change: str) -> None:
    client, step = begin({**server, change: "/elsewhere"})
    assert step == client.pid
    client.kill()
    client.communicate()


def test_one_step_alone_needs_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(Variable.FORK, raising=False)
    assert fork_server.start(["compare_runs", "split_dataset", "train_model"]) is None
    assert Variable.FORK not in os.environ


def test_the_rules_that_are_forked_are_those_whose_lines_the_shell_hands_on() -> None:
    rules = "".join(path.read_text() for path in sorted((ROOT / "rules").glob("*.smk")))
    modules = dict(re.findall(r"^rule (\w+):.*?\"python -m ([\w.]+)", rules, re.MULTILINE | re.DOTALL))
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
        "metrics.json",
        "per_class.csv",
        "model.onnx",
        "model.json",
        "config.py",
    ]
    names += [str(path.relative_to(folder)) for path in (folder / "figures").iterdir()]
    before = {name: (folder / name).read_bytes() for name in names}
    rules = ("patch_config", "predict_images", "export_model", "plot_predictions", "explain_model", "map_embedding")
    result = snakemake(tmp_path, config, "--forcerun", *rules, "--omit-from", "train_model", environment=OFF)
    assert result.returncode == 0, result.stdout
    assert {name for name in names if (folder / name).read_bytes() != before[name]} == set()
