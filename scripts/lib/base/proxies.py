"""The variables that lead downloads through a proxy, and that say whom to trust: what is wrong with them.

Standard library only: `make doctor` works without a .venv.
"""

from __future__ import annotations

import importlib.util
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from scripts.lib.base.problems import Problem

#: Proxies that requests reaches with one package more.
SOCKS = frozenset({"socks4", "socks4a", "socks5", "socks5h"})
#: Where requests finds the certificates that it trusts; the first that is set.
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def mask_credentials(url: str) -> str:
    """Hide the user name and password of a URL: what is printed is sent to others."""
    return re.sub(r"//[^/]*@|^[^/@]+:[^/@]*@", lambda match: ("//" if match[0].startswith("//") else "") + "***@", url)


def proxy_problem(proxy: str) -> Problem | None:
    """Judge the address of a proxy; without a scheme it is one by http."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        is_address = bool(parts.hostname) and parts.port != 0 and not re.search(r"[\s\x00-\x20\x7f]", proxy)
    except ValueError:
        is_address = False
    remedy = "write it into http_proxy, https_proxy or all_proxy as http://HOST:PORT, or unset them"
    if not is_address:
        return Problem(f"the proxy variables name no address: {mask_credentials(proxy)!r}", remedy)
    if parts.scheme in ("http", "https") or (parts.scheme in SOCKS and importlib.util.find_spec("socks")):
        return None
    return Problem(
        f"the proxy variables name a proxy by {parts.scheme}, not by http: {mask_credentials(proxy)}", remedy
    )


def certificates_problem(variables: Mapping[str, str]) -> Problem | None:
    """Judge the certificates by which https is trusted, where the user names them."""
    name = next((name for name in CERTIFICATES if variables.get(name)), None)
    if name is None:
        return None
    path = Path(variables[name])
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(**{"capath" if path.is_dir() else "cafile": os.fspath(path)})
    except OSError as error:  # an SSLError is one
        return Problem(f"{name} ({path}) has no certificates: {error.strerror or error}", "correct it, or unset it")
    return None
