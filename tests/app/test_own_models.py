"""`loss-atlas --import`: the module printed in docs/own-models.md, and modules that cannot be taken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from app import __main__ as launcher
from app import catalog, own_models
from estimators import save_checkpoint
from tests.app.test_frame import page

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("resnet20_cifar", "resnet56_cifar")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The documented module as a file under a name of its own; forgotten afterwards."""
    name = f"my_models_{tmp_path.name[-1]}_{abs(hash(tmp_path)) % 10**6}"
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "own-models.md").read_text(encoding="utf-8"), re.S)[1]
    file = tmp_path / f"{name}.py"
    file.write_text(code, encoding="utf-8")
    with forgotten(monkeypatch):
        yield file


class forgotten:
    """Undo what an import leaves in timm's registry, in the lists and on the path."""

    def __init__(self, monkeypatch):
        self.patch = monkeypatch

    def __enter__(self):
        self.patch.setattr(sys, "path", list(sys.path))
        self.patch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        self.patch.setattr(own_models, "_FOLDERS", {})
        self.known = set(timm.list_models())
        self.clear()

    def __exit__(self, *_):
        from timm.models import _registry

        for name in set(timm.list_models()) - self.known:
            _registry._clear_model_entries(name)
            del _registry._model_entrypoints[name]
        self.clear()

    @staticmethod
    def clear():
        catalog.architectures.cache_clear()


def test_the_documented_module_joins_every_list(module, tmp_path):
    assert own_models.import_models(str(module)) == NAMES
    assert set(NAMES) <= set(catalog.architectures())
    assert catalog.check_architecture("resnet20_cifar") is None
    network = catalog.PointSpec("resnet20_cifar", num_classes=7).load()
    assert network.provenance["architecture"] == "resnet20_cifar"
    assert sum(p.numel() for p in timm.create_model("resnet20_cifar").parameters()) == 269_722
    assert sum(p.numel() for p in timm.create_model("resnet56_cifar").parameters()) == 853_018
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)

    at = page("workbench")
    at.session_state["workbench.architecture"] = "resnet20_cifar"
    at.run()
    assert not at.exception and not at.error
    assert "resnet20_cifar" in at.selectbox(key="workbench.architecture").options
    assert not at.button(key="workbench.run").disabled


def test_a_published_checkpoint_and_its_script(module, tmp_path):
    """As people publish them: a dict with the accuracy, keys prefixed `module.`; the script runs in a new process."""
    own_models.import_models(str(module))
    made = timm.create_model("resnet20_cifar")
    published = {"best_prec1": 91.7, "state_dict": {f"module.{k}": v for k, v in made.state_dict().items()}}
    torch.save(published, tmp_path / "resnet20.th")
    point = catalog.PointSpec("resnet20_cifar", f"file:{tmp_path / 'resnet20.th'}")
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(point.load()(x), made.eval()(x))
    lines = point.code().splitlines()
    assert lines[0] == f"import sys; sys.path.append({str(tmp_path)!r})" and lines[1].startswith(
        f"import {module.stem}"
    )
    script = "\n".join(["from estimators import load_model", *lines, "print(type(model).__module__)"])
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert answer.stdout.strip() == module.stem, answer.stderr
    assert catalog.PointSpec("test_resnet").code().startswith("model = load_model('test_resnet'")


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("broken.py", "x = (", r"got '.*broken\.py': SyntaxError"),
        ("fails.py", "import timm\n\n1 / 0\n", r"ZeroDivisionError: division by zero \(fails\.py, line 3\)"),
        ("leaves.py", "raise SystemExit(3)", "SystemExit: 3"),
        ("empty_one.py", "x = 1", "must register an architecture by timm.models.register_model, got none in"),
        ("json.py", "x = 1", "must be a file with a name of its own, got 'json.py'"),
        ("my-nets.py", "x = 1", "must be a file with a name of its own, got 'my-nets.py'"),
    ],
)
def test_a_module_that_cannot_be_taken_is_one_sentence(tmp_path, monkeypatch, capsys, name, code, message):
    (tmp_path / name).write_text(code)
    with forgotten(monkeypatch), pytest.raises(SystemExit):
        launcher.main(["--import", str(tmp_path / name)])
    said = capsys.readouterr().err
    assert re.search(message, said) and "Traceback" not in said


def test_a_module_that_is_not_there(capsys, monkeypatch):
    for given, message in (("no_such_module_here", "ModuleNotFoundError"), ("/no/such/file.py", "which is no file")):
        with forgotten(monkeypatch), pytest.raises(SystemExit):
            launcher.main(["--import", given])
        assert message in capsys.readouterr().err


def test_a_trained_network_of_ones_own_is_kept_and_read(module, tmp_path):
    own_models.import_models(str(module))
    from app.workspace import library

    path = save_checkpoint(tmp_path / "a.safetensors", timm.create_model("resnet20_cifar").state_dict())
    kept = library.add_checkpoint(
        path, {"name": "mine", "architecture": "resnet20_cifar", "num_classes": 10, "image_size": 32}
    )
    assert catalog.PointSpec.from_checkpoint(kept).load().linear.out_features == 10
