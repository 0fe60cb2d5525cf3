"""A run as one ZIP that works elsewhere: numbers, configuration, script, and the weights the script reads."""

from __future__ import annotations

import re
from pathlib import Path

from app import export, workspace
from app.workspace.runs import Run

_QUOTED = re.compile(r"'((?:/|[A-Za-z]:)[^'\n]+)'")  # an absolute path, as repr writes it
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def bundle(run: Run) -> bytes:
    """Return the ZIP. Paths of weights are relative to the folder that it is unpacked into."""
    moved = places(run.script)
    files = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    files["run.json"] = relative(files["run.json"].decode(), moved).encode()
    if run.script:
        files["reproduce.py"] = relative(run.script, moved).encode()
    return export.zip_files(files | {place: path.read_bytes() for path, place in moved.items()})


def places(script: str) -> dict[Path, str]:
    """Return where in the ZIP each file of weights lies that a script reads."""
    found = {Path(word) for word in _QUOTED.findall(script)}
    weights = sorted(path for path in found if path.suffix in SUFFIXES and path.is_file())
    library = workspace.folder("checkpoints")
    names = {p: p.relative_to(library).as_posix() if p.is_relative_to(library) else p.name for p in weights}
    taken: dict[Path, str] = {}
    for number, (path, name) in enumerate(names.items()):
        place = f"weights/{name}"
        taken[path] = place if place not in taken.values() else f"weights/{number}-{name}"
    return taken


def relative(text: str, moved: dict[Path, str]) -> str:
    """Return a text with every path replaced by its place in the ZIP."""
    for path in sorted(moved, key=lambda one: len(str(one)), reverse=True):  # no path is cut by a shorter one
        text = text.replace(str(path), moved[path])
    return text
