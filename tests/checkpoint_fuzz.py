"""Checkpoints broken in many ways, from a fixed seed, and what becomes of each."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import struct
import sys
import time
import zipfile
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors

from estimators import CheckpointError, describe_checkpoint, load_model, read_checkpoint

KINDS = ("zip", "legacy", "safetensors", "index")
LIMIT_S = 20  # for one file; each takes milliseconds
_executed: list[str] = []
_watching = False
_FORBIDDEN = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.remove")


def _audit(event: str, arguments: object) -> None:
    if _watching and event in _FORBIDDEN:
        _executed.append(event)


sys.addaudithook(_audit)


class Trap:
    """What a hostile pickle holds: calling it leaves a file behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.folder}/exploded",)


def seeds_of(folder: Path) -> dict[str, bytes]:
    """Give one good file of each kind; the index's shard is left in the folder."""
    state = {k: v for k, v in load_model("test_resnet", num_classes=3).state_dict().items() if v.numel() < 2000}
    whole = {
        "state_dict": state,
        "epoch": 3,
        "args": Namespace(model="test_resnet"),
        "optimizer": {"state": {0: (1, 2)}},
    }
    new, old = io.BytesIO(), io.BytesIO()
    torch.save(whole, new)
    torch.save(whole, old, _use_new_zipfile_serialization=False)
    (folder / "part.safetensors").write_bytes(to_safetensors(state))
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(state, "part.safetensors")}
    return {
        "zip": new.getvalue(),
        "legacy": old.getvalue(),
        "safetensors": to_safetensors(state),
        "index": json.dumps(index).encode(),
    }


def _bytes(rng: random.Random, content: bytes) -> bytes:
    """Flip bits, cut, insert, repeat or blank a piece; list of contents rather than numbers, half of the time."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        reach = len(changed) if rng.random() < 0.5 else min(len(changed), 4000)
        at = rng.randrange(max(1, reach))
        kind = rng.randrange(6)
        if kind <= 1 and changed:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.randrange(1, 30))
        elif kind == 3:
            del changed[at : at + rng.randrange(1, 200)]
        elif kind == 4:
            changed[at:at] = changed[at : at + rng.randrange(1, 2000)]
        elif rng.random() < 0.2:
            del changed[at:]
        else:
            changed[at : at + 8] = b"\xff" * 8
    return bytes(changed)


def _zip(rng: random.Random, content: bytes) -> bytes:
    """Break the list of contents inside a zip whose checksums are right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(out, "w") as made:
        for info in given.infolist():
            data = given.read(info)
            made.writestr(info.filename, _pickle(rng, data) if info.filename.endswith("data.pkl") else data)
    return out.getvalue()


_OPERATIONS = b"()]}.0125abcdeghijlopqrstu\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8e\x8f\x90\x92\x93\x94\x95\x96"


