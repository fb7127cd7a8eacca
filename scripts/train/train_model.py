"""Train a config through mim, in a process group of its own; what is saved is never lost, no process outlives it."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from scripts.lib.base import products, shared_memory
from scripts.lib.base.console import run_cli
from scripts.lib.base.environment import Variable, writable_home
from scripts.lib.base.files import atomic_path, copy_file, is_whole, sha256_of, write_json
from scripts.lib.base.outcome import Ending, Outcome, may_pass
from scripts.lib.base.problems import PassingError, Stopped, UserError
from scripts.lib.base.subprocesses import (
    KILLED_WORKER,
    memory_ran_out,
    signal_group,
    signals_forwarded,
    was_killed,
)
from scripts.lib.cluster import nodes, slurm
from scripts.lib.cluster.gpus import Gpus, claimed_gpus, cores_of_this_job
from scripts.lib.data.scratch import staged, staged_pixel_cache
from scripts.lib.data.splits import listed_images
from scripts.lib.runs import attempts, energy
from scripts.lib.runs.config_file import check_executable, pixel_cache_folder, read_config
from scripts.lib.runs.lease import Lease, living_group
from scripts.lib.runs.progress_line import Progress, closing_line, resuming_line
from scripts.lib.runs.run_folder import WorkFolder
from scripts.lib.settings.site import current_site

logger = logging.getLogger(__name__)
#: Seconds that a trainer gets to save its state after a signal, before its group is killed.
GRACE_SECONDS = 60.0
#: With less than this free, a trainer that ended without a word ended for want of space.
FULL_DISK_BYTES = 1 << 20
#: What mim says of its child that was killed.
KILLED = "died with <Signals.SIGKILL"


def mim_command(config_file: Path, config: Mapping[str, Any], work_dir: Path, seed: int, workers: int) -> list[str]:
    """Return the command line of mim, or of train_distributed for several processes, each with *workers*.

    What does not determine the result (work_dir, workers) goes in here.
    """
    runner = config["runner"]
    if runner.get("gpus", 1) * runner.get("nodes", 1) > 1:
        command = [sys.executable, "-m", "scripts.train_distributed", str(config_file)]
    else:
        command = [sys.executable, "-m", "scripts.lib.runs.mim", "train", "mmcls", str(config_file)]
        command += ["--gpus", "0" if runner["device"] == "cpu" else "1"]
    command += ["--work-dir", str(work_dir), "--seed", str(seed)]
    if runner["deterministic"]:
        command.append("--deterministic")
    options = [f"data.workers_per_gpu={workers}"]
    if workers == 0:
        options.append("data.persistent_workers=False")  # torch refuses to keep workers that do not exist
    return [*command, "--cfg-options", *options]


def training_environment(config: Mapping[str, Any], base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the trainer: none of it changes the result, all of it changes the speed."""
    environment = dict(base)
    folder = str(Path(sys.executable).parent)
    environment["PATH"] = folder + os.pathsep + environment.get("PATH", "")
    environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(config["runner"]["threads"])
    environment["PYTHONUNBUFFERED"] = "1"
    environment["HOME"] = writable_home(environment)
    environment[Variable.PARENT] = str(os.getpid())
    if config["runner"]["device"] == "cpu":
        # glibc returns large activations to the kernel at each free, and page faults bring them back: keeping them
        # saves a good part of a training step.
        environment.setdefault("MALLOC_MMAP_MAX_", "0")
        environment.setdefault("MALLOC_TRIM_THRESHOLD_", str(16 << 30))
    return environment


def default_workers(device: str, cores: int) -> int:
    """Return data-loader workers for *cores*: enough to feed a GPU, two beside a CPU's compute threads."""
    return 2 if device == "cpu" else max(2, min(8, cores - 1))


def batch_bytes(config: Mapping[str, Any]) -> int:
    """Return the size of a batch as *config* has it loaded: float32, three channels, the largest size of a step."""
    sizes = [224]
    for split in ("train", "val"):
        for step in config["data"][split].get("pipeline", ()):
            for size in (step.get("size"), step.get("crop_size")):
                numbers = size if isinstance(size, list | tuple) else [size]
                sizes += [number for number in numbers if isinstance(number, int)]
    return int(config["data"].get("samples_per_gpu", 32)) * 3 * max(sizes) ** 2 * 4


def run_identity(files: Sequence[Path]) -> dict[str, str]:
    """Return the hash of each file that determines the result."""
    return {str(path): sha256_of(path) for path in files}


def choose_work_dir(folder: Path, identity: Mapping[str, str]) -> Path:
    """Return the work_dir of this identity below *folder*: two configs never share one.

    When another one was used last, say which file changed since then.
    """
    work_dir = folder / hashlib.sha256(json.dumps(sorted(identity.values())).encode()).hexdigest()[:12]
    marker = WorkFolder(work_dir).identity
    if not marker.exists():
        previous = sorted(folder.glob(f"*/{WorkFolder.identity}"), key=lambda path: path.stat().st_mtime)
        if previous:
            before = json.loads(previous[-1].read_text(encoding="utf-8"))
            changed = [name for name in identity if before.get(name) != identity[name]]
            logger.info("%s changed since the last run: training starts anew in %s", ", ".join(changed), work_dir)
        write_json(marker, dict(identity))
    return work_dir


