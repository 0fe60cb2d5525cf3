"""Each architecture change does what it claims, and says so when it can't."""

from __future__ import annotations

import copy
import operator

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn

from estimators.variants import (
    CHANGES,
    apply_changes,
    norm_layers,
    parse_change,
    residual_sums,
    with_depth,
    with_dropout,
    with_norm,
    with_width,
    without_norm,
    without_skips,
)
from estimators.variants.norms import Affine
from estimators.variants.skips import example_input


def build(name: str, **kwargs) -> nn.Module:
    if "vit" in name:
        kwargs["img_size"] = 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(name, num_classes=10, **kwargs).eval()


def forward(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(example_input(model))


def fx_additions(model: nn.Module) -> int:
    """Count additions of two traced values, a second opinion that shares no code with residual_sums."""
    graph = torch.fx.symbolic_trace(model).graph
    adds = [n for n in graph.nodes if n.target in (operator.add, operator.iadd, torch.add, "add", "add_")]
    return sum(all(isinstance(a, torch.fx.Node) and a.op != "get_attr" for a in n.args[:2]) for n in adds)


# --- skips ---

SKIPS = {
    "resnet18": 8,
    "resnet26": 8,
    "test_resnet": 4,
    "deep_thin_resnet": 28,
    "test_convnext": 9,
    "test_vit": 12,
}


@pytest.mark.parametrize(("name", "sums"), SKIPS.items())
def test_without_skips_leaves_no_residual_sum(name, sums):
    model = build(name)
    assert len(residual_sums(model)) == sums
    plain = without_skips(model)
    assert residual_sums(plain) == ()
    assert len(residual_sums(model)) == sums, "the caller's model must not change"
    if name != "test_vit":  # torch.fx can't follow timm's attention
        assert fx_additions(model) == sums
        assert fx_additions(plain) == 0
    out = forward(plain)
    assert out.shape == (2, 10)
    assert torch.isfinite(out).all()
    assert not torch.allclose(out[0], out[1], atol=1e-6), "the plain network still depends on its input"


@pytest.mark.parametrize("name", ["resnet18", "deep_thin_resnet", "test_resnet"])
def test_without_skips_keeps_down_sampling_and_trains_every_layer(name):
    model = build(name)
    plain = without_skips(model)
    x = example_input(model)
    assert plain.forward_features(x).shape == model.forward_features(x).shape
    plain.train()
    loss = nn.functional.cross_entropy(plain(torch.randn(8, 3, 32, 32)), torch.arange(8))
    loss.backward()
    dead = [n for n, p in plain.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == [], "a zero-initialised gain would leave layers without a gradient"


def test_without_skips_computes_the_branches_alone():
    model = build("test_vit")
    block = model.blocks[0]
    plain = without_skips(model).blocks[0]
    x = torch.randn(2, 5, 64)
    torch.testing.assert_close(plain(x), block.mlp(block.norm2(block.attn(block.norm1(x)))))
    convnext = build("test_convnext")
    block, plain = convnext.stages[1].blocks[0], without_skips(convnext).stages[1].blocks[0]
    x = torch.randn(2, 32, 4, 4)
    gamma = 1.0 if block.gamma is None else block.gamma.view(1, -1, 1, 1)
    torch.testing.assert_close(plain(x) * gamma, block(x) - x, atol=1e-5, rtol=1e-4)


def test_without_skips_keeps_names_so_that_weights_still_fit():
    model = build("test_resnet")
    plain = without_skips(model)
    missing, unexpected = plain.load_state_dict(model.state_dict(), strict=False)
    assert missing == []
    assert unexpected and all("downsample" in key for key in unexpected)


def test_without_skips_switches_efficientnet_skips_off():
    model = build("efficientnet_lite0")
    assert len(residual_sums(model)) > 0
    assert residual_sums(without_skips(model)) == ()


def test_position_embedding_is_not_a_residual_sum():
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.ones(1, 3, 1, 1))
            self.layer = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.layer(x + self.position)

    model = Embedded()
    assert residual_sums(model, torch.randn(1, 3, 4, 4)) == ()

    class Residual(Embedded):
        def forward(self, x):
            return x + self.layer(x)

    assert residual_sums(Residual(), torch.randn(1, 3, 4, 4)) == ("",)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_byobnet", "test_vit3"])
def test_without_skips_refuses_by_name(name):
    with pytest.raises(ValueError, match=r"without_skips must be applied to .* got '(EfficientNet|ByobNet|Vision)"):
        without_skips(build(name))


def test_without_skips_twice_is_refused():
    with pytest.raises(ValueError, match=r"without any"):
        without_skips(without_skips(build("test_convnext")))


# --- norms ---

NORMED = [
    "resnet18",
    "test_resnet",
    "deep_thin_resnet",
    "test_convnext",
    "test_vit",
    "test_efficientnet",
    "test_efficientnet_gn",
    "test_efficientnet_ln",
]


@pytest.mark.parametrize("name", NORMED)
def test_without_norm_leaves_no_norm_and_every_parameter(name):
    model = build(name)
    bare = without_norm(model)
    assert norm_layers(model) and norm_layers(bare) == {}
    assert [(n, p.shape) for n, p in bare.named_parameters()] == [(n, p.shape) for n, p in model.named_parameters()]
    assert sum(isinstance(m, Affine) for m in bare.modules()) == len(norm_layers(model))
    assert torch.isfinite(forward(bare)).all()
    # Without statistics an example's output no longer depends on its neighbours, even in training mode.
    bare.train()
    x = example_input(bare, 4)
    torch.testing.assert_close(bare(x)[:1], bare(x[:1]), atol=1e-4, rtol=1e-3)


def test_affine_scales_the_right_axis():
    layer = Affine(3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        layer.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    x = torch.ones(2, 3, 4, 4)
    assert layer(x)[0, :, 0, 0].tolist() == [1.0, 3.0, 5.0]
    layer.channels_last = True
    assert layer(torch.ones(2, 4, 3))[0, 0].tolist() == [1.0, 3.0, 5.0]


@pytest.mark.parametrize(("kind", "twin"), [("group", "test_efficientnet_gn"), ("layer", "test_efficientnet_ln")])
def test_with_norm_equals_timms_own_variant(kind, twin):
    model, own = build("test_efficientnet"), build(twin)
    changed = with_norm(model, kind)
    assert sum(p.numel() for p in changed.parameters()) == sum(p.numel() for p in own.parameters()) == 101_766
    changed.load_state_dict(own.state_dict())
    torch.testing.assert_close(forward(changed), forward(own))
    back = with_norm(own, "batch")
    back.load_state_dict(model.state_dict())
    torch.testing.assert_close(forward(back), forward(model))


@pytest.mark.parametrize("name", ["resnet18", "resnet26", "deep_thin_resnet", "test_convnext"])
@pytest.mark.parametrize("kind", ["batch", "group", "layer"])
def test_with_norm_changes_every_layer_and_no_gain(name, kind):
    model = build(name)
    changed = with_norm(model, kind)
    assert set(norm_layers(changed).values()) == {kind}
    assert len(norm_layers(changed)) == len(norm_layers(model))
    assert sum(p.numel() for p in changed.parameters()) == sum(p.numel() for p in model.parameters())
    zero_gains = sum(1 for n, p in model.named_parameters() if p.dim() == 1 and "weight" in n and not p.any())
    assert zero_gains == sum(1 for n, p in changed.named_parameters() if p.dim() == 1 and "weight" in n and not p.any())
    assert torch.isfinite(forward(changed)).all()


def test_group_norm_never_takes_groups_of_one():
    narrow = with_norm(with_width(build("test_resnet"), 0.125), "group")
    groups = [m for m in narrow.modules() if isinstance(m, nn.GroupNorm)]
    assert groups
    assert all(g.num_channels // g.num_groups > 1 or g.num_channels == 1 for g in groups)


def test_norm_changes_refuse_by_name():
    with pytest.raises(ValueError, match=r"kind must be one of .*got 'instance'"):
        with_norm(build("test_resnet"), "instance")
    with pytest.raises(ValueError, match=r"'layer' for a network that normalises tokens, got 'batch'"):
        with_norm(build("test_vit"), "batch")
    with pytest.raises(ValueError, match=r"EvoNorm2dS0"):
        without_norm(build("test_efficientnet_evos"))
    with pytest.raises(ValueError, match=r"'NormFreeNet' with no norm layer"):
        with_norm(build("test_nfnet"), "batch")


# --- dropout ---


@pytest.mark.parametrize("name", ["resnet18", "test_resnet", "test_convnext", "test_vit", "efficientnet_lite0"])
def test_with_dropout_equals_timms_arguments(name):
    changed = with_dropout(build(name), 0.3, 0.2)
    own = build(name, drop_rate=0.3, drop_path_rate=0.2)
    rates = [[m.drop_prob for m in x.modules() if isinstance(m, DropPath)] for x in (changed, own)]
    assert rates[0] == pytest.approx(rates[1])
    assert [m.p for m in changed.modules() if isinstance(m, nn.Dropout)] == [
        m.p for m in own.modules() if isinstance(m, nn.Dropout)
    ]
    assert getattr(changed, "drop_rate", None) == getattr(own, "drop_rate", None)
    own.load_state_dict(changed.state_dict())
    for seed in (1, 2):
        outputs = []
        for model in (copy.deepcopy(changed).train(), copy.deepcopy(own).train()):
            torch.manual_seed(seed)
            outputs.append(model(torch.ones(2, 3, 32, 32)))
        torch.testing.assert_close(*outputs)
    off = with_dropout(changed, 0.0, 0.0)
    assert not any(isinstance(m, DropPath) for m in off.modules())


def test_with_dropout_is_silent_in_eval_mode_and_acts_in_training():
    model = build("test_resnet")
    dropped = with_dropout(model, 0.5)
    torch.testing.assert_close(forward(dropped), forward(model))
    x = torch.randn(8, 3, 32, 32)
    dropped.train()
    assert not torch.allclose(dropped(x), dropped(x))


@pytest.mark.parametrize("name", ["deep_thin_resnet", "test_efficientnet_gn", "test_efficientnet_ln"])
def test_with_dropout_on_other_networks_sets_the_head(name):
    assert with_dropout(build(name), 0.3).drop_rate == 0.3


def test_with_dropout_refuses():
    with pytest.raises(ValueError, match=r"p must be a number in \[0, 1\), got 1"):
        with_dropout(build("test_resnet"), 1.0)
    with pytest.raises(ValueError, match=r"drop_path must be 0 for a network without residual sums"):
        with_dropout(without_skips(build("test_resnet")), 0.1, 0.1)
    with pytest.raises(ValueError, match=r"got 'Sequential'"):
        with_dropout(nn.Sequential(nn.Conv2d(3, 4, 3)), 0.1)


# --- width and depth ---


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "deep_thin_resnet",
        "test_convnext",
        "test_vit",
        "test_efficientnet",
        "test_efficientnet_gn",
        "test_efficientnet_ln",
    ],
)
@pytest.mark.parametrize("factor", [0.25, 2.0])
def test_with_width_scales_every_stage_and_keeps_depth(name, factor):
    model = build(name)
    wide = with_width(model, factor)
    weights = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    scaled = [m for m in wide.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weights) == len(scaled)
    ratio = sum(p.numel() for p in wide.parameters()) / sum(p.numel() for p in model.parameters())
    assert 0.75 * factor**2 < ratio < 2.5 * factor**2 if factor < 1 else 3.0 < ratio < 4.2
    assert forward(wide).shape == (2, 10)


def test_with_width_keeps_the_plain_stem_of_timm():
    half = with_width(build("resnet18"), 0.5)
    assert half.conv1.out_channels == 64
    assert half.layer4[1].conv2.out_channels == 256
    assert with_width(half, 2.0).layer4[1].conv2.out_channels == 512, "a ResNet's width can be set again"


def test_builders_are_seeded_and_leave_the_global_generator_alone():
    model = build("test_resnet")
    state = torch.random.get_rng_state()
    first, again, other = (with_width(model, 0.5, random_state=s) for s in (3, 3, 4))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first.conv1[0].weight, again.conv1[0].weight)
    assert not torch.equal(first.conv1[0].weight, other.conv1[0].weight)


