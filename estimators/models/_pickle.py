"""What a pickle says, without doing what it says.

A pickle is a program for a small stack machine: some operations push values, some import a name and call it. Here the
program is read by `pickletools.genops`, which only splits it into operations, and the machine below never imports and
never calls: a name stays a :class:`Name`, a call becomes an :class:`Inert` note of what would have been built, and
the few calls by which torch describes tensors become a :class:`Stored`, a tensor not read yet. What stands beside the
weights (an `argparse.Namespace`, an optimiser, a configuration of any class) is therefore read around, never run.

Nothing is hashed but numbers and words, so that no nested tuple takes forever, and the size of the program is bounded.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

import torch

MOST_BYTES = 64 * 2**20
MOST_OPERATIONS = 5_000_000

_DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}  # fmt: skip
# Calls that only a file made to do harm contains; everything else that is not a tensor is left out, unread.
_HARMFUL = re.compile(
    r"(os|posix|nt|sys|subprocess|shutil|socket|ctypes|importlib|runpy|pty|pip|webbrowser|code|codeop|pdb|bdb|timeit|"
    r"asyncio|multiprocessing|threading|signal|requests|urllib|http|ftplib|smtplib|telnetlib|tempfile)\.|"
    r"(builtins|__builtin__)\.(eval|exec|execfile|compile|__import__|open|input|breakpoint|globals)\b"
)


@dataclass(frozen=True, slots=True)
class Name:
    """A name that the pickle would import."""

    text: str


@dataclass(slots=True, eq=False)
class Inert:
    """Something that the pickle would build by a call; it was not called."""

    name: str
    args: Any = None
    state: Any = None
    items: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of numbers in the file, by its key there."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file, not read yet: `dtype` and `shape`, and where its numbers lie."""

    storage: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int = 0
    stride: tuple[int, ...] = ()

    @property
    def n_bytes(self) -> int:
        """Size of the whole tensor when it is written out."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size


@dataclass(frozen=True)
class Program:
    """What a pickle would make: its `value`, the `storages` it names, and the `harmful` calls it contains."""

    value: Any
    storages: dict[str, Storage]
    harmful: tuple[str, ...]


class Bounded:
    """A stream that gives no more than `most` bytes."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._left = stream, most

    def _spend(self, n: int) -> int:
        self._left -= n
        if self._left < 0:
            raise ValueError("its list of contents is too long")
        return n

    def read(self, n: int) -> bytes:
        """Read n bytes."""
        return self._stream.read(self._spend(n))

    def readline(self) -> bytes:
        """Read a line."""
        line = self._stream.readline(self._left + 1)
        self._spend(len(line))
        return line


def interpret(stream: IO[bytes], most_bytes: int = MOST_BYTES, most_operations: int = MOST_OPERATIONS) -> Program:
    """Read one pickle from a stream, which is left just behind it.

    Raises
    ------
    Exception
        Of several kinds where it is damaged; :func:`estimators.read_checkpoint` turns them into one.
    """
    machine = _Machine()
    operations = pickletools.genops(Bounded(stream, most_bytes))  # type: ignore[arg-type]
    for count, (operation, argument, _) in enumerate(operations):
        if count >= most_operations:
            raise ValueError("its list of contents is too long")
        handler = _HANDLERS.get(operation.name)
        if handler is None:  # a number, a word or bytes
            machine.stack.append(argument)
        else:
            handler(machine, argument)
    return Program(machine.stack[-1], machine.storages, tuple(machine.harmful))


def interpret_bytes(content: bytes) -> Program:
    """Read the pickle that some bytes hold."""
    return interpret(io.BytesIO(content), len(content))


