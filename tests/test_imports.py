"""The arrows of the layout: who may import whom, read from the source (nothing is executed)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

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
