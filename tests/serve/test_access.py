"""Keys and addresses: what lets a client in, and which server is refused."""

from __future__ import annotations

import pytest

from lmworks.base.errors import InputError
from lmworks.serve.access import ApiKeys, check_address, check_origins, host_name, read_keys

FIRST, SECOND = "first-key-of-a-client", "second-key-of-a-client"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("LMWORKS_API_KEY", raising=False)


def test_keys_come_from_a_file_and_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "keys.txt"
    file.write_text(f"# of Ann\n{FIRST}\n\n")
    file.chmod(0o600)
    monkeypatch.setenv("LMWORKS_API_KEY", SECOND)
    keys, notes = read_keys(str(file))
    assert notes == []
    assert keys
    for key, admitted in ((FIRST, True), (SECOND, True), ("# of Ann", False), ("", False), (FIRST[:-1], False)):
        assert (keys.client_of(f"Bearer {key}") is not None) is admitted
    assert keys.client_of(f"bearer {FIRST}") == keys.client_of(f"Bearer {FIRST}")
    assert keys.client_of(f"Bearer {FIRST}") != keys.client_of(f"Bearer {SECOND}")
    assert keys.client_of(FIRST) is None
    assert keys.client_of(f"Basic {FIRST}") is None


def test_a_file_that_others_can_read_is_noted(tmp_path):
    file = tmp_path / "keys.txt"
    file.write_text(FIRST)
    file.chmod(0o644)
    (note,) = read_keys(str(file))[1]
    assert f"chmod 600 {file}" in note


@pytest.mark.parametrize(
    ("content", "fault"), [("# none\n", "has no key"), ("short\n", "could be guessed"), (None, "cannot be read")]
)
def test_files_without_a_usable_key_are_refused(tmp_path, content, fault):
    file = tmp_path / "keys.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=fault) as refused:
        read_keys(str(file))
    assert "secrets.token_urlsafe" in refused.value.hint


def test_without_keys_everyone_is_let_in():
    keys, _ = read_keys(None)
    assert not keys
    assert keys.client_of("") == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_s_own_addresses_need_no_key(host):
    check_address(host, ApiKeys())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_addresses_need_a_key(host):
    with pytest.raises(InputError, match="without an API key"):
        check_address(host, ApiKeys())
    check_address(host, ApiKeys([FIRST]))


@pytest.mark.parametrize(
    ("header", "name"),
    [("localhost:8080", "localhost"), ("127.0.0.1", "127.0.0.1"), ("[::1]:8080", "::1"), ("[::1]", "::1"), ("", "")],
)
def test_a_host_header_is_divided(header, name):
    assert host_name(header) == name


def test_every_web_page_is_answered_with_keys_alone():
    check_origins(["https://example.org"], ApiKeys())
    check_origins(["*"], ApiKeys([FIRST]))
    with pytest.raises(InputError, match="every web page"):
        check_origins(["*"], ApiKeys())
