"""Frozen results: numpy arrays and plain values with the settings that made them, saved without pickle."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

REGISTRY: dict[str, type[Result]] = {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """What an estimator measured.

    Subclasses are frozen dataclasses whose fields are arrays, numbers, strings, None, or lists, tuples and dicts of
    these. They pickle, and `save` and `load` keep them in one NPZ file that holds no code.

    Attributes
    ----------
    settings : dict
        Model, data, samples, batch-norm policy, seed, versions: what makes the numbers reproducible.
    """

    settings: dict = field(default_factory=dict)

    kind: ClassVar[str] = "result"
    version: ClassVar[int] = 1  # of what the fields mean; kept in the file, see `_upgrade`

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        REGISTRY[cls.__name__] = cls

    def save(self, path: str | os.PathLike) -> Path:
        """Write the result to `path` (.npz), whole or not at all."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, np.ndarray] = {}
        plain = {f.name: _pack(getattr(self, f.name), f.name, arrays) for f in fields(self)}
        header = json.dumps({"class": type(self).__name__, "version": self.version, "fields": plain})
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as handle:
                np.savez_compressed(handle, __header__=np.array(header), **arrays)  # type: ignore[arg-type]
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
        return file

    @staticmethod
    def load(path: str | os.PathLike) -> Result:
        """Read a result written by `save`.

        Raises
        ------
        ValueError
            If the file is not one.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                header = json.loads(str(archive["__header__"]))
                arrays = {k: archive[k] for k in archive.files if k != "__header__"}
            cls = REGISTRY[header["class"]]
            values = {name: _unpack(value, arrays) for name, value in header["fields"].items()}
            return cls(**cls._upgrade(values, header.get("version", 1)))
        except (OSError, KeyError, ValueError, TypeError, EOFError) as error:
            raise ValueError(
                f"A result must be an NPZ file saved by Loss Atlas, got {Path(path).name!r}: {error}. "
                "Export it again from the Runs page or with Result.save."
            ) from error

    @classmethod
    def _upgrade(cls, values: dict[str, Any], version: int) -> dict[str, Any]:
        """Give the fields of a file of an earlier `version` the meaning they have now."""
        return values


def _pack(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"$array": name}
    if isinstance(value, dict):
        return {"$dict": [[k, _pack(v, f"{name}.{k}", arrays)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"$tuple": [_pack(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, list):
        return [_pack(v, f"{name}.{i}", arrays) for i, v in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _unpack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_unpack(v, arrays) for v in value]
    if isinstance(value, dict):
        if "$array" in value:
            return arrays[value["$array"]]
        if "$tuple" in value:
            return tuple(_unpack(v, arrays) for v in value["$tuple"])
        return {k: _unpack(v, arrays) for k, v in value["$dict"]}
    return value
