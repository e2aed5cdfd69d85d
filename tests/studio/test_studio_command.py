"""lmworks studio in a process of its own: the address that it prints, refusals, the end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from lmworks.commands.main import main

pytest.importorskip("uvicorn")


def test_the_address_that_is_printed_opens_the_page(tmp_path):
    code = "import sys; from lmworks.commands.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "studio", "--folder", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r"studio at (http://127\.0\.0\.1:\d+)/studio\?token=([\w-]{32})", line)
            assert match, line + process.stderr.read()
            key = {"Authorization": f"Bearer {match[2]}"}
            with urllib.request.urlopen(urllib.request.Request(f"{match[1]}/studio/api/runs", headers=key)) as response:
                assert json.load(response) == {"runs": [], "groups": [], "faults": []}
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"{match[1]}/studio")
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate()
            assert process.returncode == 0
            assert match[2] not in log
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--host", "0.0.0.0"], "for this machine alone"),
        (["--host", "example.org"], "for this machine alone"),
        (["--folder", "nowhere-at-all"], "no such folder"),
        (["--api-key-file", "keys.txt"], "api_key_file"),
        (["no-such-model-here"], "no-such-model-here"),
    ],
)
def test_what_cannot_be_is_refused(words, fault, capsys):
    assert main(["studio", *words, "--port=0"]) == 2
    assert fault in capsys.readouterr().err