class _Machine:
    """The stack of a pickle's program, with what it would build."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.harmful: dict[str, None] = {}

    def pop(self) -> Any:
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def name(self, module: Any, attribute: Any) -> Name:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise ValueError("it imports something that has no name")
        text = f"{module}.{attribute}"
        if _HARMFUL.match(text):
            self.harmful[text[:80]] = None
        return Name(text)

    def persistent(self, ident: Any) -> Any:
        """Turn torch's reference to a storage into a note of it."""
        if not isinstance(ident, tuple) or not ident:
            raise ValueError("it refers to something that no torch file holds")
        kind = ident[0].decode() if isinstance(ident[0], bytes) else ident[0]
        if kind == "module":  # how torch before 1.6 noted the class of a whole module
            return ident[1]
        if kind != "storage" or len(ident) < 5 or (len(ident) > 5 and ident[5] is not None):
            raise ValueError("it refers to a kind of storage that is not known")
        _, described, key, _, numel = ident[:5]
        named = described.text.rpartition(".")[2] if isinstance(described, Name) else ""
        if named not in _DTYPES or not isinstance(key, str | int) or not isinstance(numel, int) or numel < 0:
            return Inert(described.text if isinstance(described, Name) else "storage")
        storage = Storage(str(key), _DTYPES[named], numel)
        return self.storages.setdefault(storage.key, storage)


def _made(function: Any, args: Any) -> Any:
    """Give what a call would give where that is a plain container or a tensor, and a note of the call otherwise."""
    name = function.text if isinstance(function, Name) else "an object"
    if not isinstance(args, tuple):
        return Inert(name, args)
    if name in ("copyreg._reconstructor", "copy_reg._reconstructor") and args and isinstance(args[0], Name):
        return Inert(args[0].text)
    if name in ("collections.OrderedDict", "builtins.dict", "__builtin__.dict"):
        made: dict[Any, Any] = {}
        for pair in args[0] if args and isinstance(args[0], list | tuple) else ():
            _put(made, *pair)
        return made
    if name == "torch.Size" and args and isinstance(args[0], tuple | list):
        return tuple(args[0])
    if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
        return args[0] if args and isinstance(args[0], Stored) else Inert(name, args)
    if name == "torch._tensor._rebuild_from_type_v2" and len(args) == 4:
        of = args[1].text if isinstance(args[1], Name) else "a tensor of its own kind"
        plain = of in ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter")
        return _made(args[0], args[2]) if plain else Inert(of, args)
    if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2") and len(args) >= 4:
        flagged = len(args) > 6 and bool(args[6])  # a conjugate or negative view: never in a state dict
        dtype = args[0].dtype if isinstance(args[0], Storage) else None
        return Inert(name, args) if flagged else _tensor(name, args, dtype)
    if name == "torch._utils._rebuild_tensor_v3" and len(args) >= 7 and isinstance(args[6], Name):
        found = getattr(torch, args[6].text.removeprefix("torch."), None) if args[6].text.count(".") == 1 else None
        return _tensor(name, args, found if isinstance(found, torch.dtype) else None)
    return Inert(name, args)


def _tensor(name: str, args: tuple[Any, ...], dtype: torch.dtype | None) -> Any:
    storage, offset, shape, stride = args[:4]
    if not isinstance(storage, Storage) or dtype is None:
        return Inert(name, args)
    whole = isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride) <= 64
    if not whole or any(not isinstance(n, int) or not 0 <= n < 2**48 for n in (offset, *shape, *stride)):
        raise ValueError("it describes a tensor whose shape is not a shape")
    return Stored(storage.key, dtype, tuple(shape), offset, tuple(stride))


def _put(target: Any, key: Any, value: Any) -> None:
    """Set an item; keys that are no names or numbers cannot lead to weights, and hashing them may never end."""
    if isinstance(target, dict):
        if isinstance(key, bytes):
            key = key.decode("utf-8", "replace")
        if key is None or isinstance(key, str | int | float):
            target[key] = value
    elif isinstance(target, Inert):
        target.items.append((key, value))
    else:
        raise ValueError("it sets an item of something that has none")


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, Inert):
        target.items.extend(values)
    else:
        raise ValueError("it adds to something that cannot grow")


def _push(make: Callable[[_Machine, Any], Any]) -> Callable[[_Machine, Any], None]:
    """Make the handler of an operation that pushes what `make` gives."""

    def handler(m: _Machine, arg: Any) -> None:
        m.stack.append(make(m, arg))

    return handler


