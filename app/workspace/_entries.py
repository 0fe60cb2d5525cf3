"""Things kept as a folder each: a JSON file says what it is, everything else lies beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from app.workspace import _files


@dataclass(frozen=True)
class Entry:
    """One of them. ``info`` is its JSON file.

    A subclass says the folder of its kind, the name of the JSON file, the field of it that a person may change, and
    what to do where the file is damaged.
    """

    id: str
    info: dict[str, Any]

    kind: ClassVar[str]
    file: ClassVar[str]
    title_field: ClassVar[str]
    advice: ClassVar[str]

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return _files.folder(self.kind) / self.id

    @property
    def title(self) -> str:
        """What a person calls it."""
        return str(self.info.get(self.title_field, self.id))

    @property
    def created(self) -> str:
        """When it was added, as ISO writes it."""
        return str(self.info.get("created", ""))

    @property
    def age(self) -> float:
        """Seconds since then."""
        now = datetime.now().astimezone()
        return (now - datetime.fromisoformat(self.created)).total_seconds() if self.created else 0.0

    @classmethod
    def every(cls) -> list[Self]:
        """Return all of the kind, newest first; a folder without a readable file is left out."""
        found = [(path.name, _files.read_json(path / cls.file)) for path in _files.entries(cls.kind)]
        return [cls(name, info) for name, info in found if info is not None]

    @classmethod
    def get(cls, entry: str) -> Self:
        """Return one; ``ValueError`` when it is not there."""
        info = _files.read_json(_files.check_id(cls.kind, entry) / cls.file)
        if info is None:
            raise ValueError(f"{cls.kind[:-1]} must have a readable {cls.file}, got {entry!r}. {cls.advice}")
        return cls(entry, info)

    @classmethod
    @contextmanager
    def new(cls, info: dict[str, Any]) -> Iterator[tuple[Path, Self]]:
        """Yield a folder to fill and the entry it becomes when the block ends without an error."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        made = cls(_files.new_id(str(info[cls.title_field])), {**info, "created": now})
        with _files.new_folder(_files.folder(cls.kind), made.id) as path:
            yield path, made
            _files.write_json(path / cls.file, made.info)

    def change(self, **more: Any) -> None:
        """Write other values into the file."""
        path = _files.check_id(self.kind, self.id) / self.file
        _files.write_json(path, {**(_files.read_json(path) or {}), **more})

    def rename(self, title: str) -> None:
        """Call it otherwise; an empty title changes nothing."""
        if title.strip():
            self.change(**{self.title_field: title.strip()})

    def delete(self) -> Path:
        """Move it to the bin; give the returned path to :func:`app.workspace.restore` to undo."""
        return _files.discard(_files.check_id(self.kind, self.id))