def train(
    command: Sequence[str], environment: Mapping[str, str], work_dir: Path, lease: Lease, may_end_early: bool
) -> None:
    """Run the trainer to its end, showing its progress; return only when training is complete.

    Raises
    ------
    Stopped : it was asked to stop, and has saved its state.
    UserError : training cannot go on; the message says why and what to do.
    """
    output = WorkFolder(work_dir).output
    WorkFolder(work_dir).outcome.unlink(missing_ok=True)
    with open(output, "ab") as stream:
        stream.write(f"\n$ {' '.join(command)}\n".encode())
        stream.flush()
        trainer = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,  # a group of its own: mim dies of a signal at once, and leaves its child behind
        )
    lease.name_group(trainer.pid)
    with signals_forwarded(trainer.pid, signal.SIGTERM, once=True) as received:
        show = Progress(WorkFolder(work_dir).progress, may_end_early)
        killed_at = None
        while living_group(trainer.pid) or trainer.poll() is None:
            show.update()
            try:
                lease.heartbeat()
            except UserError:
                signal_group(trainer.pid, signal.SIGKILL)
                raise
            if received and killed_at is None:
                killed_at = time.monotonic() + GRACE_SECONDS
            if killed_at is not None and time.monotonic() > killed_at:
                logger.warning("the trainer did not stop within %.0f s: killing it", GRACE_SECONDS)
                signal_group(trainer.pid, signal.SIGKILL)
            time.sleep(0.2)
        show.close()
    if received:
        raise stopped(f"by {signal.Signals(received[0]).name}", work_dir)
    if trainer.returncode != 0:
        raise explain_failure(work_dir, output, trainer.returncode)


def stopped(how: str, work_dir: Path) -> Stopped:
    """Return the error of a training that was stopped, *how* being ``by SIGTERM`` or the like."""
    return Stopped(f"training was stopped {how}; its state is in {work_dir}", "the same command goes on from it")


def explain_failure(work_dir: Path, output: Path, status: int = 1) -> UserError:
    """Return why the trainer ended: what it left on record, else the last exception in its output, else its status."""
    outcome = Outcome.read(WorkFolder(work_dir).outcome)
    text = output.read_text(encoding="utf-8", errors="replace").rsplit("\n$ ", 1)[-1]
    if shared_memory.FULL.search(f"{text}\n{outcome or ''}"):
        full = (
            f"training stopped: shared memory ({shared_memory.SHARED_MEMORY}), which data-loader workers use, is full"
        )
        return UserError(full, f"{shared_memory.REMEDY} (details: {output})")
    if outcome and outcome.ending == Ending.FAILED:
        kind = PassingError if outcome.again else UserError
        return kind(f"training stopped: {outcome} (details: {output})")
    if shutil.disk_usage(work_dir).free < FULL_DISK_BYTES:
        full = f"training stopped: no space left on the device of {work_dir}"
        return UserError(full, "free some and run the same command again")
    if outcome and outcome.ending == Ending.STOPPED:
        return stopped("from outside", work_dir)
    if "out of memory" in text.lower():
        return UserError("training ran out of memory", f"halve batch_size, or lower image_size (details: {output})")
    errors = [line for line in text.splitlines() if re.match(r"[A-Za-z_.]+(Error|Exception|Interrupt)\b", line)]
    # mim ends with its own CalledProcessError, which says nothing.
    telling = [line for line in errors if "CalledProcessError" not in line]
    if not telling and (status == -signal.SIGKILL or KILLED in text):
        return killed("the trainer", output)
    reason = telling[-1] if telling else "the trainer ended without a word"
    if KILLED_WORKER.search(reason):
        return killed("a worker that loads images", output)
    kind = PassingError if not telling or may_pass(reason) else UserError
    return kind(f"training failed: {reason} (details: {output})")


def killed(what: str, output: Path) -> PassingError:
    """Return the error of a training of which a process was killed."""
    how, remedy = was_killed(what, memory_ran_out(), ["lower batch_size or workers of the experiment"])
    return PassingError(f"training failed: {how} (details: {output})", remedy)


def publish(targets: Mapping[Path, Path]) -> None:
    """Give each product its final name: as a copy, so that a change of one never reaches the other."""
    for product, target in targets.items():
        with atomic_path(target) as temporary:
            copy_file(product, temporary)


