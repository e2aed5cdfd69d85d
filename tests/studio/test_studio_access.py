"""Who may use a studio: its token, and no page of another site."""

from __future__ import annotations

import json
import logging
import urllib.request

import pytest

pytest.importorskip("uvicorn")

from studio_server import TOKEN, running

from lmworks.serve.json_log import LOGGER
from lmworks.studio.access import FRAME_POLICY, HEADERS, POLICY, cookie_name

API = "/studio/api/models"
PATHS = ["/", "/studio", "/studio/page/studio.js", API, "/v1/models", "/metrics", "/nowhere"]


@pytest.fixture(name="studio", scope="module")
def _studio(tmp_path_factory):
    with running([tmp_path_factory.mktemp("home")]) as studio:
        yield studio


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cookie", [None, "", TOKEN[:-1], f"{TOKEN}x", "\xe9"])
def test_without_the_token_nothing_is_told(studio, path, cookie):
    status, body, _ = studio.ask("GET", path, cookie=cookie)
    assert status == 401
    assert "token" in (body if isinstance(body, str) else body["error"]["message"])
    assert TOKEN not in json.dumps(body)


def test_whether_it_runs_is_told_to_all(studio):
    assert studio.ask("GET", "/health", cookie=None)[0] == 200


def test_the_token_in_the_address_becomes_a_cookie(studio):
    status, page, headers = studio.ask("GET", f"/studio?token={TOKEN}", cookie=None)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "lmworks studio" in page
    cookie = headers["set-cookie"]
    assert cookie.startswith(f"{cookie_name(studio.port)}={TOKEN};")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.replace(" ", "").split(";"))
    status, _, headers = studio.ask("GET", API)
    assert status == 200
    assert "set-cookie" not in headers


def test_a_wrong_token_or_one_at_another_path_sets_no_cookie(studio):
    for path in ("/studio?token=wrong", f"/studio?token={TOKEN}&token=wrong", f"{API}?token={TOKEN}"):
        status, _, headers = studio.ask("GET", path, cookie=None)
        assert status == 401
        assert "set-cookie" not in headers


def test_programs_send_the_token_as_a_key(studio):
    request = urllib.request.Request(f"{studio.url}/v1/models", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request) as response:
        assert json.load(response) == {"object": "list", "data": []}
    assert studio.ask("GET", API, cookie=None, Authorization="Bearer wrong")[0] == 401


@pytest.mark.parametrize("host", ["example.org", "example.org:8888", "127.0.0.1.example.org", "10.0.0.1", ""])
def test_another_name_of_this_machine_is_refused(studio, host):
    """DNS rebinding: a page of example.org whose name was made to point here would send the browser's request."""
    for path in ("/studio", f"/studio?token={TOKEN}", API):
        status, body, headers = studio.ask("GET", path, Host=host)
        assert (status, body["error"]["code"]) == (403, "wrong_host")
        assert "set-cookie" not in headers


def test_pages_of_other_sites_are_refused(studio):
    here = f"127.0.0.1:{studio.port}"
    others = ["https://example.org", "http://127.0.0.1", "http://127.0.0.1:1", "null"]
    path, body = "/studio/api/models/close", {"name": "x"}
    for origin in [*others, f"http://localhost:{studio.port}"]:
        for method in ("GET", "POST"):
            status, answer, headers = studio.ask(method, path, body, Host=here, Origin=origin)
            assert (status, answer["error"]["code"]) == (403, "wrong_origin")
            assert "access-control-allow-origin" not in headers
    status, answer, _ = studio.ask("POST", path, body, Host=here, Origin=f"http://{here}")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_what_the_browser_says_of_the_asking_page_counts(studio):
    """Pages on other ports of this machine are of the same site, so that the cookie comes with their requests."""
    for site in ("cross-site", "same-site"):
        assert studio.ask("GET", API, Sec_Fetch_Site=site)[0] == 403
        assert studio.ask("GET", "/studio", Sec_Fetch_Site=site, Sec_Fetch_Dest="iframe")[0] == 403
        assert studio.ask("GET", "/studio", Sec_Fetch_Site=site, Sec_Fetch_Dest="document")[0] == 200  # a link to it
        assert studio.ask("POST", "/studio", {}, Sec_Fetch_Site=site, Sec_Fetch_Dest="document")[0] == 403
    for site in ("none", "same-origin"):
        assert studio.ask("GET", API, Sec_Fetch_Site=site)[0] == 200


def test_every_answer_forbids_what_the_page_does_not_need(studio):
    for cookie in (None, TOKEN):
        for path in PATHS:
            _, _, headers = studio.ask("GET", path, cookie=cookie)
            assert {name: headers.get(name.lower()) for name in HEADERS} == HEADERS
    for policy in (POLICY, FRAME_POLICY):
        assert policy.startswith(("default-src 'none'", "sandbox allow-scripts; default-src 'none'"))
        assert "unsafe-eval" not in policy
        assert "http" not in policy
    assert "unsafe-inline" not in POLICY
    assert "allow-same-origin" not in FRAME_POLICY
    assert "connect-src" not in FRAME_POLICY


def test_the_token_is_not_logged(studio, caplog, monkeypatch):
    for name, value in (("propagate", True), ("disabled", False)):  # a server of an earlier test may have set them
        monkeypatch.setattr(logging.getLogger(LOGGER), name, value)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger(LOGGER).setLevel(logging.INFO)
        assert studio.ask("GET", f"/studio?token={TOKEN}")[0] == 200
        assert studio.ask("GET", f"{API}?token={TOKEN}")[0] == 200
    records = [record for record in caplog.records if record.name == LOGGER]  # uvicorn's own is off outside of pytest
    assert len(records) >= 2
    assert TOKEN not in "".join(f"{record.getMessage()} {vars(record)}" for record in records)