def test_with_depth_sets_timms_block_counts():
    assert [
        len(with_depth(build("resnet18"), (1, 2, 3, 1)).layer3),
        len(with_depth(build("resnet26"), 1).layer1),
    ] == [3, 1]
    assert [len(s.blocks) for s in with_depth(build("test_convnext"), 2).stages] == [2, 2, 2, 2]
    assert len(with_depth(build("test_vit"), 3).blocks) == 3
    deep = with_depth(build("deep_thin_resnet"), 9)
    assert [len(getattr(deep, f"layer{i}")) for i in (1, 2, 3, 4)] == [9] * 4
    assert isinstance(deep.maxpool, nn.Identity)


def test_deep_thin_resnet_is_deep_and_thin():
    model = build("deep_thin_resnet", blocks=5, width=8)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convs) == 3 + 2 * 4 * 5
    assert max(c.out_channels for c in convs) == 16
    assert model.layer1(model.act1(model.bn1(model.conv1(torch.randn(1, 3, 32, 32))))).shape[-1] == 16
    with pytest.raises(ValueError, match=r"pretrained must be False"):
        timm.create_model("deep_thin_resnet", pretrained=True)


def test_thin_resnet_spans_few_to_many_parameters_an_example():
    counts = [sum(p.numel() for p in with_width(build("thin_resnet"), f).parameters()) for f in (0.25, 1, 8)]
    assert counts[0] < 1437 < counts[1] < counts[2]
    assert counts[2] / counts[0] > 500


