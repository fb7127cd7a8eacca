"""The bench: what it makes of its rows, and a smoke run of two of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench import compare, prepare, processes, rows, table
from bench.rows import parse_rows
from bench.table import ROWS
from scripts.lib.base.problems import UserError

ROOT = Path(__file__).resolve().parents[3]


def make_row(row: str, seed: int = 0, *, times: list[float], val: list[float], test: dict[str, float] | None = None):
    points = [
        {"name": f"epoch {i}", "seconds": seconds, "val_accuracy": accuracy, "weights": f"epoch_{i}.pth"}
        for i, (seconds, accuracy) in enumerate(zip(times, val, strict=True), 1)
    ]
    chosen = table.chosen_checkpoint(row, points)
    return {
        "row": row, "data": "d", "seed": seed, "data_line": "2 classes", "size": 160 if "fast" in row else 224,
        "seconds": times[-1], "startup_seconds": 4.0, "images_per_second": 50.0, "peak_mb": 1000.0,
        "checkpoints": points, "chosen": chosen, "test": test or {str(i): 0.5 for i in range(len(points))},
    }  # fmt: skip


def limit_row(rate: float):
    return {
        "row": "limit", "data": "d", "seed": 0, "data_line": "2 classes", "size": 160, "images_per_second": rate,
        "images_per_second_by_size": {"160": rate, "224": rate / 2}, "peak_mb": 900.0,
        "in_turns": {"plain": [50, 50, 100, 100], "absorbed": [100, 60, 100, 150], "fast": [55, 60, 80]},
    }  # fmt: skip


def cells(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {table.NAMES[name]} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_rows_are_run_in_the_order_in_which_they_need_each_other():
    assert parse_rows("limit, fast+,fast ,plain") == ["plain", "fast", "fast+", "limit"]


def test_an_unknown_row_is_refused_with_what_is_allowed():
    with pytest.raises(UserError, match=r"'slow' is no row: choose of plain,.*limit"):
        parse_rows("plain,slow")
    with pytest.raises(UserError, match="names no row"):
        parse_rows(" ,")


def test_interval_is_students_over_seeds():
    mean, half = table.interval([80.0, 82.0, 84.0])
    assert (mean, half) == (82.0, pytest.approx(4.3027 * 2 / 3**0.5, rel=1e-4))  # t of 2 degrees of freedom


def test_one_seed_has_no_interval():
    assert table.interval([80.0]) == (80.0, None)


def test_stopping_point_is_the_first_checkpoint_that_reaches_the_target_on_val():
    points = make_row("fast", times=[1, 2, 3, 4], val=[0.7, 0.8, 0.75, 0.9])["checkpoints"]
    assert table.stopping_point(points, 0.8) == 1
    assert table.stopping_point(points, 0.7) == 0
    assert table.stopping_point(points, 0.95) is None


def test_a_mean_over_seeds_is_not_missed_by_a_rounding_error():
    target = (0.1 + 0.2) / 2 * 2  # 0.30000000000000004
    points = make_row("fast", times=[1], val=[0.3])["checkpoints"]
    assert table.stopping_point(points, target) == 0
    points = make_row("fastai", times=[1], val=[0.8999999761581421])["checkpoints"]  # 0.9 as float32
    assert table.stopping_point(points, 0.9) == 0


def test_plain_mim_keeps_its_last_weights_and_the_others_their_first_best_on_val():
    val = [0.7, 0.9, 0.9, 0.8]
    assert make_row("plain", times=[1, 2, 3, 4], val=val)["chosen"] == 3
    assert make_row("timm", times=[1, 2, 3, 4], val=val)["chosen"] == 1


def test_plain_mim_needs_all_its_time_for_its_own_accuracy():
    row = make_row("plain", times=[10, 20], val=[0.9, 0.8])
    assert table.time_to_target(row, 0.8) == 20


def test_speed_up_is_plain_seconds_by_fast_seconds_to_the_mean_accuracy():
    rows = [
        make_row("plain", 0, times=[50, 100], val=[0.5, 0.8]),
        make_row("plain", 1, times=[60, 120], val=[0.5, 0.6]),
        make_row("fast", 0, times=[2, 9], val=[0.7, 0.9]),
        make_row("fast", 1, times=[1, 4], val=[0.6, 0.7]),
    ]
    assert table.target_accuracy(rows) == pytest.approx(0.7)
    assert table.speed_up(rows) == pytest.approx(110 / 3)
    assert table.last_line(rows) == "speed-up to the tutorial's accuracy: 36.7"


def test_a_seed_of_fast_that_never_gets_there_leaves_no_speed_up():
    rows = [
        make_row("plain", times=[100], val=[0.8]),
        make_row("fast", 0, times=[2], val=[0.9]),
        make_row("fast", 1, times=[2], val=[0.7]),
    ]
    assert table.last_line(rows) == "speed-up to the tutorial's accuracy: not reached"


def test_longer_fast_gets_the_epochs_that_fit_into_plain_time():
    row = make_row("fast", times=[10, 20, 30], val=[0.7, 0.7, 0.7])
    row["checkpoints"][0]["name"] = "init"
    row |= {"training_seconds": [2.0, 20.0], "seconds_of": {"pack_images": 1.0, "fit_head": 9.0, "train_model": 22.0}}
    assert table.epochs_within(100, row) == 8  # 10 to the start, 2 to evaluate it, 10 an epoch
    assert table.epochs_within(5, row) == 1


def test_what_fast_reaches_after_the_time_that_it_was_given_does_not_count():
    points = make_row("fast+", times=[10, 20, 30], val=[0.7, 0.8, 0.9])["checkpoints"]
    assert table.chosen_checkpoint("fast+", points) == 2
    assert table.chosen_checkpoint("fast+", points, within=29.9) == 1


def test_only_what_the_table_shows_is_read_on_test():
    fast = make_row("fast", times=[1, 2, 3], val=[0.7, 0.8, 0.9])
    assert table.checkpoints_to_read(fast, 0.75) == [1, 2]
    assert table.checkpoints_to_read(fast, None) == [2]
    assert table.checkpoints_to_read(limit_row(90), 0.75) == []


def test_table_has_times_accuracies_and_shares():
    rows = [
        make_row("plain", 0, times=[50, 100], val=[0.5, 0.8], test={"1": 0.80}),
        make_row("plain", 1, times=[50, 100], val=[0.5, 0.8], test={"1": 0.82}),
        make_row("fast", 0, times=[2, 9], val=[0.8, 0.9], test={"0": 0.81, "1": 0.9}),
        make_row("fast", 1, times=[3, 9], val=[0.8, 0.9], test={"0": 0.83, "1": 0.92}),
        make_row("timm", 0, times=[40, 80], val=[0.1, 0.2], test={"1": 0.2}) | {"rate_at_fast_size": 40.0},
        limit_row(100),
    ]
    text = table.table({"d": rows}, "a machine", "GPU: none here, not measured.")
    assert "GPU: none here, not measured." in text and "a machine" in text
    fast = cells(text, "fast")
    assert fast[1:4] == ["2.5", "82.0", "91.0 ± 12.7 (n=2)"]
    assert fast[6:8] == ["50.0 (160 px)", "0.50"]
    assert cells(text, "plain")[1:3] == ["100.0", "81.0"]
    assert cells(text, "plain")[7] == "1.00"  # of the limit at 224 pixels
    assert cells(text, "timm")[1:4] == ["not reached", "-", "20.0 (n=1)"]
    assert cells(text, "limit")[7] == "1.00"
    assert "fast 50.0 images/s: 1.25 of it" in text
    assert "fast has 0.80 of it (median of 3, from 0.80 to 1.10), and 0.69 where" in text


def test_table_says_how_many_seeds_reached_the_accuracy():
    rows = [
        make_row("plain", times=[100], val=[0.8]),
        make_row("timm", 0, times=[50], val=[0.8]),
        make_row("timm", 1, times=[50], val=[0.7]),
    ]
    assert cells(table.table({"d": rows}, "m", "g"), "timm")[1] == "50.0 (1 of 2 seeds)"


def test_a_table_without_turns_leaves_their_sentence_out():
    older = limit_row(9)
    del older["in_turns"]
    assert "In turns" not in table.table({"d": [make_row("fast", times=[1], val=[0.8]), older]}, "m", "g")


def test_shares_in_turns_are_of_the_turns_around_an_epoch_over_all_seeds():
    rows = [limit_row(9), make_row("fast", times=[1], val=[0.8]), limit_row(9) | {"seed": 1}]
    assert table.shares_in_turns(rows, "plain") == pytest.approx(2 * [55 / 50, 60 / 75, 80 / 100])
    assert table.shares_in_turns(rows, "absorbed") == pytest.approx(2 * [55 / 80, 60 / 80, 80 / 125])


def test_a_table_without_plain_mim_has_no_times_to_its_accuracy():
    assert cells(table.table({"d": [make_row("fast", times=[1], val=[0.8])]}, "m", "g"), "fast")[1] == "-"


def test_figure_is_the_same_file_for_the_same_rows(tmp_path):
    results = {"d": [make_row("plain", times=[50, 100], val=[0.5, 0.8]), limit_row(9)], "only-limit": [limit_row(9)]}
    for name in ("one.svg", "two.svg"):
        table.draw(results, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_no_rows_with_checkpoints_make_no_figure(tmp_path):
    table.draw({"d": [limit_row(9)]}, tmp_path / "figure.svg")
    assert not (tmp_path / "figure.svg").exists()


def test_every_row_has_a_name_and_every_line_a_colour():
    assert set(table.NAMES) == set(ROWS)
    assert len(set(table.COLOURS)) == len(ROWS) - 1  # the limit has no line


def test_a_subset_is_balanced_and_the_same_each_time():
    files = {"a": [f"{i}.png" for i in range(50)], "b": [f"{i}.png" for i in range(30)], "c": ["0.png"]}
    chosen = prepare.balanced_subset(files, 30)
    assert {name: len(names) for name, names in chosen.items()} == {"a": 10, "b": 10, "c": 1}
    assert chosen == prepare.balanced_subset({name: names[::-1] for name, names in files.items()}, 30)


def test_names_of_data_are_fit_for_files(tmp_path):
    archive = tmp_path / "my photos.tar.gz"
    archive.touch()
    assert prepare.data_name(str(archive)) == "my-photos"
    assert prepare.data_name(str(tmp_path)) == tmp_path.name
    assert prepare.data_name("elpv") == "elpv"


def test_rows_of_a_subset_or_a_smoke_run_are_not_taken_for_those_of_all_images():
    names = {prepare.data_name("elpv", limit, smoke) for limit in (None, 300) for smoke in (False, True)}
    assert names == {"elpv", "elpv-300", "smoke-elpv", "smoke-elpv-300"}


def asked(*words: str):
    return compare.build_parser().parse_args(words)


def planned(gpu: bool, *words: str) -> list[prepare.Bench]:
    args = asked(*words)
    return compare.benches(args.data, args.limit, args.smoke, args.output, args.device, args.models, gpu)


def test_the_cpu_is_measured_always_and_a_gpu_where_there_is_one_with_two_models():
    def names(gpu: bool, *words: str) -> list[str]:
        return [bench.name for bench in planned(gpu, *words)]

    of_gpu = ["sample-large-cuda", "sample-large-resnet50-cuda"]
    assert names(False) == ["sample"]
    assert names(True) == ["sample", *of_gpu]
    assert names(True, "--device", "cpu") == ["sample"]
    assert names(True, "--device", "cuda") == of_gpu
    assert names(False, "--data", "elpv", "--models", "resnet50") == ["elpv-resnet50"]
    assert names(True, "--device", "cuda", "--data", "/my/photos", "--models", "mobilenet_v2") == ["photos-cuda"]
    with pytest.raises(UserError, match="torch finds no GPU here"):
        names(False, "--device", "cuda")


def test_a_gpu_trains_on_thousands_of_images_at_224_pixels():
    scale = planned(True, "--device", "cuda", "--models", "resnet50")[0].scale
    assert scale.sample_images * 10 * 0.7 >= 4000 and scale.fast_size == 224 and not scale.limits


def test_two_models_have_weights_and_rows_of_their_own(tmp_path):
    mobilenet, resnet = planned(False, "--models", "mobilenet_v2", "resnet50", "--output", str(tmp_path))
    assert mobilenet.images == resnet.images
    for name in ("checkpoint", "reference"):
        assert getattr(mobilenet, name) != getattr(resnet, name)
    assert mobilenet.result_file("plain", 0) != resnet.result_file("plain", 0)


def test_memory_is_the_gpus_where_there_is_one():
    ran = processes.Ran(0.0, 1.0, int(3e6))
    of_cpu, of_gpu = planned(True, "--models", "resnet50")
    assert rows.peak_mb(of_cpu, [(ran, {"gpu_peak": 0})]) == 3
    assert rows.peak_mb(of_gpu, [(ran, {"gpu_peak": int(7e6)}), (ran, {"gpu_peak": 0})]) == 7


def test_the_table_says_what_was_measured_on_a_gpu():
    results = {"d-cuda": [limit_row(9)], "d": [limit_row(9)]}
    assert table.gpu_line(results).startswith("GPU: d-cuda.")
    assert "nothing was measured" in table.gpu_line({"d": []}) or "none here" in table.gpu_line({"d": []})


def test_a_failed_command_is_told_by_its_last_line(tmp_path):
    with pytest.raises(UserError, match="no such thing"):
        processes.execute([sys.executable, "-c", "import sys; sys.exit('error: no such thing')"], tmp_path / "log")


@pytest.mark.long
def test_memory_of_all_processes_of_a_row_is_counted(tmp_path):
    child = "x = bytearray(120_000_000); import time; time.sleep(1.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    assert processes.execute([sys.executable, "-c", parent], tmp_path / "log").peak > 100e6


def test_plain_mim_gets_no_memory_settings_of_mimflow(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    variables = processes.environment()
    assert variables["OMP_NUM_THREADS"] == "2" and not any(name.startswith("MALLOC_") for name in variables)


@pytest.mark.long
def test_what_a_command_started_ends_with_the_bench(tmp_path, monkeypatch):
    note = f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))"
    child = f"import pathlib, os, time; {note}; time.sleep(99)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"

    def interrupted(process: subprocess.Popen) -> None:
        monkeypatch.undo()
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        processes.execute([sys.executable, "-c", parent], tmp_path / "log")
    for _ in range(100):
        if not psutil.pid_exists(int((tmp_path / "pid").read_text())):
            return
        time.sleep(0.05)
    pytest.fail("the child of the command is still there")


@pytest.mark.long
def test_the_clock_leaves_imports_out(tmp_path):
    output = tmp_path / "t.json"
    module = tmp_path / "slow_module.py"
    module.write_text(
        "import argparse, time\ntime.sleep(1.5)\ndef build_parser():\n    parser = argparse.ArgumentParser()\n"
        "    parser.add_argument('--seconds', type=float)\n    return parser\n"
        "def main(args):\n    time.sleep(args.seconds)\n"
    )
    words = ["--output", str(output), "--module", "slow_module", "--", "--seconds", "0.2"]
    variables = os.environ | {"PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "bench.clock", *words], cwd=ROOT, env=variables, check=True)
    times = json.loads(output.read_text())
    assert 0.2 <= times["ended"] - times["begun"] < 1.5


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_smoke_run_ends_with_the_speed_up_and_keeps_what_is_finished(tmp_path):
    """plain and limit only: the peers' environment is downloaded, which no test may need."""
    words = ["--smoke", "--rows", "plain,limit", "--seeds", "0", "--output", str(tmp_path)]
    command = [sys.executable, "-m", "bench.compare", *words]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == "speed-up to the tutorial's accuracy: not reached"
    row = json.loads((tmp_path / "rows/smoke-sample/plain-0.json").read_text())
    assert 0 < row["checkpoints"][0]["seconds"] <= row["seconds"] and row["startup_seconds"] > 0
    assert 0 <= row["test"]["0"] <= 1
    turns = json.loads((tmp_path / "rows/smoke-sample/limit-0.json").read_text())["in_turns"]
    assert {name: len(rates) for name, rates in turns.items()} == {"plain": 2, "absorbed": 2, "fast": 1}
    assert all(rate > 0 for rates in turns.values() for rate in rates)
    assert (tmp_path / "figure.svg").exists()
    stamp = (tmp_path / "rows/smoke-sample/plain-0.json").stat().st_mtime_ns
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "rows/smoke-sample/plain-0.json").stat().st_mtime_ns == stamp


