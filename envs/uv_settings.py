"""What the user's pip settings say, told to uv; where uv cannot do the same, why. Standard library only."""

from __future__ import annotations

import ast
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

#: Options of pip that change nothing in what is installed here, or that `child_environment` keeps from pip too.
NEUTRAL = frozenset({
    "break-system-packages", "cache-dir", "compile", "config-file", "debug", "disable-pip-version-check",
    "exists-action", "keep-logs", "log", "log-file", "no-color", "no-compile", "no-input", "no-python-version-warning",
    "no-warn-conflicts", "no-warn-script-location", "prefer-binary", "progress-bar", "quiet", "require-hashes",
    "require-venv", "require-virtualenv", "root-user-action", "upgrade", "upgrade-strategy", "user", "verbose",
})  # fmt: skip
#: Options that uv is told in its own words, by `translate`.
TRANSLATED = frozenset({
    "cert", "client-cert", "constraint", "default-timeout", "extra-index-url", "find-links", "index-url",
    "no-cache-dir", "no-index", "proxy", "retries", "timeout", "trusted-host",
})  # fmt: skip
#: Words by which pip takes a flag as not set.
OFF = {"", "0", "false", "no", "n", "off", "f"}
#: Variables of uv that a user's shell may set: speed and places, not what is installed.
UV_PASSED = re.compile(r"UV_(CONCURRENT_\w+|HTTP_TIMEOUT|HTTP_RETRIES)")
#: Where pip looks for trusted certificates when its settings name none.
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class CannotFollowError(Exception):
    """The user's pip settings ask for what uv does not do; the message says which."""


@dataclass
class Translation:
    """The user's pip settings in uv's words."""

    #: Options of every `uv pip install`.
    options: list[str] = field(default_factory=list)
    #: Options of what is installed without hashes.
    constraints: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    removed_variables: tuple[str, ...] = ()
    uses_cache: bool = True


def parse_listing(listing: str) -> dict[str, str]:
    """Return option -> value of `pip install` from the output of `pip config list`, as pip itself ranks its sources."""
    sections: dict[str, dict[str, str]] = {}
    for section, name, value in re.findall(r"^([^.\s]+)\.([^=\s]+)=(.*)$", listing, flags=re.MULTILINE):
        sections.setdefault(section, {})[name.lower().replace("_", "-")] = ast.literal_eval(value)
    return sections.get("global", {}) | sections.get("install", {}) | sections.get(":env:", {})


def translate(settings: Mapping[str, str], environment: Mapping[str, str]) -> Translation:
    """Return *settings* (of `parse_listing`) in uv's words.

    Raises
    ------
    CannotFollowError : they ask for what uv does not do.
    """
    settings = {name: value for name, value in settings.items() if value.strip() and name not in NEUTRAL}
    keyring = settings.pop("keyring-provider", "auto")  # auto: pip asks no keyring when it may not ask the user either
    if keyring not in ("auto", "disabled"):
        raise CannotFollowError(f"keyring-provider = {keyring}")
    if others := sorted(settings.keys() - TRANSLATED):
        raise CannotFollowError(", ".join(others))
    result = Translation(uses_cache=settings.get("no-cache-dir", "0").lower() in OFF)
    _translate_sources(settings, result)
    _translate_connection(settings, environment, result)
    result.constraints = [
        word for path in settings.get("constraint", "").split() for word in ("--constraints", os.path.expanduser(path))
    ]
    return result


def _translate_sources(settings: Mapping[str, str], result: Translation) -> None:
    """Add where packages come from."""
    trusted = settings.get("trusted-host", "").split()
    index, more = settings.get("index-url", "").strip(), settings.get("extra-index-url", "").split()
    links = [os.path.expanduser(link) for link in settings.get("find-links", "").split()]
    if settings.get("no-index", "0").lower() not in OFF:
        result.options.append("--no-index")
        index, more = "", []
    for url in [index, *more, *links]:
        if url.startswith("http://") and not _is_trusted(url, trusted):
            raise CannotFollowError(f"an index without https whose host is not in trusted-host ({_host(url)})")
    result.options += ["--default-index", index] if index else []
    if more:
        # Of wheels of one version, pip takes the best of all indexes, uv that of the first: opencv came out different.
        raise CannotFollowError("extra-index-url")
    for link in links:
        path = link.removeprefix("file://")
        if os.path.isfile(path):
            raise CannotFollowError(f"find-links names a page ({link})")
        if ("://" in link and path == link) or os.path.isdir(path):  # pip passes over a folder that is not there
            result.options += ["--find-links", link]
    for host in trusted:
        result.options += ["--allow-insecure-host", host]