def test_thin_vgg_has_no_skips_and_about_the_weights_of_a_shallow_thin_resnet():
    vgg, resnet = build("thin_vgg"), build("deep_thin_resnet", blocks=1)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (vgg, resnet)]
    assert max(sizes) < 1.2 * min(sizes) and not residual_sums(vgg) and residual_sums(resnet)
    assert vgg(torch.randn(2, 3, 32, 32)).shape == (2, vgg.num_classes)
    with pytest.raises(ValueError, match=r"pretrained must be False"):
        timm.create_model("thin_vgg", pretrained=True)


def test_builders_refuse_by_name():
    with pytest.raises(ValueError, match=r"factor must be a number above 0, got -1"):
        with_width(build("test_resnet"), -1)
    with pytest.raises(ValueError, match=r"got 'ByobNet'"):
        with_width(build("test_byobnet"), 2)
    with pytest.raises(ValueError, match=r"takes .'channel_multiplier'., got 'efficientnet_b0'"):
        with_width(build("efficientnet_b0"), 2)
    with pytest.raises(ValueError, match=r"with_depth must be applied to .* got 'EfficientNet'"):
        with_depth(build("test_efficientnet"), 2)
    with pytest.raises(ValueError, match=r"blocks must be .* 4 of them, got \(1, 2\)"):
        with_depth(build("resnet18"), (1, 2))
    for change in (without_skips, without_norm, lambda m: with_norm(m, "group")):
        with pytest.raises(ValueError, match=r"with_width must be the first change"):
            with_width(change(build("test_resnet")), 2)


