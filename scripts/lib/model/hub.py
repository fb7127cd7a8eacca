"""Files of a hub of models: where they are, who may read them, and what to do when they cannot be had."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from scripts.lib.base.download import Download, NotFetched, download, shown
from scripts.lib.base.problems import UserError

logger = logging.getLogger(__name__)
#: Where the hub is, unless site.yaml (`hub`) or this variable, which other programs read too, names a mirror of it.
OFFICIAL, ENDPOINT = "https://huggingface.co", "HF_ENDPOINT"
#: The variable with a person's token, for files whose terms must be accepted.
TOKEN = "HF_TOKEN"
#: Statuses of a file that is kept from this reader, and of one that is not there.
KEPT_BACK, NOT_THERE = frozenset({401, 403}), frozenset({404, 410})


class KeptBack(UserError):
    """The hub has the file, and gives it to those only who may read it."""


@dataclass(frozen=True)
class HubFile:
    """One file of a repository.

    Attributes
    ----------
    repository : ``owner/name``.
    revision : branch, tag or commit.
    names : what the file may be called, the best first.
    """

    repository: str
    revision: str
    names: tuple[str, ...]

    def urls(self, name: str, bases: Sequence[str]) -> list[str]:
        """Return the addresses of *name* on the hub and its mirrors."""
        return [f"{base.rstrip('/')}/{self.repository}/resolve/{self.revision}/{name}" for base in bases]


def hub_address(of_site: str | None, environment: Mapping[str, str]) -> str:
    """Return the base address of the hub: by the environment, else the site's, else the official one.

    Raises
    ------
    UserError : the variable is no address.
    """
    address = environment.get(ENDPOINT, "").strip()
    if address and not re.fullmatch(r"https?://[^\s/?#@]+[^\s?#@]*", address):
        raise UserError(f"{ENDPOINT} is no address of a hub", f"set it to one, as {OFFICIAL}, or unset it")
    return (address or of_site or OFFICIAL).rstrip("/")


def hub_token(hub: str, environment: Mapping[str, str]) -> str | None:
    """Return the user's token, where it can be sent safely: encrypted, or to this machine itself.

    Raises
    ------
    UserError : what the variable holds is no token; it is not shown.
    """
    token = environment.get(TOKEN, "").strip()
    if not token:
        return None
    if not re.fullmatch(r"[!-~]{1,500}", token):
        raise UserError(f"{TOKEN} holds no token", "set it to one line, as the hub shows it, or unset it")
    parts = urlsplit(hub)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        logger.warning("%s is not sent to %s: the connection is not encrypted", TOKEN, shown(hub))
        return None
    return token


def fetch(
    file: HubFile,
    destination: Path,
    hub: str,
    *,
    mirrors: Sequence[str] = (),
    token: str | None = None,
    sha256: str | None = None,
    check: Callable[[Path], None] | None = None,
) -> Download:
    """Fetch a file of the hub, by the first of its names that is there.

    Parameters
    ----------
    hub : base address, tried after those of the *mirrors*; only it gets the *token*.
    sha256, check : as :func:`scripts.lib.base.download.download` takes them.

    Raises
    ------
    UserError : it cannot be had; the line says whose terms are to be accepted, where that is the reason.
    """
    bases = [*mirrors, hub]
    for name in file.names:
        urls = file.urls(name, bases)
        tokens = {urls[-1]: token} if token else {}
        try:
            return download(urls, destination, sha256=sha256, check=check, tokens=tokens)
        except NotFetched as error:
            statuses = [error.refusals[url].status for url in urls]
            if set(statuses) & KEPT_BACK:
                raise _kept_back(file, hub, error, token) from error
            # Only a server that has no file of this name may have one of the next.
            bases = [base for base, status in zip(bases, statuses, strict=True) if status in NOT_THERE]
            if not bases or name == file.names[-1]:
                raise
            logger.info("there is no %s; trying the next name", name)
    raise AssertionError("a file has at least one name")


def _kept_back(file: HubFile, hub: str, error: NotFetched, token: str | None) -> KeptBack:
    """Say that a file is kept from this reader, and what opens it."""
    refusal = next(refusal for refusal in error.refusals.values() if refusal.status in KEPT_BACK)
    page = f"{shown(hub)}/{file.repository}"
    if refusal.code in ("RepoNotFound", "RevisionNotFound"):
        what = f"the hub shows {file.repository} to nobody without a token, or has none of this name ({refusal})"
    else:
        what = f"{file.repository} is gated: its terms must be accepted first ({refusal})"
    had = f"{TOKEN} is set, but has no access" if token else f"set {TOKEN} to a token of yours that may read it"
    remedy = f"accept the terms at {page} and run this again ({had}), or give the file by checkpoint: {{path: ...}}"
    return KeptBack(what, remedy)
