"""Pretrained weights without a network: said within seconds, and taken from the cache where they lie there."""

import socket
import threading
import time

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants

from estimators import load_model
from estimators.models import _hub


@pytest.fixture
def silent(monkeypatch):
    """A server that takes connections and never answers, in the place of the hub."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(_hub, "ANSWERS_WITHIN", 0.5)
        monkeypatch.setattr(_hub.reachable, "__defaults__", (0.5,))
        yield address


def test_a_hub_that_does_not_answer_is_said_without_retries(silent, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(time, "sleep", lambda seconds: asked.append(seconds))  # what a retry does
    with pytest.raises(ValueError, match=r"must be False where timm's weights for 'test_vit' cannot be read"):
        load_model("test_vit", pretrained=True, cache_dir=str(tmp_path))
    assert not asked and constants.HF_HUB_OFFLINE is False


def _lookup_fails(*_, **__):
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def _lookup_hangs(*_, **__):
    threading.Event().wait(30)
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def _nobody_answers(self, *_):
    threading.Event().wait(self.gettimeout() or 30)
    raise TimeoutError("timed out")


CUTS = {
    "names are not found": ("getaddrinfo", _lookup_fails),
    "names are looked up for ever": ("getaddrinfo", _lookup_hangs),
    "nobody answers": ("connect", _nobody_answers),
}


@pytest.mark.parametrize("cut", CUTS)
def test_without_a_network_it_is_said_within_five_seconds(cut, monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    name, replaced = CUTS[cut]
    if name == "connect":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("192.0.2.1", 443))])
        monkeypatch.setattr(socket.socket, name, replaced)
    else:
        monkeypatch.setattr(socket, name, replaced)
    load_model("test_vit")  # whatever is imported on the way
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"must be False where timm's weights for 'test_vit' cannot be read"):
        load_model("test_vit", pretrained=True, cache_dir=str(tmp_path))
    assert time.perf_counter() - start < 5


def test_weights_in_the_cache_are_taken_without_a_network(silent, tmp_path):
    config = timm.get_pretrained_cfg("test_vit")
    made = timm.create_model("test_vit")
    folder = tmp_path / f"models--{config.hf_hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    safetensors.torch.save_file(made.state_dict(), folder / "snapshots" / "abc" / "model.safetensors")
    model = load_model("test_vit", pretrained=True, cache_dir=str(tmp_path))
    assert torch.equal(model.head.weight, made.head.weight)


def test_whoever_answers_is_reachable(silent):
    assert not _hub.reachable(silent, 0.2)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer():
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        assert _hub.reachable(f"http://127.0.0.1:{server.getsockname()[1]}", 5.0)
    assert not _hub.reachable("http://127.0.0.1:1", 2.0)
    assert not _hub.reachable("http://no.such.host.invalid", 2.0)
