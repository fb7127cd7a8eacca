"""`python -m bench.pages`: what it measures of a page, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import CHROMIUM
from report_folder import write_maps, write_page, write_results
from tiny_run import make_run
from try_page_reader import finish
from try_page_reader import write as write_try_page

from bench import pages
from scripts.lib.base.problems import UserError


def run(*words: str) -> None:
    pages.main(pages.build_parser().parse_args(words))


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_each_page_has_a_line_and_the_report_a_time_until_its_plots_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_folder,) = write_results(tmp_path, ["a", "b"], {"x": 1.0}, per_class=8)
    write_maps(tmp_path, run_folder)
    write_page(tmp_path, [run_folder])
    run(str(tmp_path))
    lines = {line.split()[-1].rpartition("/")[2]: line.split() for line in capsys.readouterr().out.splitlines()[1:-2]}
    assert {"report.html", "gradcam.html", "embedding.html"} <= lines.keys()
    size, *times = map(float, lines["report.html"][:4])
    assert size == pytest.approx((tmp_path / "report.html").stat().st_size / 1e6, abs=0.01)
    assert times[0] > 0 and 0 < times[1] <= times[2]
    assert lines["gradcam.html"][3] == "-"


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_the_page_that_classifies_the_audit_and_the_one_of_make_serve_are_among_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = finish(make_run(tmp_path))
    write_try_page(run_folder)
    others = ("audit.html", "label_suspects.html", "auto/search/search.html")  # without plots that are drawn late
    for name in others:
        (tmp_path / "demo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "demo" / name).write_text("<!DOCTYPE html><p>a page</p>")
    run(str(tmp_path / "demo"))
    table = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    lines = {"live" if "make" in words else words[-1].rpartition("demo/")[2]: words for words in table}
    assert lines.keys() == {"try.html", "live", *others}
    assert float(lines["try.html"][3]) >= float(lines["try.html"][2]) > 0 and lines["audit.html"][3] == "-"
    assert 0 < float(lines["live"][3]) < 20_000 and 0.01 < float(lines["live"][0]) < 2


def test_a_folder_without_pages_and_one_that_would_be_written_over_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no page"):
        run(str(tmp_path))
    with pytest.raises(UserError, match="there is something already"):
        run(str(tmp_path), "--simulate")