def _pickle(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(_bytes(rng, content) if rng.random() < 0.3 else content)
    for _ in range(rng.choice((1, 2, 4, 30))):
        at = rng.randrange(max(1, len(changed)))
        if rng.random() < 0.6:
            changed[at : at + 1] = bytes([rng.choice(_OPERATIONS)])
        else:
            changed[at:at] = bytes(rng.choices(_OPERATIONS, k=rng.randrange(1, 6)))
    return bytes(changed)


def _value(rng: random.Random, depth: int = 0) -> object:
    """Make anything that JSON or a pickle can hold."""
    plain = (
        None,
        True,
        -1,
        2**70,
        1e300,
        "",
        "layer1",
        "../../etc/passwd",
        "\x1b[31m![x](http://evil)",
        [0],
        {"dtype": 1},
    )
    if depth > 4 or rng.random() < 0.5:
        return rng.choice(plain)
    if rng.random() < 0.5:
        return [_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {str(rng.choice(plain)): _value(rng, depth + 1) for _ in range(rng.randrange(4))}


def _json(rng: random.Random, content: object, keep: float = 0.8) -> object:
    """Exchange some values in a JSON document."""
    if rng.random() > keep:
        return _value(rng)
    if isinstance(content, dict):
        return {(k if rng.random() < 0.99 else str(_value(rng))[:99]): _json(rng, v, 0.995) for k, v in content.items()}
    if isinstance(content, list):
        return [_json(rng, v, 0.97) for v in content]
    if isinstance(content, int) and rng.random() < 0.05:
        return rng.choice((0, -1, 2**31, 2**62, content + 1))
    return content


def _structure(rng: random.Random, folder: Path) -> bytes:
    """Save something that is not what a checkpoint is, in the format of one."""
    tensor = torch.ones(3)
    state: dict = {"fc.weight": tensor, "fc.bias": _value(rng)}
    made: dict = {rng.choice(("state_dict", "model", "state_dict_ema", "net", "x")): state, "epoch": _value(rng)}
    kind = rng.randrange(9)
    if kind == 0:
        made["state_dict"] = made  # holds itself
    elif kind == 1:
        state["trap"] = Trap(folder)
    elif kind == 2:
        made = Trap(folder)  # type: ignore[assignment]
    elif kind == 3:
        inner: object = tensor
        for _ in range(rng.choice((10, 200))):
            inner = {"model": inner} if rng.random() < 0.5 else [inner]
        made = {"model": inner}
    elif kind == 4:
        made = {(("a", 1),): tensor, 3: tensor, None: state}
    elif kind == 5:
        made = {"state_dict": torch.nn.Linear(2, 2)}
    elif kind == 6:
        state["sparse"] = torch.eye(3).to_sparse()
    elif kind == 7:
        state["wide"] = torch.ones(1).expand(2**20, 2**20)
    else:
        made = _value(rng)  # type: ignore[assignment]
    out = io.BytesIO()
    torch.save(made, out, _use_new_zipfile_serialization=rng.random() < 0.7)
    return out.getvalue()


def mutated(folder: Path, count: int, seed: int = 0) -> Iterator[tuple[str, Path]]:
    """Write `count` broken files, one after another, and give the kind and path of each."""
    rng = random.Random(seed)
    seeds = seeds_of(folder)
    endings = {"zip": ".pth", "legacy": ".pt", "safetensors": ".safetensors", "index": ".safetensors.index.json"}
    for number in range(count):
        kind = KINDS[number % 4]
        content, way = seeds[kind], rng.random()
        if kind in ("zip", "legacy") and way < 0.25:
            kind, content = "structure", _structure(rng, folder)
        elif kind == "zip" and way < 0.65:
            content = _zip(rng, content)
        elif kind == "safetensors" and way < 0.5:
            (length,) = struct.unpack("<Q", content[:8])
            header = json.dumps(_json(rng, json.loads(content[8 : 8 + length]), 0.99)).encode()
            content = struct.pack("<Q", len(header)) + header + content[8 + length :]
        elif kind == "index" and way < 0.7:
            content = json.dumps(_json(rng, json.loads(content))).encode()
        elif kind == "legacy" and way < 0.5:
            content = _pickle(rng, content)
        else:
            content = _bytes(rng, content)
        path = folder / f"{number}{endings.get(kind, '.pth')}"
        path.write_bytes(content)
        yield kind, path


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Stop what takes longer."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(path: Path) -> str:
    """Say what became of a file: "read", "refused", or the fault ("hung", "executed", "raw: …", "wordy: …")."""
    global _watching
    _executed.clear()
    try:
        _watching = True
        with limited(LIMIT_S):
            describe_checkpoint(path)
            read_checkpoint(path)
        found = "read"
    except CheckpointError as error:
        words = str(error)
        neat = len(words) < 600 and "\n" not in words and words.isprintable() and words.endswith(".")
        found = "refused" if neat else f"wordy: {words[:300]!r}"
    except TimeoutError:
        found = "hung"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        found = f"raw: {type(error).__name__}: {str(error)[:200]}"
    finally:
        _watching = False
    return f"executed: {_executed}" if _executed else found


def counted(folder: Path, count: int, seed: int = 0) -> tuple[Counter[tuple[str, str]], float, list[tuple[Path, str]]]:
    """Try that many files: how many came out how, by kind; the longest time for one; and the faults."""
    counts: Counter[tuple[str, str]] = Counter()
    longest, faults = 0.0, []
    for kind, path in mutated(folder, count, seed):
        begun = time.perf_counter()
        found = outcome(path)
        longest = max(longest, time.perf_counter() - begun)
        counts[kind, found.partition(":")[0]] += 1
        if found not in ("read", "refused"):
            faults.append((path, found))
        else:
            path.unlink()
    return counts, longest, faults