# --- combining ---


def test_changes_are_read_from_text():
    assert parse_change("without_skips") == ("without_skips", ())
    assert parse_change("with_norm=group") == ("with_norm", ("group",))
    assert parse_change("with_width=0.25") == ("with_width", (0.25,))
    assert parse_change("with_depth=3") == ("with_depth", (3,))
    assert parse_change("with_depth=1,2,3,4") == ("with_depth", ((1, 2, 3, 4),))
    assert parse_change("with_dropout=0.3,0.1") == ("with_dropout", (0.3, 0.1))
    with pytest.raises(ValueError, match=r"change must be one of .*without_skips.*got 'no_skips'"):
        parse_change("no_skips")
    with pytest.raises(ValueError, match=r"without a value"):
        parse_change("without_skips=yes")
    with pytest.raises(ValueError, match=r"a value it can read, got 'with_width=wide'"):
        parse_change("with_width=wide")


def test_changes_combine_in_any_order_given():
    model = build("test_resnet")
    one = apply_changes(model, ("without_skips", "with_norm=group", "with_width=0.5", "with_dropout=0.2"))
    two = apply_changes(model, ("with_dropout=0.2", "with_width=0.5", "with_norm=group", "without_skips"))
    assert residual_sums(one) == ()
    assert set(norm_layers(one).values()) == {"group"}
    assert one.drop_rate == 0.2
    assert one.layer4[0].conv2.out_channels == 48
    torch.testing.assert_close(forward(one), forward(two))
    assert apply_changes(model, ()) is not model


def test_unknown_combinations_are_refused_by_name():
    model = build("test_resnet")
    with pytest.raises(ValueError, match=r"either with_norm or without_norm"):
        apply_changes(model, ("with_norm=group", "without_norm"))
    with pytest.raises(ValueError, match=r"with_norm twice"):
        apply_changes(model, ("with_norm=group", "with_norm=layer"))
    with pytest.raises(ValueError, match=r"Stochastic depth needs skips"):
        apply_changes(model, ("without_skips", "with_dropout=0.1,0.1"))
    with pytest.raises(TypeError, match=r"sequence of names"):
        apply_changes(model, "without_skips")


@pytest.mark.parametrize("name", ["resnet18", "test_convnext", "test_vit"])
def test_no_change_touches_the_callers_model(name):
    model = build(name).train()
    before = copy.deepcopy(model.state_dict())
    names = [(n, type(m), m.training) for n, m in model.named_modules()]
    for change in CHANGES:
        try:
            changed = apply_changes(model, (change,))
        except ValueError:
            continue
        assert all(m.training for m in changed.modules())
    assert [(n, type(m), m.training) for n, m in model.named_modules()] == names
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
