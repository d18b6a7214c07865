"""The scans of `make test` find what they are for: shown with what they must find."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import jwt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agent_server.testing.serving import serving
from tests.conftest import ROOT

AWS_KEY = "AKIA" + "Q4VXZ7TPLM2RWK5N"
PRIVATE_KEY = "-----BEGIN RSA " + "PRIVATE KEY-----"
VULNERABLE = {
    "jinja2": ("3.1.2", "3.1.3"),  # the one that is asked for to see whether anything is known
    "httpx": (None, "9.9.9"),
}


def ci(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / ".ci" / script, *arguments],
        env={**os.environ, "BIN": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        (f'key = "{AWS_KEY}"', "AWS Access Key"),
        (PRIVATE_KEY, "Private Key"),
        (f"sent {jwt.encode({'sub': 'ada'}, 'x' * 32)}", "JSON Web Token"),
        ('{"pass' + 'word": "Zk3vBq8mN2xLr7"}', "Secret Keyword"),
    ],
)
def test_a_secret_that_was_left_in_a_file_is_found(planted: str, kind: str, tmp_path: Path) -> None:
    copy = tmp_path / "settings.py"
    copy.write_text((ROOT / "agent_server" / "settings" / "__init__.py").read_text())
    assert ci("secrets", str(copy)).returncode == 0
    copy.write_text(f"{copy.read_text()}\n# {planted}\n")
    found = ci("secrets", str(copy))
    assert found.returncode == 1
    assert kind in found.stdout
    assert AWS_KEY not in found.stdout


@pytest.fixture
async def knowing(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The address of a service that knows of vulnerabilities in the packages that the test names."""

    async def query(asked: Request) -> JSONResponse:
        body = await asked.json()
        name = body["package"]["name"]
        version, fixed = VULNERABLE.get(name, (None, ""))
        if name not in request.param or version not in (None, body["version"]):
            return JSONResponse({})
        events = [{"introduced": "0"}, {"fixed": fixed}]
        affected = {"package": {"name": name, "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
        return JSONResponse({"vulns": [{"id": f"FAKE-{name}", "summary": "It lets in.", "affected": [affected]}]})

    async with serving(Starlette(routes=[Route("/v1/query", query, methods=["POST"])])) as base:
        yield f"{base}/v1/query"


@pytest.mark.parametrize(
    ("knowing", "code", "said"),
    [
        (["jinja2", "httpx"], 1, "FAKE-httpx"),
        (["jinja2"], 0, "No known vulnerabilities found"),
        ([], 0, "pip-audit: not checked: no vulnerability service answers"),
    ],
    indirect=["knowing"],
)
async def test_a_locked_dependency_with_a_known_vulnerability_is_found(knowing: str, code: int, said: str) -> None:
    asked = await _asked(knowing)
    assert (asked.returncode, said in asked.stdout + asked.stderr) == (code, True), asked


@pytest.mark.parametrize("knowing", [[]], indirect=True)
async def test_where_it_is_required_a_service_that_knows_nothing_is_a_failure(knowing: str) -> None:
    assert (await _asked(knowing, "--required")).returncode == 1


async def _asked(service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await anyio.to_thread.run_sync(lambda: ci("vulnerabilities", *arguments, "-s", "osv", "--osv-url", service))
