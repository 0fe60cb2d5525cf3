"""What a value is, as a SHA-256: everything that can change a number goes in, so that a key may miss but never lies.

Plain values count by content, tensors and arrays by dtype, shape and bytes. Functions and classes of installed
packages count by name and by what was installed; those of Loss Atlas itself by name, because the cache adds the
digest of its source; all others by their code, with the defaults, closures, globals and helpers it reads. Any
other object counts by what pickle would store of it. What has no such description is told apart from everything,
itself included, and said in a warning.

This file is long because kinds of values refer to each other: one walk describes them all.
"""

from __future__ import annotations

import builtins
import copyreg
import hashlib
import io
import os
import sys
import threading
import types
import uuid
import warnings
import weakref
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._code_origin import installed, names_in, outside, parents

_CHUNK = 1 << 20  # bytes of an array that one thread hashes at once
_LARGE = 1 << 28  # bytes that are put in order at once
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), range, slice)
_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Event, threading.Condition)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_HOOK_FLAGS = ("_with_kwargs", "_always_called")
# of a module: bookkeeping that no forward pass reads, and hooks of loading and saving
_NEUTRAL = frozenset(
    {
        "_non_persistent_buffers_set",
        "_is_full_backward_hook",
        "_state_dict_hooks",
        "_state_dict_pre_hooks",
        "_load_state_dict_pre_hooks",
        "_load_state_dict_post_hooks",
        *_HOOKS,
        *(hooks + flag for hooks in _HOOKS for flag in _HOOK_FLAGS),
    }
)
# of timm's modules: where the weights came from, and what it computes again from θ
_TIMM_NEUTRAL = frozenset(
    {"pretrained_cfg", "default_cfg", "pretrained_model_args", "_model_args", "attention_bias_cache"}
)
_OF_A_CLASS = frozenset(
    {"__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__annotate__", "_abc_impl"}
    | {"__abstractmethods__", "__firstlineno__", "__static_attributes__", "__parameters__", "__orig_bases__"}
    | {"__annotate_func__", "__annotations_cache__", "__type_params__", "__classcell__"}
)


def fingerprint(*parts: object) -> str:
    """SHA-256 over values: tensors and arrays by dtype, shape and bytes, callables and objects by what they are.

    Dictionaries count in any order, and lists and tuples alike; inside an object the differences count.
    """
    writer = _Writer()
    for part in parts:
        writer.part(part)
    return writer.hexdigest()


