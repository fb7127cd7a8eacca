"""Show the report of runs while they train, as a page for a browser on this machine or behind an ssh tunnel to it.

The page is the one of report.html: what is done, how far the rest is, the curves as they grow, what failed and why;
and the report itself when all runs are done.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import socket
from pathlib import Path

from scripts.lib.base import strict_yaml
from scripts.lib.base.console import run_cli, say
from scripts.lib.base.language import LANGUAGES, language_of
from scripts.lib.base.private_server import ADDRESS, Answer, PrivateServer, open_server
from scripts.lib.base.problems import UserError
from scripts.lib.pages import live_page, templates
from scripts.lib.workflow.live_data import LiveData
from scripts.lib.workflow.progress import State

PORT = 8765
#: Pages of a data set that are served as they lie in its folder: the report, and those that it links to.
PAGES = ("report.html", "try.html", "audit.html", "label_suspects.html")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.serve", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, metavar="FILE", help="show the runs of this configuration's data set")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where runs are (results)")
    parser.add_argument("--port", type=parse_port, default=PORT, metavar="N", help=f"or the next free one ({PORT})")
    parser.add_argument("--language", choices=LANGUAGES, help="that the page opens in (report.language)")
    return parser


def parse_port(text: str) -> int:
    """Read a port that needs no rights; raise ArgumentTypeError for anything else."""
    if text.isdecimal() and 1024 <= int(text) < 1 << 16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1024 to 65535, for example {PORT}")


def read_config(path: Path) -> tuple[str, str | None]:
    """Return dataset.name and report.language of a configuration; the rest is for the workflow to check.

    Raises
    ------
    UserError : it names no data set.
    """
    content = strict_yaml.read(path)
    dataset = content.get("dataset") if isinstance(content, dict) else None
    name = dataset.get("name") if isinstance(dataset, dict) else None
    if not isinstance(name, str):
        raise UserError(f"{path}: dataset.name is missing", "give the file that the runs were started with")
    return name, language_of(content)


class Pages:
    """What the server answers: the page, its data, and the report."""

    def __init__(self, data: LiveData, language: str | None) -> None:
        self.data = data
        self.language = language

    def answer(self, path: str) -> Answer | None:
        """Return what stands at *path*; None where nothing does.

        A data set has a folder: the page, or the report when all runs are done, ``report.html``, and what the page asks
        for. Above them is the page of the data set that :meth:`LiveData.choose` returns.

        Raises
        ------
        UserError : a file of the results cannot be read.
        """
        folder, is_inside, name = path.rpartition("/")
        dataset = folder if is_inside else self.data.choose()
        if is_inside and dataset not in self.data.known():
            return None
        if name == "":
            # The report stands in the folder of its data set only, where its links to pages beside it lead to them.
            report = self.data.final_report(dataset) if is_inside else None
            return self._page(dataset) if report is None else _as_it_lies(report)
        if name in PAGES:
            page = self.data.page(dataset, name)
            return None if page is None else _as_it_lies(page)
        questions = {"now.json": self.data.now, "curves.json": self.data.curves}
        if name not in questions:
            return None
        text = json.dumps(questions[name](dataset), ensure_ascii=False, allow_nan=False)
        return Answer(text.encode(), "application/json")

    def _page(self, dataset: str) -> Answer:
        names = [run["experiment"] for run in self.data.now(dataset)["runs"]]
        page, policy = live_page.render(dataset, self.language, [str(state) for state in State], names)
        return Answer(page.encode(), "text/html", str(policy))


def _as_it_lies(path: Path) -> Answer:
    return Answer(path, "text/html", templates.policy_of(path))


def tunnel(server: PrivateServer) -> str:
    """Return the command that makes the page reachable from a user's own computer."""
    port = server.server_port
    return f"ssh -N -L {port}:{ADDRESS}:{port} {getpass.getuser()}@{socket.gethostname()}"


def main(args: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    dataset, language = read_config(args.config) if args.config else (None, None)
    server = open_server(args.port, Pages(LiveData(args.results, dataset), args.language or language).answer)
    with server:
        say(f"the page of the runs, until Ctrl-C: {server.url}")
        if "SSH_CONNECTION" in os.environ:
            say(f"from your own computer, first: {tunnel(server)}")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("the page is closed; the runs go on")


if __name__ == "__main__":
    run_cli(build_parser, main)
