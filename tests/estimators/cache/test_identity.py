"""What changes L changes the key, and nothing else does."""

import copy
import functools
import importlib
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import types

import numpy as np
import pytest
import torch
from torch import nn

from estimators import Landscape, load_model
from estimators.cache._identity import describe_module, fingerprint

SOURCE = textwrap.dedent(
    '''
    import math
    import torch
    from torch import nn
    from torch.nn import functional as F

    SCALE = 2.0
    TABLE = {"a": [1.0, 2.0]}

    def deep(x):
        return x * 1.5

    def helper(x):
        return deep(x) * SCALE + TABLE["a"][1]

    class Gain:
        def __init__(self, size):
            self.size = size
        def __call__(self, x):
            return x * self.size

    class Base(nn.Module):
        factor = 1.0
        def tail(self, x):
            return x + 0.25

    class Net(Base):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a = nn.Linear(4, 6)
            self.b = nn.Linear(6, 3)
            self.body = nn.Sequential(nn.Tanh(), nn.Dropout(0.5), nn.Softplus(beta=1))
            self.register_buffer("shift", torch.zeros(6))
            self.register_buffer("hidden", torch.ones(6), persistent=False)
            self.loose = torch.ones(6)
            self.weights = [1.0, 0.5]
            self.pair = (1, 2)
            self.ratio = 0.75
            self.flag = True
            self.nothing = None
            self.gain = Gain(1.0)
            self.options = {"power": 1, "inner": {"bias": 0.0}}
            self.act = torch.tanh
            self.aside = [nn.BatchNorm1d(6).eval()]
        @property
        def slope(self):
            return 0.125
        @staticmethod
        def bend(x):
            return x.abs()
        @classmethod
        def turn(cls, x):
            return x * cls.factor
        def middle(self, x, power=1, *, lift=0.0):
            """A word about it."""
            return [v * power + lift for v in [x]][0]
        def forward(self, x):
            x = self.act(self.a(x)) * self.hidden + self.shift
            x = self.middle(self.gain(x)) * self.loose * self.weights[0] + self.slope
            x = self.turn(self.aside[0](self.tail(x)))
            return self.b(self.body(helper(x) if self.flag else self.bend(x))) * self.ratio

    def smoothed(outputs, targets, smooth=0.1, *, base=1.0):
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=smooth) * base

    def plain(outputs, targets):
        return F.cross_entropy(outputs, targets, reduction="none")

    def scaled(outputs, targets):
        return math.pi * SCALE * plain(outputs, targets)

    class Weighted(nn.Module):
        def __init__(self, weight=1.0):
            super().__init__()
            self.weight = torch.tensor(weight)
        def value(self, outputs, targets):
            return self.weight * plain(outputs, targets)
        def forward(self, outputs, targets):
            return self.value(outputs, targets)
    '''
)
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
DATA = (torch.linspace(-1, 1, 48).reshape(12, 4), torch.arange(12) % 3)


def world(*edits, file="user.py"):
    """The user's module, with pieces of its text replaced."""
    text = SOURCE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    module = types.ModuleType("users_own")
    exec(compile(text, file, "exec"), module.__dict__)
    return module


def key(model=None, data=DATA, **settings):
    return Landscape(world().Net() if model is None else model, data, **settings).fingerprint


