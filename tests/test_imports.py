"""The arrows of the layout: who may import whom, read from the source (nothing is executed)."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

from tests import import_graph

ROOT = Path(__file__).resolve().parents[1]
STANDARD = set(sys.stdlib_module_names)
# Extras: imported where they are used, and the function says which extra to install when they are missing.
OPTIONAL = {"estimators/core/planes/topology.py": ["gudhi"]}


def imported(path: Path) -> set[str]:
    """Return the full names of the modules a file imports, relative ones made absolute."""
    package = path.relative_to(ROOT).parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def files(folder: str) -> list[Path]:
    """Return the Python files under a folder."""
    return sorted((ROOT / folder).rglob("*.py"))


def offenders(folder: str, wrong) -> dict[str, list[str]]:
    """Return what each file of a folder imports against a rule."""
    found = {}
    for path in files(folder):
        bad = sorted(name for name in imported(path) if wrong(name))
        if bad:
            found[str(path.relative_to(ROOT))] = bad
    return found


def top(name: str) -> str:
    """Return the first part of a dotted name."""
    return name.partition(".")[0]


def test_core_is_torch_numpy_and_scipy_only():
    allowed = STANDARD | {"torch", "numpy", "scipy", "estimators"}
    found = offenders("estimators/core", lambda name: top(name) not in allowed)
    assert {path: names for path, names in found.items() if names != OPTIONAL.get(path)} == {}


def test_core_does_not_look_up_at_the_estimators():
    def looks_up(name: str) -> bool:
        return top(name) == "estimators" and not name.startswith("estimators.core") and name != "estimators"

    assert offenders("estimators/core", looks_up) == {}


@pytest.mark.parametrize("name", ["streamlit", "altair", "app"])
def test_estimators_know_nothing_of_the_app(name):
    assert offenders("estimators", lambda found: top(found) == name) == {}


@pytest.mark.parametrize("name", ["torch", "streamlit", "timm", "estimators"])
def test_charts_are_pure(name):
    assert offenders("app/charts", lambda found: top(found) == name) == {}


def test_pages_never_import_torch():
    assert offenders("app/pages", lambda name: top(name) in ("torch", "timm")) == {}


def test_texts_depend_on_nothing():
    allowed = STANDARD | {"app", "__future__"}
    assert offenders("app/texts", lambda name: top(name) not in allowed) == {}


def test_what_home_needs_is_imported_without_torch():
    """Home must be on screen while torch still loads: nothing it imports at the top may pull torch in."""
    reached, queue = set(), ["app.main", "app.pages.home.page"]
    while queue:
        name = queue.pop()
        path = ROOT / Path(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in reached or not path.is_file():
            continue
        reached.add(name)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # module level only
            if isinstance(node, ast.Import):
                queue += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                queue += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        tops = {top(name) for name in queue}
        assert not tops & {"torch", "timm", "estimators"}, f"{name} pulls in the engine at import"
    assert "app.charts.surface" in reached


def test_the_rules_can_fail(tmp_path, monkeypatch):
    """The reader sees plain, from and relative imports, also inside functions."""
    this = sys.modules[__name__]
    bad = tmp_path / "app" / "pages" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("from ..charts import x\ndef f():\n    import torch.nn as nn\n")
    monkeypatch.setattr(this, "ROOT", tmp_path)
    assert this.imported(bad) == {"app.charts", "app.charts.x", "torch.nn"}
    assert this.offenders("app/pages", lambda name: top(name) == "torch") == {"app/pages/bad.py": ["torch.nn"]}


# ---- the house: floors, circles, rooms, what the app may touch ----


def test_there_is_no_circle_of_imports():
    assert import_graph.circles(import_graph.graph()) == []


def test_nothing_imports_upwards():
    edges = import_graph.graph()
    upwards = [
        (name, other)
        for name, others in edges.items()
        if name.startswith("estimators")
        for other in others
        if import_graph.floor_of(other) > import_graph.floor_of(name)
    ]
    assert upwards == []


def test_rooms_of_questions_do_not_import_each_other():
    strangers = [
        (name, other)
        for name, others in import_graph.graph().items()
        for other in others
        if (room := import_graph.room_of(name)) and (there := import_graph.room_of(other)) and room != there
        if room not in import_graph.COMPOSING or other != there  # those that compose use what a room hands out
    ]
    assert strangers == []


def test_a_private_file_is_imported_in_its_own_room_only():
    intruders = [
        (name, other)
        for name, others in import_graph.graph().items()
        for other in others
        if other.rpartition(".")[2].startswith("_") and not f"{name}.".startswith(other.rpartition(".")[0] + ".")
    ]
    assert intruders == []


def test_the_app_imports_only_what_the_engine_hands_out():
    allowed = {
        module: set(importlib.import_module(module).__all__)
        for module in ("estimators", "estimators.experiments", "estimators.variants")
    }
    wrong = [
        (str(path.relative_to(ROOT)), module, name)
        for path in files("app")
        for module, name in import_graph.imports_of(path)
        if top(module) == "estimators" and name  # `import estimators` uses attributes: those are checked below
        if f"{module}.{name}" not in allowed and name not in allowed.get(module, ())
    ]
    attributes = [
        (str(path.relative_to(ROOT)), node.attr)
        for path in files("app")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "estimators"
        if node.attr not in allowed["estimators"] and f"estimators.{node.attr}" not in allowed
    ]
    assert (wrong, attributes) == ([], [])


def test_a_long_file_says_why():
    silent = [
        str(path.relative_to(ROOT))
        for folder in ("estimators", "app")
        for path in files(folder)
        if len(path.read_text(encoding="utf-8").splitlines()) > 400
        and "long because"
        not in " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").lower().split())
    ]
    assert silent == []


def test_a_circle_and_an_upward_import_are_seen():
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert import_graph.circles(edges) == [["a", "b", "c"]]
    assert import_graph.circles({"a": {"b"}, "b": set()}) == []
    assert import_graph.floor_of("estimators.core.paths.bends") == 0
    assert import_graph.floor_of("estimators.surface._mapper") == import_graph.floor_of("estimators.sharpness")
    assert import_graph.floor_of("estimators.averaging") > import_graph.floor_of("estimators.surface._mapper")
    assert import_graph.room_of("estimators.surface._mapper") == "estimators.surface"
    assert import_graph.room_of("estimators.core.saddles.race") is None
