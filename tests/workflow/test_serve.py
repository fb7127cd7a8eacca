"""`make serve`, as a user has it: a real server, a real training beside it, and a real browser that looks on."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe import check_each_look, fetch_axe
from browser import CHROMIUM, Page, chromium
from dag import ROOT, Finished
from report_page_reader import READY, find
from terminal import CTRL_C, Terminal
from training import EXPERIMENT, Training

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")

CLOSED = {"en": "the page is closed; the runs go on", "zh": "页面已关闭；运行不受影响"}
TEXT = "document.body.innerText"
POINTS = "document.querySelectorAll('.view:not([hidden]) [data-plot=curves] [data-mark=dot] circle').length"


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Page) -> Page:
    browser.open("about:blank")  # the page of the test before asks on
    browser.requests.clear()
    browser.complaints.clear()
    return browser


@contextmanager
def serving(results: Path, *variables: str, language: str = "en", **environment: str) -> Iterator[tuple[Terminal, str]]:
    """Type `make serve`; yield its terminal and the address that it printed. Ctrl-C ends it in one line."""
    command = ["make", "--no-print-directory", "serve", f"ARGS=--results '{results}'", *variables]
    terminal = Terminal(command, ROOT, {"MAKEFLAGS": "", "MAKELEVEL": "", **environment})
    terminal.wait_for("?token=", 120)
    terminal.wait_for("\n", 10)
    address = re.search(r"http://127\.0\.0\.1:\d+/\?token=[\w-]+", terminal.output)
    assert address
    try:
        yield terminal, address[0]
    finally:
        if terminal.process.poll() is None:
            terminal.press(CTRL_C)
        status = terminal.end(60)
    assert status == -signal.SIGINT  # make itself; its command ended with 0
    assert terminal.lines()[-1] == CLOSED[language] and "Traceback" not in terminal.output, terminal.output


def text_has(page: Page, words: str, seconds: float = 120) -> None:
    page.wait_for(f"{TEXT}.includes({words!r})", seconds)


def check_only_asks(page: Page, address: str) -> None:
    """Nothing was complained of, and nothing asked for elsewhere."""
    assert [text for text in page.complaints if "favicon" not in text] == []
    base = address.partition("?")[0]
    assert [url for url in page.requests_that_leave() if not url.startswith(base)] == []


@pytest.mark.long
def test_the_page_follows_a_training_from_before_it_begins_until_another_one_fails(page: Page, tmp_path: Path) -> None:
    with serving(tmp_path / "results") as (_terminal, address):
        page.open(address)
        page.wait_for(READY)
        text_has(page, "There is no run yet")
        text_has(page, "Waiting for the first epoch")
        page.evaluate("window.isTheSame = true")

        run = Training(tmp_path / "results/small/quick/seed0", {**EXPERIMENT, "epochs": 40, "learning_rate": 1e-5})
        process = run.start()
        page.wait_for(f"{POINTS} >= 1", 300)
        assert find(page, "h1", "innerText") == "small"
        before = page.evaluate(POINTS)
        page.wait_for(f"{POINTS} > {before}", 120)
        text_has(page, "of 40 epochs")
        assert re.search(r"training \(\d+ of 40 epochs\)\t\d+:\d\d\t", page.evaluate(TEXT)), "time left"
        run.kill_group(process)

        broken = Training(tmp_path / "results/small/broken/seed0", {**EXPERIMENT, "learning_rate": 1e25})
        status, _ = broken.finish(log=tmp_path / "logs/small/broken/seed0/train_model.log")
        assert status != 0
        text_has(page, "small, broken, seed 0 failed: training stopped: the loss became nan")
        assert page.evaluate("window.isTheSame"), "all of this without a reload"
        check_only_asks(page, address)


@pytest.mark.long
def test_a_lost_connection_is_said_and_the_page_goes_on_by_itself(page: Page, tmp_path: Path) -> None:
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    with serving(tmp_path / "results") as (terminal, address):
        page.open(address)
        text_has(page, "There is no run yet")
        page.call("Network.emulateNetworkConditions", offline=True, **network)
        text_has(page, "No connection to the server since")
        assert find(page, "[role=alert]", "innerText").startswith("No connection")
        page.call("Network.emulateNetworkConditions", offline=False, **network)
        page.wait_for(f"!{TEXT}.includes('No connection')")
        terminal.press(CTRL_C)
        text_has(page, "No connection to the server since")
    port = address.partition("/?")[0].rpartition(":")[2]
    with serving(tmp_path / "results", f"PORT={port}"):
        text_has(page, "The server was started again and has another address")


def copy_run(finished: Finished, results: Path) -> Path:
    """Copy the finished run, but not its report, and return the folder of its data set."""
    dataset = results / "small"
    dataset.mkdir(parents=True)
    shutil.copytree(finished[0] / "results/small/quick", dataset / "quick")
    shutil.copy(finished[0] / "results/small/settings.yaml", dataset / "settings.yaml")
    return dataset


@pytest.mark.long
def test_a_hidden_page_asks_for_nothing_and_shows_at_once_what_ended_meanwhile(
    page: Page, finished: Finished, tmp_path: Path
) -> None:
    with serving(tmp_path / "results") as (_terminal, address):
        page.open(address)
        text_has(page, "There is no run yet")
        with page.another_tab():
            page.evaluate("new Promise(done => setTimeout(done, 2000))")  # what was asked before has its answer
            page.requests.clear()
            dataset = copy_run(finished, tmp_path / "results")
            page.evaluate("new Promise(done => setTimeout(done, 7000))")
            assert page.requests == [] and "There is no run yet" in page.evaluate(TEXT)
        text_has(page, "All runs are done, but there is no valid report of them")
        assert find(page, "h1", "innerText") == "small"
        with page.another_tab():
            shutil.copy(finished[0] / "results/small/report.html", dataset / "report.html")  # with the time of now
        page.wait_for(f"document.querySelector('[data-section=answer]') !== null && {READY}", 60)
        check_only_asks(page, address)


@pytest.mark.long
def test_a_second_tab_and_a_second_browser_follow_too(page: Page, finished: Finished, tmp_path: Path) -> None:
    with serving(tmp_path / "results") as (_terminal, address), chromium() as second:
        for reader in (page, second):
            reader.open(address)
            text_has(reader, "There is no run yet")
        copy_run(finished, tmp_path / "results")
        with page.another_tab(address, is_asked=True):
            text_has(page, "All runs are done")
            assert not page.evaluate("location.search"), "the token is not in the address"
        for reader in (page, second):
            text_has(reader, "All runs are done")
            check_only_asks(reader, address)


@pytest.mark.long
def test_when_all_runs_are_done_the_page_becomes_the_report(page: Page, finished: Finished, tmp_path: Path) -> None:
    dataset = copy_run(finished, tmp_path / "results")
    (tmp_path / "settings.yaml").write_text("dataset: {name: small}\nreport: {language: zh}\n")
    with serving(tmp_path / "results", f"CONFIG={tmp_path / 'settings.yaml'}", language="zh") as (_, address):
        page.open(address)
        text_has(page, "所有运行都已完成，但没有它们的有效报告")
        shutil.copy(finished[0] / "results/small/report.html", dataset / "report.html")  # with the time of now
        # In this order: while one page gives way to the other there is no element to ask whether it is ready.
        page.wait_for(f"document.querySelector('[data-section=answer]') !== null && {READY}", 60)
        page.wait_for("document.querySelector('[data-plot=leaderboard] svg') !== null")
        assert page.evaluate("location.pathname").endswith("/small/")
        page.open(address)
        page.wait_for("document.querySelector('[data-section=answer]') !== null", 60)
        check_only_asks(page, address)


@pytest.mark.long
def test_the_page_is_fit_for_a_keyboard_a_screen_reader_a_phone_and_the_dark(
    page: Page, finished: Finished, tmp_path: Path
) -> None:
    shutil.copytree(finished[0] / "results/small/quick", tmp_path / "results/small/quick")
    script = fetch_axe(tmp_path)
    with serving(tmp_path / "results") as (_terminal, address):
        page.open(address)
        page.wait_for(f"{POINTS} >= 1 && {READY}")
        check_each_look(page, script)
        with page.sized(390):
            assert page.wait_for("document.documentElement.scrollWidth <= 390")
        find(page, "[data-choice=curve]", "focus()")
        for value, points in (("train_loss", 1), ("val_accuracy", 1)):
            page.evaluate(f"document.activeElement.value = '{value}'")
            page.evaluate("document.activeElement.dispatchEvent(new Event('change', {bubbles: true}))")
            assert page.evaluate(POINTS) >= points


def test_who_has_not_the_token_is_refused_and_only_the_page_is_served(tmp_path: Path) -> None:
    (tmp_path / "results/demo/a/seed0").mkdir(parents=True)
    (tmp_path / "results/demo/a/seed0/config.py").write_text("secret = 1\n")
    with serving(tmp_path / "results", SSH_CONNECTION="10.0.0.1 5 10.0.0.2 22") as (terminal, address):
        terminal.wait_for("from your own computer, first: ssh -N -L ", 10)
        base, _, token = address.partition("?token=")

        def status(path: str, **headers: str) -> int:
            try:
                with urllib.request.urlopen(urllib.request.Request(base + path, headers=headers), timeout=20) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                assert error.read() == b""
                return error.code

        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(address, timeout=20) as answer:
            folder, text = answer.url.removeprefix(base), answer.read().decode()
        assert token not in answer.url and "<h1" in text and token not in text
        cookie = f"mimflow={token}"
        assert [status("", Cookie=cookie), status(folder), status("?token=x"), status("results/")] == [403] * 4
        there = ("", "now.json", "curves.json", "demo/", "demo/now.json", "demo/curves.json")
        assert [status(folder + path, Cookie=cookie) for path in there] == [200] * len(there)
        nowhere = ["demo", "report.html", "demo/report.html", "demo/a/seed0/config.py", "../demo/a/seed0/config.py"]
        nowhere += ["%2e%2e/demo/", "../now.json", "demo/../now.json", "other/", "other/now.json", "demo//now.json"]
        assert [path for path in nowhere if status(folder + path, Cookie=cookie) != 404] == []
        for name in ("try.html", "audit.html", "label_suspects.html"):
            (tmp_path / "results/demo" / name).write_text("a page that a report links to")
            assert status(f"{folder}demo/{name}", Cookie=cookie) == 200
        assert status(folder, Cookie=cookie, Host="evil.example") == 403


@pytest.mark.parametrize(("variable", "words"), [("PORT=80", "'80' is no port"), ("PORT=x", "'x' is no port"),
                                                 ("CONFIG=no.yaml", "no.yaml")])  # fmt: skip
def test_what_cannot_be_served_is_refused_in_one_line(variable: str, words: str) -> None:
    terminal = Terminal(["make", "--no-print-directory", "serve", variable], ROOT, {"MAKEFLAGS": "", "MAKELEVEL": ""})
    assert terminal.end(60) != 0
    assert words in terminal.lines()[-1] and "Traceback" not in terminal.output


def test_it_loads_neither_torch_nor_pandas() -> None:
    code = "import scripts.serve, sys; print(sorted({'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)))"
    terminal = Terminal([sys.executable, "-c", code], ROOT)
    assert terminal.end(60) == 0 and terminal.lines() == ["[]"]