def begin_anew(work: WorkFolder) -> None:
    """Have training begin at its start where what it left is damaged: its states know no earlier best weights."""
    ends = (work.best, work.last, work.train_log)
    damaged = [path.name for path in ends if path.exists() and not is_whole(path)]
    gone = [path.name for path in ends if not path.exists()] if work.last.exists() else []
    if damaged or gone:
        what = " and ".join(
            f"{', '.join(names)} {how}" for names, how in ((damaged, "damaged"), (gone, "gone")) if names
        )
        logger.warning("%s: %s: training begins anew, and comes out the same", work.path, what)
        for path in ends:
            path.unlink(missing_ok=True)
        shutil.rmtree(work.states, ignore_errors=True)


def run_once(
    config_file: Path, seed: int, work_dir: Path, lease: Lease, gpus: int, workers: int | None, end_time: float | None
) -> None:
    """Train to the end in this attempt; *gpus*, *workers* and *end_time* of the command do not change the result."""
    with ExitStack() as held:  # closes what the attempt holds: its GPUs, and its copy of the images
        config = read_config(config_file)
        device, processes = config["runner"]["device"], config["runner"].get("gpus", 1)  # of this node
        in_all = processes * config["runner"].get("nodes", 1)
        environment = training_environment(config, os.environ)
        claimed = held.enter_context(claimed_gpus(gpus, os.environ))
        if claimed:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(claimed)
        environment |= staged_images(config, held)
        end = end_time if end_time is not None else slurm.job_end_time()
        if end is not None:
            environment[Variable.END_TIME] = str(end)
        if workers is None:
            cores = cores_of_this_job(os.environ)
            if claimed:  # its share of them
                cores = cores * len(claimed) // max(len(Gpus.of(os.environ).names), 1)
            workers = default_workers(device, cores // processes)
            # Of each process, for train and for val.
            workers = shared_memory.fitting_workers(workers, batch_bytes(config), loaders=2 * processes)
        command = mim_command(config_file, config, work_dir, seed, workers)
        with attempts.recorded(work_dir) as attempt, energy.metered(attempt, device, in_all, environment):
            train(command, environment, work_dir, lease, config["runner"].get("patience", 0) > 0)


def staged_images(config: Mapping[str, Any], held: ExitStack) -> dict[str, str]:
    """Copy the images that *config* reads to a faster disk, if there is one; return the variable that says where."""
    pixel_cache, site = pixel_cache_folder(config), current_site()
    if pixel_cache is not None:
        copy = held.enter_context(staged_pixel_cache(pixel_cache, site.scratch, site.scratch_gb))
        return {Variable.PIXEL_CACHE: str(copy)} if copy != pixel_cache else {}
    images = Path(config["data"]["train"]["data_prefix"])
    splits = [Path(config["data"][name]["ann_file"]) for name in ("train", "val")]
    products.check_files(images, listed_images(splits))
    copy = held.enter_context(staged(images, splits, site.scratch, site.scratch_gb))
    return {Variable.IMAGES: str(copy)} if copy != images else {}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.train.train_model", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="config.py of the run")
    parser.add_argument("--seed", type=int, required=True, help="the run's seed")
    parser.add_argument("--work-dir", type=Path, required=True, help="folder of states and logs, kept between attempts")
    parser.add_argument("--best", type=Path, required=True, help="weights of the best epoch on val, to write")
    parser.add_argument("--last", type=Path, required=True, help="weights of the last epoch, to write")
    parser.add_argument("--train-log", type=Path, required=True, help="table of epochs, to write")
    parser.add_argument("--workers", type=int, help="data-loader workers; default: from the cores it was given")
    parser.add_argument(
        "--end-time", type=float, metavar="SECONDS", help="save and stop shortly before this time (seconds since 1970)"
    )
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs that this run holds (0: the first one)")
    parser.add_argument(
        "--depends-on", type=Path, nargs="*", default=[], help="files that determine the result beside the config"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Train, or go on training, and hand the products over."""
    if not args.config.is_file():
        # mim would silently search mmcls for a config of that name and train it.
        raise UserError(f"{args.config}: there is no such config: run patch_config first")
    if check_executable(args.config)["runner"].get("nodes", 1) > 1:
        nodes.enter_step([sys.executable, "-m", "scripts.train.train_model", *sys.argv[1:]], os.environ)
    work = WorkFolder(choose_work_dir(args.work_dir, run_identity([args.config, *args.depends_on])))
    lease = Lease(work.path)
    lease.acquire()
    try:
        begin_anew(work)
        if not work.last.exists():  # written last, and whole: with it, nothing is left to train
            if resuming := resuming_line(work):
                logger.info("%s: %s", args.best.parent, resuming)
            machine = {"gpus": args.gpus, "workers": args.workers, "end_time": args.end_time}
            run_once(args.config, args.seed, work.path, lease, **machine)
        publish({work.best: args.best, work.last: args.last, work.train_log: args.train_log})
        shutil.rmtree(work.states, ignore_errors=True)
        runner = read_config(args.config)["runner"]
        ended = closing_line(
            args.train_log.read_text(encoding="utf-8"), runner["max_epochs"], runner.get("patience", 0)
        )
        logger.info("%s: %s", args.best.parent, ended)
    finally:
        lease.release()


if __name__ == "__main__":
    run_cli(build_parser, main)
