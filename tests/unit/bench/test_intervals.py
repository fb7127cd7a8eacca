"""What the intervals cover: a few designs of the simulation, with a fixed seed."""

from __future__ import annotations

import pytest

from bench import intervals
from bench.intervals import Design, simulate


@pytest.mark.long
@pytest.mark.parametrize(
    "design",
    [
        Design(1, 1, 0.1, 300, (0.9,)),
        Design(2, 3, 0.1, 300, (0.9,)),
        Design(3, 1, 0.1, 300, (0.5,)),
        Design(5, 5, 0.1, 300, (0.9,)),
        Design(10, 1, 0.1, 100, (0.8,)),
        Design(1, 5, 0.1, 300, (0.9, 0.85)),
        Design(3, 1, 0.1, 300, (0.9, 0.85)),
        Design(5, 1, 0.1, 100, (0.7, 0.6)),
    ],
)
def test_95_percent_of_the_intervals_hold_the_truth(design: Design) -> None:
    coverage = simulate(design, 1500)
    assert intervals.BAND[0] <= coverage.covered <= intervals.BAND[1], coverage
    enough = design.folds * (design.seeds - 1) >= 2
    assert coverage.of == (intervals.RECIPE if enough else intervals.MODELS)


def test_of_few_wrong_images_the_interval_covers_too_much_rather_than_too_little() -> None:
    assert simulate(Design(1, 1, 0.0, 30, (0.999,)), 300).covered > 0.95


def test_the_table_has_a_row_a_design_and_a_cell_an_accuracy() -> None:
    of_designs = [(design, simulate(design, 3)) for design in intervals.designs([(1, 1, 0.1)], [(0.9,), (0.99,)])]
    lines = intervals.render(of_designs)
    assert len(lines) == 2 + len(intervals.IMAGES) and lines[0].endswith("| 90 % | 99 % |")
    assert len({line.count("|") for line in lines}) == 1
