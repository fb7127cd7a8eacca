"""Validate an RO-Crate with roc-validator, from PyPI, in an environment of its own: python .ci/validate_crate.py FOLDER

The validator asks the web for the JSON-LD context of RO-Crate 1.1. So that PyPI is all this needs, it is answered with
the context that the wheel of `rocrate` carries: a later one, which has the terms of 1.1 and more.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import urllib.response
from email.message import Message
from pathlib import Path
from typing import Any

PACKAGES = ["roc-validator==0.13.0", "rocrate==0.16.0"]
CONTEXT = "https://w3id.org/ro/crate/1.1/context"


def install_and_run(crate: Path) -> int:
    """Make the environment and run this file in it; return the exit status."""
    with tempfile.TemporaryDirectory(prefix="validate-crate-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        subprocess.run([*pip, *PACKAGES], check=True)
        # A home of its own too: the validator keeps a cache there.
        return subprocess.run([python, __file__, "--inside", str(crate)], env={**os.environ, "HOME": folder}).returncode


class Answer(urllib.request.BaseHandler):
    """Answers for the context; refuses every other address."""

    def __init__(self, context: bytes) -> None:
        self.context = context

    def https_open(self, request: urllib.request.Request) -> Any:
        if request.full_url != CONTEXT:
            raise OSError(f"asked for {request.full_url}")
        headers = Message()
        headers["Content-Type"] = "application/ld+json"
        answer = urllib.response.addinfourl(io.BytesIO(self.context), headers, CONTEXT, 200)
        answer.msg = "OK"  # type: ignore[attr-defined] # urllib's own handlers set it
        return answer


def validate(crate: Path) -> int:
    """Print what is wrong with the crate; return 1 if the specification requires any of it otherwise."""
    import requests
    import rocrate
    import urllib3
    from rocrate_validator import models, services

    class Adapter(requests.adapters.BaseAdapter):
        """The same for `requests`: the validator uses both."""

        def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:
            if request.url != CONTEXT:
                raise requests.ConnectionError(f"asked for {request.url}")
            response = requests.Response()
            response.status_code, response.request, response.url = 200, request, CONTEXT
            response.headers["Content-Type"] = "application/ld+json"
            response.raw = urllib3.HTTPResponse(io.BytesIO(context), preload_content=False, request_url=CONTEXT)
            return response

        def close(self) -> None:
            pass

    context = (Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_bytes()
    opener = urllib.request.build_opener(Answer(context))
    opener.handle_open["https"] = [handler for handler in opener.handle_open["https"] if isinstance(handler, Answer)]
    urllib.request.install_opener(opener)
    # In this process of its own; the validator makes its session anew for each validation, so none can be prepared.
    requests.Session.get_adapter = lambda self, url: Adapter()  # type: ignore[method-assign]
    settings = services.ValidationSettings(
        rocrate_uri=str(crate),
        profile_identifier="ro-crate-1.1",
        requirement_severity=models.Severity.RECOMMENDED,
    )
    result = services.validate(settings)
    for issue in result.get_issues():
        print(f"{issue.severity.name} {issue.check.identifier}: {issue.message}")
    checks = len(result.executed_checks)
    entities = len(json.loads((crate / "ro-crate-metadata.json").read_text(encoding="utf-8"))["@graph"])
    failed = any(issue.severity == models.Severity.REQUIRED for issue in result.get_issues())
    print(f"{crate}: {entities} entities, {checks} checks, {'NOT valid' if failed else 'valid'}")
    return int(failed or not checks)


if __name__ == "__main__":
    inside = sys.argv[1:2] == ["--inside"]
    if len(sys.argv) != 2 + inside:
        sys.exit(__doc__)
    sys.exit(validate(Path(sys.argv[2])) if inside else install_and_run(Path(sys.argv[1])))