def describe_callable(function: Callable) -> str:
    """Identify a callable by its name and by everything that can change its value."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}:{fingerprint(function)[:16]}"


def describe_module(model: nn.Module, elsewhere: Collection[str] = ()) -> str:
    """SHA-256 of all that makes a network's outputs: code, structure, settings, hooks, weights and buffers.

    Parameters
    ----------
    model : nn.Module
        Its mode (`training`) and `requires_grad` do not count: what is measured is in evaluation mode, and which
        parameters move is part of a key of its own.
    elsewhere : collection of str
        Names of parameters and buffers whose values the key holds elsewhere; they count by shape alone.

    Returns
    -------
    str
        Equal for the same network in another process.
    """
    writer = _Writer()
    writer.in_evaluation = {id(module) for module in model.modules()}
    if elsewhere:
        named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        writer.elsewhere = {id(tensor) for name, tensor in named if name in elsewhere}
    writer.put(model)
    # hooks on every module of the process
    for name, hooks in sorted(vars(nn.modules.module).items()):
        if name.startswith("_global_") and name.endswith("_hooks") and isinstance(hooks, dict) and hooks:
            writer.put([name, list(hooks.values())])
    return writer.hexdigest()


class _Writer:
    """Write values as one unambiguous stream, and hash it."""

    def __init__(self) -> None:
        self._out: list[bytes] = []
        self._seen: dict[object, int] = {}
        self._kept: list[object] = []  # an address counts as seen for as long as nothing else can move in there
        self._open: set[int] = set()
        self.in_evaluation: Collection[int] = ()
        self.elsewhere: Collection[int] = ()

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(self._out)).hexdigest()

    def head(self, text: str) -> None:
        raw = text.encode("utf-8", "surrogatepass")
        self._out.append(b"[%d]" % len(raw) + raw)

    def part(self, value: object) -> None:
        """Write one part of a key."""
        kind = type(value)
        if kind in (dict, OrderedDict):
            self.head(f"dict {len(value)}")  # type: ignore[arg-type]
            for key in sorted(value, key=str):  # type: ignore[call-overload]
                self.head(str(key))
                self.part(value[key])  # type: ignore[index]
        elif kind in (list, tuple):
            self.head(f"list {len(value)}")  # type: ignore[arg-type]
            for item in value:  # type: ignore[attr-defined]
                self.part(item)
        elif isinstance(value, np.generic):
            self.part(value.item())
        elif isinstance(value, os.PathLike):
            self.head(f"str {os.fspath(value)!r}")
        else:
            self._seen.clear()  # parts count by content alone; inside one, what is shared counts as shared
            self.put(value)

    def put(self, value: Any) -> None:
        """Write any value."""
        kind = type(value)
        if kind in _PLAIN:
            self.head(f"{kind.__name__} {value!r}")
        elif isinstance(value, Tensor):
            self._tensor(value)
        elif kind in (np.ndarray, np.memmap):
            self._array(value)
        elif kind in (list, tuple, dict, OrderedDict, set, frozenset, types.MappingProxyType):
            self._container(value)
        elif kind is types.FunctionType:
            if self._first(value):
                self._function(value)
        elif kind is types.MethodType:
            self.head("method")
            self.put(value.__func__)
            self.put(value.__self__)
        elif kind is types.CodeType:
            self._code(value)
        elif kind is types.ModuleType:
            self._python_module(value, None)
        elif isinstance(value, type):
            if self._first(value):
                self._class(value)
        elif kind in (property, staticmethod, classmethod):
            self.head(kind.__name__)
            self.put((value.fget, value.fset, value.fdel) if kind is property else value.__func__)
        elif kind in (types.BuiltinFunctionType, types.MethodWrapperType):
            self._builtin(value)
        elif isinstance(value, np.ufunc | types.WrapperDescriptorType | types.MethodDescriptorType) or kind in (
            types.MemberDescriptorType,
            types.GetSetDescriptorType,
            types.ClassMethodDescriptorType,
        ):
            self.head(f"{kind.__name__} {value!r}")
        elif isinstance(value, weakref.ref):
            self.head("weak reference")
            self.put(value())
        elif isinstance(value, _LOCKS):
            self.head(f"lock {kind.__qualname__}")
        elif isinstance(value, nn.Module):
            if self._first(value):
                self._module(value)
        elif self._first(value):
            self._object(value)

    # -- the kinds --------------------------------------------------------------------------------------

    def _first(self, value: object, key: object = None) -> bool:
        """Write a reference to what was written before; else remember it and give True."""
        key = id(value) if key is None else key
        if key in self._seen:
            self.head(f"again {self._seen[key]}")
            return False
        self._seen[key] = len(self._seen)
        self._kept.append(value)
        return True

    def _unknown(self, value: object, error: BaseException | str) -> None:
        self.head(f"unknown {uuid.uuid4().hex}")
        warnings.warn(
            f"a {type(value).__module__}.{type(value).__qualname__} in the model, loss or data can't be described "
            f"({error}), so nothing that depends on it is taken from the cache. Keep it out of what L reads.",
            stacklevel=2,
        )

    def _container(self, value: Any) -> None:
        kind = type(value)
        if id(value) in self._open:
            self.head("cycle")
            return
        self._open.add(id(value))
        self.head(f"{kind.__name__} {len(value)}")
        if kind in (set, frozenset):
            for digest in sorted(fingerprint([item]) for item in value):
                self.head(digest)
        elif kind in (list, tuple):
            for item in value:
                self.put(item)
        else:
            for key, item in value.items():
                self.put(key)
                self.put(item)
        self._open.discard(id(value))

    def _tensor(self, value: Tensor) -> None:
        kind = type(value)
        if kind not in (Tensor, nn.Parameter):
            self.put(kind)
            self.put(dict(sorted(value.__dict__.items())))
        if value.layout != torch.strided or value.is_quantized or value.is_nested or value.device.type == "meta":
            self.head(f"tensor {value.dtype} {value.layout} {value.device.type}")
            if value.layout == torch.sparse_coo:
                value = value.detach().coalesce()
                self.put([tuple(value.shape), value.indices(), value.values()])
            elif value.device.type == "meta":
                self.head(f"shape {tuple(value.shape)}")
            else:
                self._object(value)
            return
        try:
            tensor = value.detach()
            if tensor.is_conj() or tensor.is_neg():
                tensor = tensor.resolve_conj().resolve_neg()
            # tied weights share their memory, whatever objects hold them
            place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride(), str(tensor.device))
            shape = f"array {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
            if tensor.numel() and not self._first(tensor, place):
                return
            if id(value) in self.elsewhere:
                self.head(f"elsewhere {shape}")
                return
            self.head(shape)
            if tensor.numel():
                if tensor.is_contiguous() or tensor.nbytes <= _LARGE:
                    self._bytes(_raw(tensor))
                else:  # its bytes in order, without a copy of all of them
                    digests = b"".join(hashlib.sha256(chunk).digest() for chunk in _ordered(tensor))
                    self._out.append(hashlib.sha256(digests).digest())
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            self._unknown(value, error)

    def _array(self, value: np.ndarray) -> None:
        if value.dtype.hasobject:
            self.head(f"objects {value.shape}")
            self.put(value.ravel().tolist())
            return
        self.head(f"array {value.dtype if value.dtype.names is None else value.dtype.descr} {value.shape}")
        if value.size:
            self._bytes(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)

    def _bytes(self, raw: memoryview) -> None:
        """Hash memory as it lies, large arrays a chunk a thread (hashlib lets the others run)."""
        if len(raw) <= _CHUNK:
            self._out.append(hashlib.sha256(raw).digest())
            return
        chunks = [raw[i : i + _CHUNK] for i in range(0, len(raw), _CHUNK)]
        digests = _threads(os.getpid()).map(lambda chunk: hashlib.sha256(chunk).digest(), chunks)
        self._out.append(hashlib.sha256(b"".join(digests)).digest())

    def _module(self, module: nn.Module) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            self._scripted(module)
            return
        self.head("module")
        skipped = set(_NEUTRAL)
        if id(module) in self.in_evaluation:
            skipped.add("training")
        if any(cls.__module__.startswith("timm.") for cls in type(module).__mro__):
            skipped |= _TIMM_NEUTRAL
        state = module.__dict__
        if isinstance(module, torch.fx.GraphModule):  # its class is made on the spot, its code says what the graph says
            self.head(f"graph {module.code}")
            skipped |= {"_graph", "_code", "_tracer_cls", "_tracer_extras"}
        else:
            self.put(type(module))
        if type(module).__module__.startswith("torch._dynamo"):  # a compiled module: the one inside says what it does
            skipped |= set(state) - {"_modules", "_parameters", "_buffers"}
        provenance = state.get("provenance")
        if isinstance(provenance, dict) and set(provenance) == {"architecture", "weights", "notes"}:
            skipped.add("provenance")  # what `load_model` notes for captions
        for name in sorted(state.keys() - skipped):
            self.head(name)
            self.put(state[name])
        for name in _HOOKS:
            hooks = state.get(name)
            if hooks:
                flags = [state.get(name + flag, {}) for flag in _HOOK_FLAGS]
                self.head(f"{name} {len(hooks)}")
                for key, hook in hooks.items():  # the keys count all hooks of the process
                    self.put([hook, *(key in flag for flag in flags)])

    def _scripted(self, module: torch.jit.ScriptModule | torch.jit.ScriptFunction) -> None:
        """Write what TorchScript would store, without its notes on source lines."""
        buffer = io.BytesIO()
        torch.jit.save(module, buffer)
        self.head("script")
        with zipfile.ZipFile(buffer) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith((".debug_pkl", "serialization_id")):
                    self.head(name.partition("/")[2])
                    self._bytes(memoryview(archive.read(name)))

    def _builtin(self, value: Any) -> None:
        owner = getattr(value, "__self__", None)
        self.head(f"builtin {getattr(value, '__module__', None)}.{value.__qualname__}")
        if owner is not None and not isinstance(owner, type | types.ModuleType):
            self.put(owner)

    def _function(self, function: types.FunctionType) -> None:
        name = f"{function.__module__}.{function.__qualname__}"
        origin = installed(function.__globals__.get("__name__"))
        self.head(f"function {name} {origin}")
        if origin is None:
            self._code(function.__code__)
            self.put(dict(sorted(function.__dict__.items())))
        self.put([function.__defaults__, function.__kwdefaults__])
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not filled yet
                self.head("empty cell")
            else:
                self._read(content, function.__code__)
        if origin is None:
            self._globals(function)

    def _globals(self, function: types.FunctionType) -> None:
        reads, imports = outside(function.__code__)
        for name in reads:
            self.head(f"global {name}")
            if name in function.__globals__:
                self._read(function.__globals__[name], function.__code__)
            elif hasattr(builtins, name):
                self.head("builtin")
        package = function.__globals__.get("__package__") or ""
        for name in imports:
            self.head(f"import {name}")
            for full in (name, *(f"{base}.{name}".rstrip(".") for base in parents(package))):  # if it is relative
                if full in sys.modules:
                    self._python_module(sys.modules[full], function.__code__)

    def _read(self, value: object, code: types.CodeType) -> None:
        if isinstance(value, types.ModuleType):
            self._python_module(value, code)
        else:
            self.put(value)

    def _python_module(self, module: types.ModuleType, code: types.CodeType | None) -> None:
        """Write a module by what was installed; one's own by its file and by what the code may read of it."""
        origin = installed(module.__name__)
        self.head(f"python module {module.__name__} {origin}")
        if origin is not None:
            return
        file = getattr(module, "__file__", None)
        if file and self._first(module, ("file", file)):
            try:
                self.head(hashlib.sha256(Path(file).read_bytes()).hexdigest())
            except OSError:
                self.head("no file")
        content = vars(module)
        wanted = [n for n in content if not n.startswith("__")] if code is None else sorted(names_in(code))
        for name in wanted:
            if name in content and self._first(content[name], ("member", id(module), name)):
                self.head(f"member {name}")
                if code is None:
                    self.put(content[name])
                else:
                    self._read(content[name], code)

    def _code(self, code: types.CodeType) -> None:
        # names of files and lines stay out: they don't change what the code does
        self.head(f"code {code.co_argcount} {code.co_posonlyargcount} {code.co_kwonlyargcount} {code.co_flags}")
        self.put((code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
        self.put(getattr(code, "co_exceptiontable", b""))
        self.put(code.co_consts)

    def _class(self, cls: type) -> None:
        origin = installed(cls.__module__)
        self.head(f"class {cls.__module__}.{cls.__qualname__} {origin}")
        if origin is None:
            self.put([type(cls), *cls.__bases__])
            for name in sorted(vars(cls).keys() - _OF_A_CLASS):
                self.head(name)
                self.put(vars(cls)[name])
            return
        for base in cls.__mro__[1:]:
            if base is not object:
                self.put(base)
        for name, value in vars(cls).items():  # what somebody put into an installed class
            plain = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            for function in (plain.fget, plain.fset) if isinstance(plain, property) else (plain,):
                if isinstance(function, types.FunctionType) and not installed(function.__globals__.get("__name__")):
                    self.head(f"replaced {name}")
                    self.put(function)

    def _object(self, value: Any) -> None:
        """Write what pickle would store."""
        kind = type(value)
        if isinstance(value, torch.jit.ScriptFunction):
            self._scripted(value)
            return
        if isinstance(value, torch.Generator):
            self.put([kind, value.device, value.get_state()])
            return
        try:
            reduce = copyreg.dispatch_table.get(kind)
            stored: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
            if isinstance(stored, str):
                self.head(f"{kind.__module__}.{kind.__qualname__} {getattr(value, '__module__', '')} {stored}")
                if hasattr(value, "__wrapped__"):
                    self.put(value.__wrapped__)
                return
            function, arguments, *rest = stored
            state, items, entries = ([*rest, None, None, None])[:3]
            if isinstance(state, dict):
                state = dict(sorted(state.items(), key=lambda item: str(item[0])))
            content = [function, arguments, state, None if items is None else list(items)]
            content.append(None if entries is None else list(entries))
            self._kept.append(content)
            self.head("object")
            self.put(kind)
            for item in content:
                self.put(item)
        except Exception as error:  # pickling runs code of others, which raises what it likes
            self._unknown(value, error)


def _raw(tensor: Tensor) -> memoryview:
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _ordered(tensor: Tensor) -> Iterator[bytes]:
    """Yield a tensor's bytes in the order of its axes, a chunk at a time, however it lies in memory."""
    rest = b""
    for rows in tensor.split(max(1, 8 * _CHUNK * len(tensor) // tensor.nbytes)):
        rest += bytes(_raw(rows))
        whole = len(rest) - len(rest) % _CHUNK
        yield from (rest[i : i + _CHUNK] for i in range(0, whole, _CHUNK))
        rest = rest[whole:]
    if rest:
        yield rest


@lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """Give the threads that hash; a forked process has none of its parent's."""
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="hash")
