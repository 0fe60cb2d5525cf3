"""Frozen results: numpy arrays and plain values with the settings that made them, saved without pickle."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import IO, Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np

from .checks import cut, why
from .core.evidence.sampling import SamplingError
from .npz import SMALL, read_npz
from .writing import whole

REGISTRY: dict[str, type[Result]] = {}
Kind = Literal["stderr", "residual", "bracket", "estimate", "sampling"]


class ResultError(ValueError):
    """A file is not a result that can be read; the message is one sentence."""


class Uncertainty(NamedTuple):
    """What a field of a result says about how well another is known.

    Attributes
    ----------
    kind : {"stderr", "residual", "bracket", "estimate"}
        All of the method: "stderr", the standard error over draws; "residual", ‖Av − λv‖, which bounds the distance to
        an eigenvalue; "bracket", the lower and the upper end, as two fields, or its half-width, as one; "estimate", how
        far off the value may be, by a rule and without a guarantee.
    of : str
        The field it speaks of; "rows.loss" is the column or key "loss" of the rows or the dict in the field "rows", and
        of each row in a dict of rows.
    """

    kind: Kind
    of: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """What an estimator measured.

    Subclasses are frozen dataclasses whose fields are arrays, numbers, strings, None, or lists, tuples and dicts of
    these. They pickle, and `save` and `load` keep them in one NPZ file that holds no code.

    Attributes
    ----------
    settings : dict
        Model, data, samples, batch-norm policy, seed, versions: what makes the numbers reproducible.
    sampling : dict of str to dict
        How much fields would change with other examples, by their names, where that was asked for: the attributes of
        a `SamplingError`.
    uncertainties : dict of str to Uncertainty
        Of the class: its fields that say how well another one is known by its method; see `uncertainty_of`.

    Examples
    --------
    >>> from estimators import CurvatureResult
    >>> CurvatureResult(trace=12.0, trace_stderr=0.5).uncertainty_of("trace")
    ('stderr', 0.5)
    """

    settings: dict = field(default_factory=dict)
    sampling: dict[str, dict[str, Any]] = field(default_factory=dict)

    kind: ClassVar[str] = "result"
    uncertainties: ClassVar[dict[str, Uncertainty]] = {}
    version: ClassVar[int] = 1  # of what the fields mean; kept in the file, see `_upgrade`

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        REGISTRY[cls.__name__] = cls

    def uncertainty_of(self, name: str, kind: Kind | None = None) -> tuple[Kind, Any] | None:
        """Tell how well a field is known.

        Parameters
        ----------
        name : str
            The field, or "rows.loss" for the column "loss" of the rows in the field "rows".
        kind : {"stderr", "residual", "bracket", "estimate", "sampling"} or None, default=None
            Which uncertainty, where there are several; None takes the first of the method that the class declares.
            "sampling", the error over examples, is never taken for one of these: it is told where it is asked for.

        Returns
        -------
        tuple of (kind, value) or None
            The value is a number or an array as the field is, (low, high) for a bracket, and a `SamplingError` for
            "sampling". None where the result states no such uncertainty.
        """
        if kind == "sampling":
            return (kind, SamplingError(**self.sampling[name])) if name in self.sampling else None
        told = [(own, u.kind) for own, u in self.uncertainties.items() if u.of == name and kind in (None, u.kind)]
        if not told:
            return None
        first = told[0][1]
        values = [self._column(own) for own, k in told if k == first]
        if first != "bracket":
            return first, values[0]
        if len(values) == 1:
            middle = self._column(name)
            return first, (middle - values[0], middle + values[0])
        return first, (values[0], values[1])

    def bound_on(self, name: str) -> str:
        """Say which side of the truth a field's value bounds, where its search was ended too early to give it.

        Parameters
        ----------
        name : str
            The field.

        Returns
        -------
        str
            "≥" where the truth is at least the value, "≤" where it is at most that; empty for every other field.
        """
        return ""

    def _column(self, name: str) -> Any:
        """Give a field, or a column of the rows in it."""
        own, _, column = name.partition(".")
        value = getattr(self, own)
        if not column:
            return value
        if isinstance(value, dict):
            return value[column] if column in value else {key: row[column] for key, row in value.items()}
        return np.array([row.get(column) for row in value], dtype=float)

    def save(self, path: str | os.PathLike) -> Path:
        """Write the result to `path` (.npz), whole or not at all, with a checksum of all that is in it.

        Raises
        ------
        OSError
            In one sentence, when the disk is full or the folder can't be written to.
        """
        file = Path(path)
        arrays: dict[str, np.ndarray] = {}
        plain = {f.name: _pack(getattr(self, f.name), f.name, arrays) for f in fields(self)}
        header = {"class": type(self).__name__, "version": self.version, "fields": plain}
        header["sha256"] = _digest(header, arrays)
        write = np.savez_compressed if sum(a.nbytes for a in arrays.values()) <= SMALL else np.savez
        with whole(file) as temporary, open(temporary, "wb") as handle:
            write(handle, __header__=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
        return file

    @staticmethod
    def load(path: str | os.PathLike | IO[bytes], name: str = "") -> Result:
        """Read a result written by `save`.

        The file may come from anyone: nothing is unpacked before its size is known (256 MiB, or 20 times the file's
        own), and nothing in it is run.

        Parameters
        ----------
        path : path or binary file
        name : str
            What to call it in a message; the name of the file by default.

        Raises
        ------
        ResultError
            A ValueError: if the file is not one, or holds other content than was saved.
        """
        try:
            return _made(read_npz(path))
        except Exception as error:  # in a file from anyone a field may have any type, and a header any depth
            called = name or Path(str(getattr(path, "name", path))).name
            raise ResultError(
                f"A result must be an NPZ file saved by Loss Atlas, got {cut(called, 80)!r}: {why(error)}. "
                "Export it again from the Runs page or with Result.save."
            ) from error

    @classmethod
    def _upgrade(cls, values: dict[str, Any], version: int) -> dict[str, Any]:
        """Give the fields of a file of an earlier `version` the meaning they have now."""
        return values

    @classmethod
    def _former(cls, arrays: dict[str, np.ndarray]) -> dict[str, Any] | None:
        """Give the fields of a file from before this class was a result; None where it is not one."""
        return None


def _made(arrays: dict[str, np.ndarray]) -> Result:
    """Make the result that the arrays of a file describe."""
    if "__header__" not in arrays:
        found = ((cls, cls._former(arrays)) for cls in REGISTRY.values())
        made = next((cls(**values) for cls, values in found if values is not None), None)
        if made is None:
            raise ValueError("it has no header")
        return made
    header = json.loads(str(arrays.pop("__header__")))
    if not (isinstance(header, dict) and "class" in header and isinstance(header.get("fields"), dict)):
        raise ValueError("its header says nothing of a result")
    told = header.pop("sha256", None)  # files had none before
    if told is not None and told != _digest(header, arrays):
        raise ValueError("its content was changed after it was saved")
    cls = REGISTRY.get(header["class"])
    if cls is None:
        raise ValueError(f"it is of a kind that is not known here, {cut(header['class'], 60)}")
    values = {name: _unpack(value, arrays) for name, value in header["fields"].items()}
    values = cls._upgrade(values, header.get("version", 1))
    for name, kind in get_type_hints(cls).items():
        if name in values and not _fits(values[name], kind):
            raise ValueError(f"its field {name} is of another type, {type(values[name]).__name__}")
    return cls(**values)


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a value is of an annotated type, as deep as the annotation goes."""
    if kind is Any or value is None:
        return True
    if kind in (bool, int, float):
        return isinstance(value, bool | int | float) or (isinstance(value, np.ndarray) and value.ndim == 0)
    outer, inner = get_origin(kind) or kind, get_args(kind)
    if outer is UnionType:
        return any(_fits(value, one) for one in inner)
    if not isinstance(value, outer):
        return False
    if isinstance(value, dict) and inner:
        return all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    return not inner or all(_fits(v, inner[0]) for v in value)


def _digest(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """Give the SHA-256 of a result's header and arrays, however they are packed."""
    digest = hashlib.sha256(json.dumps(header).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


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
