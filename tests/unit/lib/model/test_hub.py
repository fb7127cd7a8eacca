"""A hub of models, played by a server on this machine: each of its answers leads to the file, or to one line."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_server import HttpServer, refused_url

from scripts.lib.base.problems import UserError
from scripts.lib.model.hub import HubFile, KeptBack, fetch, hub_address, hub_token

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = HubFile("timm/resnet18.a1_in1k", "main", ("model.safetensors", "pytorch_model.bin"))
RESOLVE = "timm/resnet18.a1_in1k/resolve/main/"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer() as running:
        yield running


@pytest.fixture
def storage() -> Iterator[HttpServer]:
    with HttpServer() as running:
        yield running


def base(server: HttpServer) -> str:
    return server.url("").rstrip("/")


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_hub_leads_to_its_storage_and_says_the_hash(
    server: HttpServer, storage: HttpServer, tmp_path: Path
) -> None:
    storage.serve("blob", CONTENT)
    headers = {"X-Linked-ETag": f'"{SHA256}"'}
    server.serve(RESOLVE + "model.safetensors", b"", redirect=storage.url("blob"), headers=headers)
    result = fetch(FILE, tmp_path / "a", base(server) + "/", token="hf_secret")
    assert result.sha256 == SHA256 and (tmp_path / "a").read_bytes() == CONTENT
    assert [request.authorization for request in storage.requests] == [None]


@pytest.mark.parametrize("revision", ["main", "v1.0", "a" * 40])
def test_a_repository_without_safetensors_has_the_file_by_its_next_name(
    server: HttpServer, tmp_path: Path, revision: str
) -> None:
    server.serve(f"timm/x/resolve/{revision}/pytorch_model.bin", CONTENT)
    fetch(HubFile("timm/x", revision, FILE.names), tmp_path / "a", base(server))
    assert [request.status for request in server.requests] == [404, 200]


@pytest.mark.parametrize(
    ("token", "code", "message"),
    [
        (None, "GatedRepo", r"resnet18.a1_in1k is gated.*accept the terms at {page} .*set HF_TOKEN to.*path: \.\.\."),
        ("another", "GatedRepo", r"answered 403.*accept the terms at {page} .*HF_TOKEN is set, but has no access"),
        (None, "", r"is gated.*answered 401"),
        (None, "RepoNotFound", "to nobody without a token, or has none of this name"),
    ],
)
def test_what_is_kept_back_is_one_line(
    server: HttpServer, tmp_path: Path, token: str | None, code: str, message: str
) -> None:
    server.serve(RESOLVE + "model.safetensors", CONTENT, token="right", headers={"X-Error-Code": code} if code else {})
    page = base(server) + "/timm/resnet18.a1_in1k"
    with pytest.raises(KeptBack, match=message.format(page=page)) as caught:
        fetch(FILE, tmp_path / "a", base(server), token=token)
    assert "\n" not in str(caught.value) and "another" not in str(caught.value)
    assert len(server.requests) == 1 and leftovers(tmp_path) == []


def test_a_token_opens_it(server: HttpServer, tmp_path: Path) -> None:
    server.serve(RESOLVE + "model.safetensors", CONTENT, token="right")
    fetch(FILE, tmp_path / "a", base(server), token="right")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_mirror_comes_first_and_gets_no_token(server: HttpServer, storage: HttpServer, tmp_path: Path) -> None:
    storage.serve("mirror/" + RESOLVE + "model.safetensors", CONTENT)
    fetch(FILE, tmp_path / "a", base(server), mirrors=[storage.url("mirror/")], token="hf_secret")
    assert [request.authorization for request in storage.requests] == [None] and server.requests == []


@pytest.mark.parametrize("fault", ["down", "404", "403", "page", "wrong hash", "cut short", "loop", "nowhere"])
def test_a_mirror_that_fails_is_followed_by_the_hub(
    server: HttpServer, storage: HttpServer, tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = RESOLVE + "model.safetensors"
    server.serve(name, CONTENT)
    behaviour = {
        "403": {"status": 403, "failures": 9},
        "page": {"content": b"<!DOCTYPE html>please log in"},
        "wrong hash": {"content": CONTENT[::-1]},
        "cut short": {"break_after": 1000},
        "loop": {"redirect": "/" + name},
        "nowhere": {"redirect": refused_url()},
    }.get(fault)
    if behaviour:
        storage.serve(name, **{"content": CONTENT, **behaviour})  # type: ignore[arg-type]
    mirror = refused_url("") if fault == "down" else storage.url("")

    def check(path: Path) -> None:
        if path.read_bytes().startswith(b"<"):
            raise UserError("the server sent a web page")

    fetch(FILE, tmp_path / "a", base(server), mirrors=[mirror], sha256=SHA256, check=check)
    assert (tmp_path / "a").read_bytes() == CONTENT and leftovers(tmp_path) == ["a"]
    assert "WARNING" in caplog.text and all("\n" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("variable", "of_site", "expected"),
    [
        ("", None, "https://huggingface.co"),
        ("", "https://hub.example/", "https://hub.example"),
        ("http://mirror.example/hf/", "https://hub.example", "http://mirror.example/hf"),
    ],
)
def test_the_variable_comes_before_the_site(variable: str, of_site: str | None, expected: str) -> None:
    assert hub_address(of_site, {"HF_ENDPOINT": variable}) == expected


@pytest.mark.parametrize("text", ["hub.example", "ftp://a", "https://user:word@a", "https://a?token=b"])
def test_what_is_no_address_is_not_shown(text: str) -> None:
    with pytest.raises(UserError, match="HF_ENDPOINT is no address") as caught:
        hub_address(None, {"HF_ENDPOINT": text})
    assert text not in str(caught.value)


@pytest.mark.parametrize("text", ["two words", "line\nbreak", "schlüssel"])
def test_what_is_no_token_is_not_shown(text: str) -> None:
    with pytest.raises(UserError, match="HF_TOKEN holds no token") as caught:
        hub_token("https://a", {"HF_TOKEN": text})
    assert text not in str(caught.value)


def test_a_token_is_not_sent_unencrypted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert hub_token("http://mirror.example", {"HF_TOKEN": "hf_secret"}) is None
    assert "not encrypted" in caplog.text and "hf_secret" not in caplog.text
    assert hub_token("https://mirror.example", {"HF_TOKEN": "hf_secret\n"}) == "hf_secret"
