"""The real server, watched from outside: where it listens, whom it asks, what it refuses."""

from __future__ import annotations

import base64
import http.client
import os
import socket
import urllib.request
from pathlib import Path

import pytest

from app.__main__ import streamlit_arguments
from tests.browser.driving import running_app

# Loaded by Python at start: notes every address the process looks up, connects or sends to.
WATCH = """
import os, sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        place = args[0] if event.startswith("socket.get") else args[-1] if event == "socket.sendto" else args[1]
        with open(os.environ["LOSS_ATLAS_TEST_WATCH"], "a") as file:
            file.write(f"{event} {place!r}\\n")
sys.addaudithook(watch)
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    probe.connect(("127.0.0.1", 9))
"""
OWN = ("127.0.0.1", "localhost", "::1", "0.0.0.0")


def websocket(address: str, **headers: str) -> int:
    """Ask for a WebSocket as a browser does; return the status."""
    host = address.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=20)
    key = base64.b64encode(os.urandom(16)).decode()
    asked = {"Host": host, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    connection.request("GET", "/_stcore/stream", headers={**asked, "Sec-WebSocket-Key": key, **headers})
    status = connection.getresponse().status
    connection.close()
    return status


def status_of(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def listening(port: int) -> set[str]:
    """Return the local addresses on which anything on this machine listens at a port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else ():
            local, state = line.split()[1], line.split()[3]
            if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                raw = bytes.fromhex(local.partition(":")[0])
                found.add(socket.inet_ntoa(raw[::-1]) if len(raw) == 4 else "an IPv6 address")
    return found


def test_the_server_keeps_to_this_machine_and_refuses_other_sites(tmp_path, monkeypatch):
    watched = tmp_path / "asked.txt"
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(WATCH)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "hook"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("LOSS_ATLAS_TEST_WATCH", str(watched))
    with running_app(tmp_path / "workspace") as address:
        port = int(address.rpartition(":")[2])
        assert listening(port) == {"127.0.0.1"}
        assert websocket(address, Origin=address) == 101
        assert websocket(address, Origin="http://evil.example") == 403
        assert websocket(address, Origin="http://evil.example", Host="evil.example") == 403  # a name led here
        assert websocket(address, Origin="http://evil.example:80", Host=f"evil.example:{port}") == 403
        upload = urllib.request.Request(f"{address}/_stcore/upload_file/session/file", b"x", method="PUT")
        assert status_of(upload) == 403  # without the token of a page of ours
    asked = watched.read_text().splitlines()
    assert "socket.connect ('127.0.0.1', 9)" in asked  # the watch works
    assert [line for line in asked if not any(own in line for own in OWN)] == []


def test_the_locks_are_on_whatever_a_project_says():
    given = streamlit_arguments(8501, headless=True)
    for lock in (
        "--server.address=127.0.0.1", "--server.enableXsrfProtection=true", "--server.enableCORS=true",
        "--server.allowedHosts=127.0.0.1", "--browser.gatherUsageStats=false",
    ):  # fmt: skip
        assert lock in given


@pytest.mark.parametrize("name", ["get_external_ip", "get_internal_ip"])
def test_the_functions_that_are_replaced_are_those_that_streamlit_asks(name):
    from streamlit import net_util
    from streamlit.web.server import server_util

    assert server_util.net_util is net_util and callable(getattr(net_util, name))
