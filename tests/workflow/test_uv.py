"""uv fills .venv from the same locks as pip, as pip's settings say; pip does it where uv cannot."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from http_server import refused_url
from set_up import ENVS, load

uv_settings = load(ENVS / "install.py").uv_settings

HOSTILE = {"UV_INDEX_URL": "http://127.0.0.1:9/", "UV_OVERRIDE": "x.txt", "UV_NO_BINARY": "1", "UV_TARGET": "/x"}


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"index-url": "https://a/s"}, ["--default-index", "https://a/s"]),
        ({"no-index": "1", "index-url": "https://a/s"}, ["--no-index"]),
        ({"no-index": "false"}, []),
        ({"trusted-host": "a:81"}, ["--allow-insecure-host", "a:81"]),
        (
            {"index-url": "http://a:81/s", "trusted-host": "a"},
            ["--default-index", "http://a:81/s", "--allow-insecure-host", "a"],
        ),
        ({"index-url": "http://127.0.0.1:8/s"}, ["--default-index", "http://127.0.0.1:8/s"]),
        ({"find-links": "/not/there https://a/wheels"}, ["--find-links", "https://a/wheels"]),
        ({"log": "x", "quiet": "1", "user": "1", "disable-pip-version-check": "1"}, []),
    ],
)
def test_where_pip_takes_packages_from_uv_is_told(settings, options):
    told = uv_settings.translate(settings, {"SSL_CERT_FILE": "/x"})
    assert told.options == options


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"extra-index-url": "https://a/s file:///b"}, "extra-index-url"),
        ({"keyring-provider": "import"}, "keyring-provider = import"),
        ({"no-binary": "numpy", "pre": "1"}, "no-binary, pre"),
        ({"index-url": "http://user:secret@mirror/s"}, r"without https .*\(mirror\)$"),
        ({"find-links": __file__}, "names a page"),
        ({"a-future-option": "1"}, "a-future-option"),
    ],
)
def test_what_uv_cannot_follow_is_named(settings, words):
    with pytest.raises(uv_settings.CannotFollowError, match=words):
        uv_settings.translate(settings, {})


def test_proxy_certificates_and_patience_reach_uv_and_variables_of_uv_do_not():
    settings = {
        "proxy": "me:pw@proxy:3128",
        "cert": "/ca.pem",
        "client-cert": "/me.pem",
        "timeout": "90",
        "retries": "2",
    }
    environment = {"NO_PROXY": "a", "SSL_CERT_DIR": "/d", "UV_HTTP_RETRIES": "9", "HOME": "/h", **HOSTILE}
    seen = uv_settings.uv_environment(environment, uv_settings.translate(settings, environment))
    assert seen["HTTPS_PROXY"] == seen["http_proxy"] == "http://me:pw@proxy:3128"
    assert (seen["SSL_CERT_FILE"], seen["SSL_CLIENT_CERT"]) == ("/ca.pem", "/me.pem")
    assert (seen["UV_HTTP_TIMEOUT"], seen["UV_HTTP_RETRIES"]) == ("90", "2")
    assert not {"NO_PROXY", "SSL_CERT_DIR", *HOSTILE} & seen.keys()
    assert uv_settings.translate({}, {"REQUESTS_CA_BUNDLE": "/b.pem"}).variables == {"SSL_CERT_FILE": "/b.pem"}


def test_settings_rank_as_pip_ranks_them():
    listing = (
        ":env:.index-url='c'\nglobal.index-url='a'\ninstall.index-url='b'\ninstall.no_index='true'\nlist.pre='1'\n"
    )
    assert uv_settings.parse_listing(listing) == {"index-url": "c", "no-index": "true"}


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, "/h/.cache/uv"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/uv"),
        ({"PIP_CACHE_DIR": "/p", "XDG_CACHE_HOME": "/x"}, "/p/uv"),
        ({"UV_CACHE_DIR": "/u", "PIP_CACHE_DIR": "/p"}, "/u"),
        ({"PIP_NO_CACHE_DIR": "1", "UV_CACHE_DIR": "/u"}, None),
    ],
)
def test_the_cache_lies_where_pip_may_keep_its_own(environment, folder):
    assert uv_settings.cache_folder({"HOME": "/h", **environment}, True) == folder
    assert uv_settings.cache_folder({"HOME": "/h", **environment}, False) is None


@pytest.mark.parametrize(
    ("output", "certain"),
    [
        ("error: x\n  Caused by: Hash mismatch for `six==1`\n", "another file"),
        ("error: Failed to install\n  Caused by: No space left on device (os error 28)", "disk is full"),
        ("error: Failed to fetch\n  Caused by: dns error\n  Caused by: failed to lookup", "no connection"),
        ("error: invalid peer certificate: UnknownIssuer", ""),
        ("error: HTTP status 403 for https://me:secret@mirror/s", ""),
    ],
)
def test_a_failure_of_uv_that_pip_would_share_ends_the_set_up_in_one_line(output, certain):
    problem = uv_settings.certain_problem(output)
    assert certain in problem[0] if certain else problem is None
    assert "\n" not in uv_settings.reason_in(output) and "secret" not in uv_settings.reason_in(output)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_index_that_pip_cannot_reach_is_not_one_without_the_package(monkeypatch, project, scheme, capfd):
    url = scheme + refused_url("simple").removeprefix("http")
    for name, value in {"PIP_INDEX_URL": url, "PIP_RETRIES": "1", "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    install = load(project / "envs" / "install.py")
    lock = project / "package.lock"
    lock.write_text("six==1.17.0 --hash=sha256:" + "0" * 64)
    with pytest.raises(install.SetupError, match="no connection to the package index") as error:
        install.pip(["download", "--no-cache-dir", "--no-deps", "-r", str(lock)], "installing", sys.executable)
    assert "PIP_INDEX_URL" in str(error.value) and "No matching" not in str(error.value) + capfd.readouterr().err


# --- the real uv ------------------------------------------------------------------------------------------------------


#: Notes of the installer about itself; uv_cache.json only where the index is a folder.
OF_INSTALLER = ("INSTALLER", "RECORD", "uv_cache.json")


def installed(venv: Path) -> dict[str, str]:
    """Return file -> hash as the RECORDs of an environment say, less what names or depends on the installer."""
    rows = {}
    for record in venv.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        for path, digest, _size in csv.reader(record.read_text().splitlines()):
            if "__pycache__" not in path and not path.endswith(OF_INSTALLER) and not path.startswith(".."):
                rows[path] = digest
    return rows


@pytest.mark.long
def test_uv_installs_what_pip_does_in_copies_and_checks_every_hash(project, tmp_path, monkeypatch):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)  # pip then reads no file
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    install = load(project / "envs" / "install.py")
    lock = tmp_path / "build.lock"
    lock.write_bytes((ENVS / "build.lock").read_bytes())
    contents = {}
    for name in ("pip", "uv"):
        venv = tmp_path / name
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        arguments = ["--require-hashes", "--no-deps", "-r", str(lock)]
        if name == "uv":
            uv = install.find_uv("cpu", venv, [])
            uv.install(arguments, "installing")
        else:
            subprocess.run([sys.executable, "-m", "pip", f"--python={venv}", "install", "-q", *arguments], check=True)
        contents[name] = installed(venv)
        (file,) = venv.glob("lib/python*/site-packages/pip/__init__.py")
        assert os.stat(file).st_nlink == 1  # an edit of it stays in this environment
    assert len(contents["uv"]) > 500 and contents["uv"] == contents["pip"]

    lock.write_text("six==1.17.0 --hash=sha256:" + "0" * 64)
    with pytest.raises((install.SetupError, install.UvError)) as error:
        uv.install(["--require-hashes", "--no-deps", "-r", str(lock)], "installing")
    assert "\n" not in str(error.value)
    assert not list(uv.venv.glob("lib/python*/site-packages/six*"))
