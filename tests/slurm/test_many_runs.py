"""Many runs on a cluster where nodes, jobs, programs and the disk fail: none is lost, none trains twice at once."""

from __future__ import annotations

import pytest
from cluster import Cluster

from bench import cluster as many
from bench.stand_in import Beat


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("profile", "runs"), [("slurm", 12), pytest.param("n30", 40, marks=pytest.mark.on_demand)])
def test_nothing_is_lost_where_all_fails_at_times(cluster: Cluster, profile: str, runs: int) -> None:
    words = ["--nodes", str(len(cluster.virtual)), "--runs", str(runs), "--seconds", "20", "--fault-seconds", "10"]
    words += ["--profile", profile]
    with many.small_file_system(512) as folder:
        result, verdict, faults = many.measure(folder, cluster, many.build_parser().parse_args(words))
    assert faults and sum(faults.done.values()) > 3, faults
    assert (verdict.ended, verdict.lost, verdict.together) == (runs, [], []), many.tables(result, verdict, faults)
    assert result.left == 0


def test_a_run_that_is_lost_or_trained_twice_is_seen() -> None:
    beats = [
        Beat("a", "1", "7", 0.0, "begin"), Beat("a", "2", "8", 4.0, "begin"), Beat("a", "1", "7", 5.0, "end"),
        Beat("a", "2", "8", 9.0, "end"), Beat("b", "3", "9", 0.0, "begin"), Beat("b", "3", "9", 4.0, "beat"),
        Beat("b", "4", "10", 5.0, "begin"), Beat("b", "4", "10", 10.0, "end"),
    ]  # fmt: skip
    beats = sorted(beats, key=lambda beat: beat.when)
    result = many.Result(beats, 1, 20.0, 1.0, 1.0, [], 0, ["a", "b", "c"])
    verdict = many.judge(result, gpus=2, seconds={"a": 5.0, "b": 8.0, "c": 1.0})
    assert (verdict.ended, verdict.lost, verdict.together, verdict.again) == (2, ["c"], ["a"], ["a"])
    assert (verdict.attempts, verdict.seconds, verdict.best) == (4, 10.0, 8.0)
    assert verdict.used == pytest.approx(13 / 20)
