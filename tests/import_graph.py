"""The picture of imports: which module imports which, read from the source (nothing is executed).

``python -m tests.import_graph`` prints it: a line for each module with what it imports of ours, floor by floor, then
the circles (there must be none). ``TYPE_CHECKING`` imports and imports inside functions count.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("estimators", "app")

# From the ground up: a module imports its own floor or a lower one, never a higher one.
FLOORS = (
    ("estimators.core",),
    (
        "estimators.archives",
        "estimators.checks",
        "estimators.progress",
        "estimators.cache",
        "estimators.npz",
        "estimators.temporary",
        "estimators.workers",
        "estimators.writing",
    ),
    (
        "estimators.results",
        "estimators.budget",
        "estimators.data",
        "estimators.models",
        "estimators.resuming",
        "estimators.training",
        "estimators.recorder",
        "estimators.variants",
    ),
    ("estimators.landscape", "estimators.memory", "estimators.card"),
    ("estimators.points", "estimators.pace", "estimators.base", "estimators.sampling"),
    tuple(f"estimators.{room}" for room in ("curvature", "sharpness", "surface", "connectivity", "saddles")),
    ("estimators.averaging", "estimators.architectures"),
    ("estimators.experiments", "estimators.known"),
    ("estimators",),
)
ROOMS = tuple(name for floor in FLOORS[5:7] for name in floor)
COMPOSING = FLOORS[6]


def name_of(path: Path) -> str:
    """Return the dotted name of a source file; a package's is its folder's."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, *, top_level_only: bool = False) -> list[tuple[str, str]]:
    """List what a file imports as (module, name) pairs, relative ones made absolute; (module, "") for `import m`."""
    package = path.relative_to(ROOT).parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            found += [(module, alias.name) for alias in node.names]
    return found


@lru_cache(maxsize=4)
def graph(root: Path | None = None) -> dict[str, set[str]]:
    """Map each module of ours to the modules of ours it imports."""
    files = {name_of(p): p for package in PACKAGES for p in sorted(((root or ROOT) / package).rglob("*.py"))}
    return {
        name: {t for module, item in imports_of(path) for t in [_target(module, item, files)] if t} - {name}
        for name, path in files.items()
    }


def _target(module: str, item: str, files: dict[str, Path]) -> str | None:
    whole = f"{module}.{item}"
    return whole if item and whole in files else module if module in files else None


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """List the groups of modules that import each other, directly or in a round (Tarjan's components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges.get(name, ()):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for name in edges:
        if name not in index:
            visit(name)
    return found


def floor_of(module: str) -> int:
    """Return the floor a module of `estimators` stands on: that of the longest name in FLOORS it begins with."""
    places = [(name, i) for i, floor in enumerate(FLOORS) for name in floor if f"{module}.".startswith(f"{name}.")]
    return max(places, key=lambda place: len(place[0]))[1]


def room_of(module: str) -> str | None:
    """Return the room of a question that a module belongs to, if any."""
    return next((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), None)


def main() -> None:
    """Print the picture."""
    edges = graph()
    for name in sorted(edges, key=lambda n: (n.startswith("app"), floor_of(n) if not n.startswith("app") else 0, n)):
        floor = f"{floor_of(name)} " if not name.startswith("app") else "  "
        print(f"{floor}{name:48} -> {' '.join(sorted(edges[name])) or '-'}")
    print(f"{len(edges)} modules, {sum(map(len, edges.values()))} imports, circles: {circles(edges) or 'none'}")


if __name__ == "__main__":
    main()
