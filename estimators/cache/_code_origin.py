"""Where code comes from and what it reads: installed packages, a person's own modules, globals and imports."""

from __future__ import annotations

import dis
import hashlib
import importlib.metadata
import site
import sys
import sysconfig
import types
from functools import lru_cache
from pathlib import Path

OWN = __name__.partition(".")[0]


@lru_cache(maxsize=4096)
def outside(code: types.CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names that code reads from its globals, and modules it imports, in nested functions as well."""
    reads: set[str] = set()
    imports: set[str] = set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            reads.add(str(instruction.argval))
        elif instruction.opname == "IMPORT_NAME":
            imports.add(str(instruction.argval))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = outside(constant)
            reads |= set(inner[0])
            imports |= set(inner[1])
    return tuple(sorted(reads)), tuple(sorted(imports))


def parents(package: str) -> list[str]:
    """List a package and those around it, by their full names."""
    parts = package.split(".") if package else []
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


@lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> frozenset[str]:
    """All names that code uses, attributes as well."""
    inner = [names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return frozenset(code.co_names).union(*inner)


def installed(module: str | None) -> str | None:
    """Say what was installed for a module: its package's version and files; None for a person's own code."""
    root = (module or "").partition(".")[0]
    if not root or root == "__main__":
        return None
    if root == OWN:
        return "own"  # the cache adds the digest of the source
    return _package(root) if root in sys.modules else None


@lru_cache(maxsize=256)
def _package(root: str) -> str | None:
    if root in sys.stdlib_module_names:
        return f"python {sys.version_info[:3]}"
    module = sys.modules[root]
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    if not any(place and Path(place).resolve().is_relative_to(folder) for place in places for folder in _site()):
        return None
    version = getattr(module, "__version__", "")
    try:
        distribution = importlib.metadata.distribution(root)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(root)
        if not names:
            return f"{root} {version}"
        distribution = importlib.metadata.distribution(names[0])
    # the record lists the digest of every file: a package installed anew at its old version is another one
    record = distribution.read_text("RECORD") or ""
    return f"{root} {distribution.version} {hashlib.sha256(record.encode()).hexdigest()}"


@lru_cache(maxsize=1)
def _site() -> tuple[Path, ...]:
    found = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()}
    found |= set(site.getsitepackages())
    return tuple(Path(folder).resolve() for folder in found)