# each row is a change of the text that makes another network
EDITS = {
    "a constant in forward's own code": ("* self.weights[0]", "* 2.0 * self.weights[0]"),
    "a helper method": ("power + lift", "power - lift"),
    "a comprehension inside a method": ("[v * power", "[v / power"),
    "a method's default": ("power=1, *", "power=2, *"),
    "a method's keyword default": ("lift=0.0", "lift=0.5"),
    "a method of a base class": ("x + 0.25", "x - 0.25"),
    "a class attribute": ("factor = 1.0", "factor = 3.0"),
    "a property": ("return 0.125", "return 0.5"),
    "a static method": ("return x.abs()", "return x.square()"),
    "a class method": ("x * cls.factor", "x / cls.factor"),
    "a helper function": ("deep(x) * SCALE", "deep(x) / SCALE"),
    "a helper of a helper": ("x * 1.5", "x * 2.5"),
    "a global number": ("SCALE = 2.0", "SCALE = 3.0"),
    "a nested global": ('"a": [1.0, 2.0]', '"a": [1.0, 3.0]'),
    "a list attribute": ("[1.0, 0.5]", "[2.0, 0.5]"),
    "a tuple attribute": ("(1, 2)", "(1, 3)"),
    "a float attribute": ("self.ratio = 0.75", "self.ratio = 0.5"),
    "a float's sign of zero": ('{"bias": 0.0}', '{"bias": -0.0}'),
    "a flag": ("self.flag = True", "self.flag = False"),
    "None": ("self.nothing = None", "self.nothing = 0"),
    "an int that becomes a float": ('"power": 1', '"power": 1.0'),
    "a plain object's attribute": ("Gain(1.0)", "Gain(2.0)"),
    "a plain object's code": ("return x * self.size", "return x + self.size"),
    "a nested dict": ('"inner": {"bias": 0.0}', '"inner": {"bias": 1.0}'),
    "a function as attribute": ("self.act = torch.tanh", "self.act = torch.sin"),
    "a setting of a submodule": ("Softplus(beta=1)", "Softplus(beta=2)"),
    "the order of submodules": ("nn.Tanh(), nn.Dropout(0.5)", "nn.Dropout(0.5), nn.Tanh()"),
    "a buffer": ("torch.zeros(6)", "torch.full((6,), 0.1)"),
    "a buffer outside the state dict": ("torch.ones(6), persistent=False", "torch.ones(6) * 2, persistent=False"),
    "a tensor attribute": ("self.loose = torch.ones(6)", "self.loose = torch.ones(6) * 2"),
    "the mode of a module that eval() does not reach": ("nn.BatchNorm1d(6).eval()", "nn.BatchNorm1d(6)"),
    "a module that is not registered": ("nn.BatchNorm1d(6)", "nn.BatchNorm1d(6, eps=0.1)"),
    "parameters": ("torch.manual_seed(0)", "torch.manual_seed(1)"),
    "an activation": ("nn.Tanh()", "nn.Sigmoid()"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_another_network_has_another_key(edit):
    assert key(world(edit).Net()) != key()


def hook(module, args, output):
    return output * 2


def other_hook(module, args, output):
    return output * 3


class Doubler:
    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return x * self.by


def changed(change):
    net = world().Net()
    change(net)
    return net


def set_forward(net, by):
    net.a.forward = functools.partial(lambda module, by, x: nn.functional.linear(x, module.weight) * by, net.a, by)


CHANGES = {
    "a forward hook": (lambda n: n.b.register_forward_hook(hook), lambda n: n.b.register_forward_hook(other_hook)),
    "where a hook sits": (lambda n: n.b.register_forward_hook(hook), lambda n: n.a.register_forward_hook(hook)),
    "two hooks": (
        lambda n: (n.b.register_forward_hook(hook), n.b.register_forward_hook(hook)),
        lambda n: n.b.register_forward_hook(hook),
    ),
    "a hook's closure": tuple(
        lambda n, by=by: n.b.register_forward_hook(lambda m, a, out: out * by) for by in (1.5, 2.5)
    ),
    "a hook before the forward": (
        lambda n: n.b.register_forward_pre_hook(lambda m, a: (a[0] * 2,)),
        lambda n: n.b.register_forward_pre_hook(lambda m, a: (a[0] * 3,)),
    ),
    "a backward hook": (
        lambda n: n.b.register_full_backward_hook(lambda m, i, o: None),
        lambda n: n.b.register_full_backward_hook(lambda m, i, o: (i[0] * 2,)),
    ),
    "a forward of its own": (lambda n: set_forward(n, 1.0), lambda n: set_forward(n, 2.0)),
    "frozen weights": (
        lambda n: n.a.requires_grad_(False),
        lambda n: n.a.requires_grad_(False).weight.data.mul_(2),
    ),
    "which parameters move": (lambda n: None, lambda n: n.a.requires_grad_(False)),
    "a parametrisation": (
        lambda n: nn.utils.parametrizations.weight_norm(n.a, dim=0),
        lambda n: nn.utils.parametrizations.weight_norm(n.a, dim=1),
    ),
    "a statistic of batch norm": (lambda n: None, lambda n: n.aside[0].running_var.mul_(2)),
    "the sign of one weight": (lambda n: None, lambda n: n.b.weight.data[1, 1].neg_()),
    "one bit of one weight": (
        lambda n: None,
        lambda n: n.b.weight.data.view(torch.int32)[0, 0].bitwise_xor_(1),
    ),
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_another_state_has_another_key(changes):
    first, second = (key(changed(change)) for change in changes)
    assert first != second


def weighted(by):
    return lambda outputs, targets: by * nn.functional.cross_entropy(outputs, targets, reduction="none")


def with_globals(**values):
    return world(*[("SCALE = 2.0", f"SCALE = {values['scale']}")]).scaled


def in_a_module(name, text):
    module = types.ModuleType(name)
    exec(text, module.__dict__)
    spread = {"helpers": module, "F": nn.functional}
    exec("def loss(o, t):\n    return helpers.inner(F.cross_entropy(o, t, reduction='none'))", spread)
    return spread["loss"]


LOSSES = {
    "a partial": [functools.partial(world().smoothed, smooth=s) for s in (0.0, 0.9)],
    "a partial's base": [functools.partial(world().smoothed, base=b) for b in (1.0, 2.0)],
    "a module": [nn.CrossEntropyLoss(reduction="none", label_smoothing=s) for s in (0.0, 0.9)],
    "a module's class weights": [
        nn.CrossEntropyLoss(torch.tensor([1.0, 1.0, w]), reduction="none") for w in (1.0, 2.0)
    ],
    "a default": [world(("smooth=0.1", f"smooth={s}")).smoothed for s in (0.1, 0.9)],
    "a keyword default": [world(("base=1.0", f"base={s}")).smoothed for s in (1.0, 2.0)],
    "a global": [with_globals(scale=s) for s in (1.0, 2.0)],
    "a closure": [weighted(s) for s in (1.0, 2.0)],
    "a tensor in a closure": [weighted(torch.tensor([1.0, s])[1]) for s in (1.0, 2.0)],
    "a large tensor in a closure": [weighted(torch.cat([torch.zeros(999), torch.tensor([s])])[-1]) for s in (1.0, 2.0)],
    "a callable object": [world().Weighted(w) for w in (1.0, 2.0)],
    "a bound method": [world().Weighted(w).value for w in (1.0, 2.0)],
    "a method it calls": [world(("return self.weight *", f"return {s} * self.weight *")).Weighted() for s in (2, 3)],
    "a function of a module of the user's": [
        in_a_module("helpers", f"def inner(x):\n    return x * {s}") for s in (2, 3)
    ],
    "a number in a module of the user's": [
        in_a_module("helpers", f"by = {s}\ndef inner(x):\n    return x * by") for s in (2, 3)
    ],
}


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES.keys())
def test_another_loss_has_another_key(losses):
    assert fingerprint(losses[0]) != fingerprint(losses[1])
    assert fingerprint(losses[0]) == fingerprint(losses[0])


def test_another_loss_gives_another_map(tmp_path):
    """The reported case: a smoothed map came back as the plain one."""
    from estimators import SurfaceMapper

    maps = [
        SurfaceMapper(loss=functools.partial(world().smoothed, smooth=s), resolution=3, memory=str(tmp_path))
        .fit(world().Net(), DATA)
        .losses_
        for s in (0.0, 0.9)
    ]
    assert not np.allclose(*maps)


SETTINGS = [
    {"loss": "mse"},
    {"batch_size": 5},
    {"precision": "float64"},
    {"batch_norm": "batch"},
    {"parameters": "2.*"},
    {"points_per_pass": 2},
    {"data": (DATA[0] + 1e-6, DATA[1])},
    {"data": (DATA[0], DATA[1].roll(1))},
    {"data": (DATA[0][:-1], DATA[1][:-1])},
    {"data": (DATA[0].flip(0), DATA[1].flip(0))},
]


def test_every_setting_of_a_landscape_has_a_key_of_its_own():
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    keys = [key(net), *(key(net, **settings) for settings in SETTINGS)]
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        keys.append(key(net))
    finally:
        torch.set_float32_matmul_precision(before)
    assert len(set(keys)) == len(SETTINGS) + 2


def same(change):
    net = world().Net()
    return change(net) or net


SAME = {
    "built anew": lambda n: world().Net(),
    "its code in another file and on other lines": lambda n: world(("SCALE = 2.0", "\n\nSCALE = 2.0"), file="b").Net(),
    "a copy": copy.deepcopy,
    "training mode": lambda n: n.train() and None,
    "evaluation mode": lambda n: n.eval() and None,
    "gradients that were computed": lambda n: n(DATA[0]).sum().backward(),
    "a hook that is gone": lambda n: n.a.register_forward_hook(hook).remove(),
    "where it comes from": lambda n: n.__dict__.update(
        provenance={"architecture": "net", "weights": "file a", "notes": []}
    ),
    "attributes set in another order": lambda n: n.__dict__.update(ratio=n.__dict__.pop("ratio")),
    "weights in another memory layout": lambda n: n.a.__dict__["_parameters"].update(
        weight=nn.Parameter(n.a.weight.data.t().contiguous().t())
    ),
    "a list that is another one": lambda n: n.__dict__.update(weights=list(n.weights)),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_the_same_network_has_the_same_key(change):
    assert key(same(change)) == key()


def test_freezing_does_not_count_where_the_parameters_are_named():
    frozen = same(lambda n: n.a.requires_grad_(False) and None)
    assert describe_module(frozen) == describe_module(world().Net())


def test_other_examples_objects_and_equal_losses_have_the_same_key():
    assert key(data=(DATA[0].numpy().copy(), DATA[1].numpy().copy())) == key()
    assert fingerprint(weighted(2.0)) == fingerprint(weighted(2.0))
    assert fingerprint(functools.partial(world().smoothed, smooth=0.3)) == fingerprint(
        functools.partial(world().smoothed, smooth=0.3)
    )
    assert fingerprint(world().Weighted(2.0)) == fingerprint(copy.deepcopy(world().Weighted(2.0)))
    assert fingerprint(DATA[0], DATA[0]) == fingerprint(DATA[0], DATA[0].clone())
    assert fingerprint({"b", "a", "c"}) == fingerprint({"c", "b", "a"})
    assert fingerprint(np.float64(2.0), np.int64(3)) == fingerprint(2.0, 3)


SCRIPT = """
import sys
import torch, timm
from torch import nn
from estimators import Landscape, load_model
from estimators.cache import describe_module, fingerprint
sys.path.insert(0, {folder!r})
import users_net
keys = [describe_module(load_model(name, num_classes=5, random_state=3)) for name in {names!r}]
keys.append(Landscape(users_net.Net(), (torch.linspace(-1, 1, 48).reshape(12, 4), torch.arange(12) % 3)).fingerprint)
keys += [fingerprint(users_net.smoothed), fingerprint(users_net.scaled), fingerprint(users_net.Weighted(2.0))]
keys += [fingerprint({{"one", "two", "three"}}), fingerprint(nn.CrossEntropyLoss(label_smoothing=0.1))]
print(" ".join(keys))
"""


def test_another_process_finds_the_same_keys(tmp_path):
    names = ["resnet18", "test_resnet", "test_vit", "test_convnext", "test_efficientnet", "levit_128s"]
    (tmp_path / "users_net.py").write_text(SOURCE)
    script = SCRIPT.format(folder=str(tmp_path), names=names)
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env=ENVIRONMENT | {"PYTHONHASHSEED": h},
        ).stdout.split()
        for h in ("1", "2")
    ]
    assert len(outputs[0]) == len(set(outputs[0])) == len(names) + 6
    assert outputs[0] == outputs[1]
    assert outputs[0][: len(names)] == [describe_module(load_model(n, num_classes=5, random_state=3)) for n in names]


def test_a_network_from_a_file_or_after_use_has_the_same_key(tmp_path):
    model = load_model("levit_128s", num_classes=5, image_size=None)
    before = describe_module(model)
    model.eval()(torch.zeros(1, 3, 224, 224))  # which keeps attention biases in evaluation mode
    assert describe_module(model) == before
    assert describe_module(pickle.loads(pickle.dumps(model))) == before


@pytest.mark.parametrize(
    "line",
    ["from .inner import act", "from . import inner; act = inner.act", "import users_package.inner as i; act = i.act"],
)
def test_what_a_function_imports_when_it_runs_counts(tmp_path, monkeypatch, line):
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "users_package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "outer.py").write_text(f"def loss(o, t):\n    {line}\n    return act(o)\n")
    keys = []
    for by in (2, 3, 3):
        for name in [name for name in sys.modules if name.startswith("users_package")]:
            monkeypatch.delitem(sys.modules, name)
        (folder / "inner.py").write_text(f"def act(x):\n    return x * {by}\n")
        importlib.invalidate_caches()
        importlib.import_module("users_package.inner")
        keys.append(fingerprint(importlib.import_module("users_package.outer").loss))
    assert keys[0] != keys[1] == keys[2]


def test_what_cannot_be_described_is_never_found_again():
    def numbers():
        yield 1

    running = numbers()
    loss = functools.partial(lambda source, outputs, targets: outputs, running)
    with pytest.warns(UserWarning, match="nothing that depends on it is taken from the cache"):
        first = fingerprint(loss)
    with pytest.warns(UserWarning, match="generator"):
        assert fingerprint(loss) != first


def test_a_lock_a_generator_and_a_cycle_can_be_described(recwarn):
    net = world().Net()
    net.lock, net.generator = threading.Lock(), torch.Generator().manual_seed(3)
    net.itself = [net]
    other = world().Net()
    other.lock, other.generator = threading.Lock(), torch.Generator().manual_seed(3)
    other.itself = [other]
    assert describe_module(net) == describe_module(other)
    other.generator.manual_seed(4)
    assert describe_module(net) != describe_module(other)
    assert not recwarn.list


def test_a_method_put_into_an_installed_class_counts(monkeypatch):
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    before = describe_module(net)
    monkeypatch.setattr(nn.Tanh, "forward", lambda self, x: x * 2)
    assert describe_module(net) != before


def test_a_compiled_network_counts_by_the_one_inside():
    def compiled(by):
        return torch.compile(world(("SCALE = 2.0", f"SCALE = {by}")).Net())

    assert describe_module(compiled(2.0)) == describe_module(compiled(2.0)) != describe_module(compiled(3.0))


def test_hooks_of_the_whole_process_count():
    net = nn.Linear(2, 2)
    before = describe_module(net)
    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        assert describe_module(net) != before
    finally:
        handle.remove()
    assert describe_module(net) == before


@pytest.mark.parametrize("make", ["trace", "graph"])
def test_networks_made_of_graphs_count_by_their_graph(make):
    class Times(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by

        def forward(self, x):
            return x * self.by

    def built(by):
        with torch.no_grad():
            return torch.jit.trace(Times(by), torch.ones(2)) if make == "trace" else torch.fx.symbolic_trace(Times(by))

    net = built(2.0)
    assert describe_module(net) == describe_module(net) != describe_module(built(3.0))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.bool, torch.int8, torch.uint8]
)
def test_tensors_of_every_type_count_by_content(dtype):
    t = torch.tensor([[1, 0], [1, 1]]).to(dtype)
    changed = t.clone()
    changed[0, 1] = 1
    assert fingerprint(t) == fingerprint(t.clone()) == fingerprint(t.T.contiguous().T) != fingerprint(changed)
    assert fingerprint(t[:0]) != fingerprint(t[:, :0])
    assert fingerprint(t) != fingerprint(t[0, 0]) == fingerprint(t[1, 1].clone())


def test_a_conjugate_and_a_sparse_tensor_count_by_content():
    z = torch.tensor([1 + 2j, 3 - 1j])
    assert fingerprint(z.conj()) == fingerprint(z.conj().resolve_conj()) != fingerprint(z)
    assert fingerprint(torch.eye(3).to_sparse()) == fingerprint(torch.eye(3).to_sparse())
    assert fingerprint(torch.eye(3).to_sparse()) != fingerprint((2 * torch.eye(3)).to_sparse())


def test_large_tensors_are_hashed_in_pieces_and_every_piece_counts():
    big = torch.zeros(3 * 2**20)
    keys = {fingerprint(big)}
    for place in (0, 2**18, 2**20, 2**21 + 5, 3 * 2**20 - 1):
        other = big.clone()
        other[place] = 1
        keys.add(fingerprint(other))
    assert len(keys) == 6
