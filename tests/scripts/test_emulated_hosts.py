import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
can_emulate = pytest.mark.skipif(
    not (sys.platform == "linux" and os.geteuid() == 0 and shutil.which("ip") and Path("/dev/net/tun").exists()),
    reason="needs Linux, root, iproute2 and /dev/net/tun",
)

SERVER = """\
import socket
with socket.create_server(("10.77.0.1", 5000)) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    while data := connection.recv(65536):
        if data.endswith(b"?"):
            connection.sendall(b"!")
"""
CLIENT = """\
import socket, time
connection = socket.create_connection(("10.77.0.1", 5000))
began = time.monotonic()
connection.sendall(b"?")
connection.recv(1)
print(time.monotonic() - began)
began = time.monotonic()
connection.sendall(bytes(300_000) + b"?")
connection.recv(1)
print(time.monotonic() - began)
"""


@can_emulate
def test_packets_take_their_time_between_emulated_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    emulated: Any = importlib.import_module("parts.emulated_hosts")
    try:
        emulated._ip("netns", "add", "cnnlite-test")
    except subprocess.CalledProcessError:
        pytest.skip("namespaces are not allowed here")
    emulated._ip("netns", "delete", "cnnlite-test")
    link = emulated.Link(bandwidth=2e5, delay=0.05)
    with emulated.hosts(2, link) as (first, second):
        server = subprocess.Popen([*first, sys.executable, "-c", SERVER], stdout=subprocess.PIPE)
        assert server.stdout is not None
        server.stdout.readline()
        client = subprocess.run(
            [*second, sys.executable, "-c", CLIENT], capture_output=True, text=True, check=True, timeout=60
        )
        server.wait(timeout=30)
        server.stdout.close()
    small, large = map(float, client.stdout.split())
    assert 2 * link.delay <= small < 2 * link.delay + 1
    assert 1.5 + 2 * link.delay <= large < 1.6 + 2 * link.delay + 2
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert f"cnnlite-{os.getpid()}" not in listed.stdout