@pytest.mark.skipif(not prepare.peers_are_there(), reason="needs the bench's peers: `make bench` installs them")
@pytest.mark.parametrize("name", table.PEER_ROWS)
def test_peers_say_in_one_line_that_weights_do_not_fit(name, tmp_path):
    import torch

    torch.save({"convolutions": [], "norms": [], "eps": 1e-5}, tmp_path / "reference.pth")
    for split in ("train", "val"):
        for label in ("0000", "0001"):
            (tmp_path / split / label).mkdir(parents=True)
            from PIL import Image

            Image.new("RGB", (40, 40)).save(tmp_path / split / label / "0.png")
    job = {
        "task": "train", "architecture": "mobilenet_v2", "timm_name": "mobilenetv2_100", "device": "cpu",
        "folder": str(tmp_path), "classes": 2, "reference": str(tmp_path / "reference.pth"),
        "weights_folder": str(tmp_path), "size": 32, "batch_size": 2, "epochs": 1, "seed": 0,
        "threads": 1, "workers": 0, "output": str(tmp_path / "out.json"),
    }  # fmt: skip
    words = [str(prepare.PEERS_PYTHON), str(prepare.PEERS / f"run_{name}.py"), json.dumps(job)]
    with pytest.raises(UserError, match="convolutions"):
        processes.execute(words, tmp_path / "log")