def _host(url: str) -> str:
    """Return host and port of a URL, without a password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _is_trusted(url: str, trusted: list[str]) -> bool:
    """Tell whether pip takes files from *url*, which is plain http."""
    name = urlsplit(url).hostname or ""
    return name in {"localhost", "::1", *trusted} or name.startswith("127.") or _host(url) in trusted


def _translate_connection(settings: Mapping[str, str], environment: Mapping[str, str], result: Translation) -> None:
    """Add proxy, certificates and patience."""
    if proxy := settings.get("proxy", ""):
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        result.variables |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy)
        result.variables |= dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), proxy)
        result.removed_variables = ("NO_PROXY", "no_proxy")  # pip then reads no variable
    bundle = settings.get("cert") or next((environment[name] for name in BUNDLES if environment.get(name)), "")
    if os.path.isdir(bundle):
        result.removed_variables += ("SSL_CERT_FILE",)
        result.variables["SSL_CERT_DIR"] = bundle
    elif bundle:
        result.removed_variables += ("SSL_CERT_DIR",)
        result.variables["SSL_CERT_FILE"] = os.path.expanduser(bundle)
    elif "SSL_CERT_FILE" not in environment and ssl.get_default_verify_paths().cafile:
        result.options.append("--system-certs")
    if certificate := settings.get("client-cert"):
        result.variables["SSL_CLIENT_CERT"] = os.path.expanduser(certificate)
    timeout = settings.get("timeout") or settings.get("default-timeout")
    result.variables |= {"UV_HTTP_TIMEOUT": str(max(1, round(float(timeout))))} if timeout else {}
    if retries := settings.get("retries"):
        result.variables["UV_HTTP_RETRIES"] = retries


def cache_folder(environment: Mapping[str, str], uses_cache: bool) -> str | None:
    """Return the folder of uv's cache; None: none. *environment* is that of pip (`child_environment`)."""
    flags = (environment.get(name, "").lower() for name in ("PIP_NO_CACHE_DIR", "UV_NO_CACHE"))
    if not uses_cache or any(flag not in OFF for flag in flags):
        return None
    if named := environment.get("UV_CACHE_DIR"):
        return named
    if named := environment.get("PIP_CACHE_DIR"):
        return os.path.join(named, "uv")
    return os.path.join(environment.get("XDG_CACHE_HOME") or os.path.join(environment["HOME"], ".cache"), "uv")


def uv_environment(environment: Mapping[str, str], translation: Translation) -> dict[str, str]:
    """Return the environment of uv: pip's, without what would change what uv installs, with the user's pip settings."""
    kept = {
        name: value
        for name, value in environment.items()
        if (not name.startswith("UV_") or UV_PASSED.fullmatch(name)) and name not in translation.removed_variables
    }
    return kept | translation.variables


# --- what uv says when it fails ---------------------------------------------------------------------------------------

#: What pip would meet as well: the words of uv, what it is, and what to do.
CERTAIN = (
    ("hash mismatch", "the index has another file than the lock", "use another index (PIP_INDEX_URL=<a mirror>)"),
    (
        r"no space left|os error 28|quota exceeded|os error 122",
        "the disk is full",
        "free some, or let caches lie elsewhere (PIP_CACHE_DIR=/large/disk; PIP_NO_CACHE_DIR=1: none)",
    ),
    (
        "dns error|connection refused|network is unreachable|tcp connect error|no route to host"
        "|name or service not known|temporary failure in name resolution",
        "no connection to the package index",
        "see that the network, PIP_INDEX_URL and the proxy variables are right (no internet here: `make wheelhouse` on "
        "a machine that has it)",
    ),
)


def certain_problem(output: str) -> tuple[str, str] | None:
    """Return what is wrong and what to do, where pip would fail as uv did; else None."""
    for words, what, remedy in CERTAIN:
        if re.search(words, output, flags=re.IGNORECASE):
            return f"{what} ({reason_in(output)})", remedy
    return None


def pip_problem(output: str) -> tuple[str, str] | None:
    """Return what is wrong and what to do, where pip could not reach the index and then says that it has no package."""
    reasons = re.findall(r"after connection broken by '(.*)': /", output)
    if not reasons:
        return None
    _, what, remedy = CERTAIN[-1]
    # 'NewConnectionError('<pip._vendor...>: Failed to establish a new connection: [Errno 111] Connection refused')'
    return f"{what} ({reasons[-1].rpartition(': ')[2].strip(chr(39) + chr(34) + ')')})", remedy


def reason_in(output: str) -> str:
    """Return the first and the last line that tell why uv failed, in one, without passwords."""
    lines = [re.sub(r"^(error|Caused by|×|├─▶|╰─▶)[:\s]*", "", line.strip()) for line in output.splitlines()]
    lines = [line for line in lines if line]
    reason = ": ".join(dict.fromkeys([*lines[:1], *lines[-1:]])) or "it said nothing"
    return re.sub(r"(://)[^/@\s]*@", r"\1", reason)