def _set_items(m: _Machine, arg: Any) -> None:
    items = m.since_mark()
    for i in range(0, len(items) - 1, 2):
        _put(m.stack[-1], items[i], items[i + 1])


def _set_item(m: _Machine, arg: Any) -> None:
    value, key = m.pop(), m.pop()
    _put(m.stack[-1], key, value)


def _append(m: _Machine, arg: Any) -> None:
    value = m.pop()
    _extend(m.stack[-1], [value])


def _append_all(m: _Machine, arg: Any) -> None:
    items = m.since_mark()
    _extend(m.stack[-1], items)


def _build(m: _Machine, arg: Any) -> None:
    state = m.pop()
    if isinstance(m.stack[-1], Inert):
        m.stack[-1].state = state


def _dict(m: _Machine, arg: Any) -> dict[Any, Any]:
    items, made = m.since_mark(), dict[Any, Any]()
    for i in range(0, len(items) - 1, 2):
        _put(made, items[i], items[i + 1])
    return made


def _stack_global(m: _Machine, arg: Any) -> Name:
    attribute, module = m.pop(), m.pop()
    return m.name(module, attribute)


def _reduce(m: _Machine, arg: Any) -> Any:
    args, function = m.pop(), m.pop()
    return _made(function, args)


def _new_with_keywords(m: _Machine, arg: Any) -> Any:
    _, args, function = m.pop(), m.pop(), m.pop()
    return _made(function, args)


def _object(m: _Machine, arg: Any) -> Any:
    function, *args = m.since_mark()
    return _made(function, tuple(args))


def _remember(m: _Machine, arg: Any) -> None:
    m.memo[len(m.memo) if arg is None else arg] = m.stack[-1]


def _last(n: int) -> Callable[[_Machine, Any], None]:
    def handler(m: _Machine, arg: Any) -> None:
        made = tuple(m.stack[-n:])
        if len(made) < n:
            raise ValueError("it takes more than it put there")
        m.stack[-n:] = [made]

    return handler


def _nothing(m: _Machine, arg: Any) -> None:
    return None


# An operation that is not here pushes its own argument: numbers, words, bytes.
_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP", "READONLY_BUFFER"), _nothing),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _push(lambda m, arg: m.memo[arg])),
    "NONE": _push(lambda m, arg: None),
    "NEWTRUE": _push(lambda m, arg: True),
    "NEWFALSE": _push(lambda m, arg: False),
    "EMPTY_DICT": _push(lambda m, arg: {}),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), _push(lambda m, arg: [])),
    "EMPTY_TUPLE": _push(lambda m, arg: ()),
    "MARK": lambda m, arg: m.marks.append(len(m.stack)),
    "POP": lambda m, arg: m.pop(),
    "POP_MARK": lambda m, arg: m.since_mark().clear(),
    "DUP": _push(lambda m, arg: m.stack[-1]),
    "TUPLE": _push(lambda m, arg: tuple(m.since_mark())),
    **{f"TUPLE{n}": _last(n) for n in (1, 2, 3)},
    **dict.fromkeys(("LIST", "FROZENSET"), _push(lambda m, arg: m.since_mark())),
    "DICT": _push(_dict),
    "APPEND": _append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _append_all),
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "GLOBAL": _push(lambda m, arg: m.name(*arg.partition(" ")[::2])),
    "STACK_GLOBAL": _push(_stack_global),
    "INST": _push(lambda m, arg: _made(m.name(*arg.partition(" ")[::2]), tuple(m.since_mark()))),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _push(_reduce)),
    "NEWOBJ_EX": _push(_new_with_keywords),
    "OBJ": _push(_object),
    "BUILD": _build,
    "BINPERSID": _push(lambda m, arg: m.persistent(m.pop())),
    "PERSID": _push(lambda m, arg: m.persistent(arg)),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4", "NEXT_BUFFER"), _push(lambda m, arg: Inert("an extension"))),
}
