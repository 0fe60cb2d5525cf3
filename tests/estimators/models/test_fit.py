"""Weights fitted to a model: prefixes, own names, what stands beside, image sizes, heads, and what is said."""

import json
import shutil

import pytest
import timm
import torch
from torch import nn

from estimators import Landscape, load_model, read_checkpoint, save_checkpoint
from estimators.models import clean_state_dict, compatible_state_dict


class Own(nn.Module):
    """A network whose own names begin as a wrapper's do."""

    def __init__(self, name="model"):
        super().__init__()
        setattr(self, name, nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))
        self.name = name

    def forward(self, x):
        return getattr(self, self.name)(x)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("name", ["model", "module", "net"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_own_names_are_read_back_as_written(tmp_path, name, suffix):
    model, other = Own(name), Own(name)
    path = tmp_path / f"own{suffix}"
    if suffix == ".pt":
        torch.save(model.state_dict(), path)
    else:
        save_checkpoint(path, model.state_dict())
    state, notes = read_checkpoint(path)
    if (name, suffix) != ("module", ".pt"):  # there it may be DDP's as well: the model decides
        assert equal(state, model.state_dict()) and notes == []
    assert equal(compatible_state_dict(other, state), model.state_dict())
    data = (torch.randn(6, 4), torch.arange(6) % 2)
    land = Landscape(other, data)
    for given in (path, state, model.state_dict(), {f"module.{k}": v for k, v in model.state_dict().items()}):
        assert torch.equal(land.point(given), nn.utils.parameters_to_vector(model.parameters()).detach())


def test_a_network_inside_another_of_its_kind_is_not_taken_for_a_prefix():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.inner = nn.Linear(2, 2), nn.ModuleDict({"fc": nn.Linear(2, 2)})

    model = Twice()
    notes = []
    state = {f"x.{k}": v for k, v in model.state_dict().items()}
    assert equal(compatible_state_dict(model, state, notes), model.state_dict())
    assert notes == ["stripped the prefix 'x.'"]


def test_what_stands_beside_the_model_is_left_out_and_listed():
    model = Own()
    beside = {"criterion.weight": torch.ones(2), "train_acc.correct": torch.ones(1), "total_ops": torch.zeros(1)}
    for prefix in ("", "net."):
        notes = []
        state = {f"{prefix}{k}": v for k, v in model.state_dict().items()} | beside
        assert equal(compatible_state_dict(model, state, notes), model.state_dict())
        assert notes[-1] == "left out 3 beside the model's: criterion.weight, train_acc.correct, total_ops"


def test_weights_the_model_does_not_have_are_never_left_out_in_silence():
    model = Own()
    for extra in ("model.4.weight", "layer5.0.weight", "head.weight"):
        with pytest.raises(ValueError, match=f"1 mismatch .*unexpected: {extra}"):
            compatible_state_dict(model, model.state_dict() | {extra: torch.ones(2, 2)})
    state = {f"net.{k}": v for k, v in model.state_dict().items()} | {"net.model.9.bias": torch.ones(2)}
    with pytest.raises(ValueError, match=r"unexpected: model\.9\.bias"):
        compatible_state_dict(model, state)


def test_numbers_of_another_kind_are_said():
    model = Own()
    state = model.state_dict()
    quantised = state | {"model.0.weight": torch.ones(3, 4, dtype=torch.int8)}
    with pytest.raises(ValueError, match=r"model.0.weight: int8 in the weights, float32 in the model"):
        compatible_state_dict(model, quantised)
    with pytest.raises(ValueError, match=r"complex64 in the weights, float32 in the model"):
        compatible_state_dict(model, state | {"model.0.bias": torch.ones(3, dtype=torch.complex64)})


@pytest.mark.filterwarnings("ignore::UserWarning:timm")
@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224", "deit_tiny_distilled_patch16_224"])
def test_another_image_size_is_resampled_by_timm(tmp_path, name):
    small, large = (64, 96) if name != "swin_tiny_patch4_window7_224" else (64, 224)
    sizes = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)} if name.startswith("swin") else {}
    more = {"embed_dim": 48, "depth": 1} if name.startswith("deit") else sizes
    model = load_model(name, num_classes=10, image_size=large, **more)
    path = save_checkpoint(tmp_path / "large.safetensors", {f"module.{k}": v for k, v in model.state_dict().items()})
    other = load_model(name, num_classes=10, image_size=small, checkpoint=path, **more)
    notes = "; ".join(other.provenance["notes"])
    assert "resampled by timm for another image size" in notes
    table = "pos_embed" if "pos_embed" in model.state_dict() else "layers.3.blocks.0.attn.relative_position_bias_table"
    before, after = model.state_dict()[table], other.state_dict()[table]
    assert before.shape != after.shape and f"{table} from {tuple(before.shape)} to {tuple(after.shape)}" in notes
    wanted = compatible_state_dict(other, dict(model.state_dict()))  # without the prefix
    assert torch.equal(wanted[table], after)
    if name == "test_vit":
        from timm.layers import resample_abs_pos_embed

        exact = resample_abs_pos_embed(
            before, new_size=other.patch_embed.grid_size, num_prefix_tokens=other.num_prefix_tokens
        )
        assert torch.equal(exact, after)
    assert other(torch.randn(1, 3, small, small)).isfinite().all()


def test_another_head_is_said_and_can_be_left_out(tmp_path):
    model = load_model("test_resnet", num_classes=5)
    path = save_checkpoint(tmp_path / "five.safetensors", {f"net.{k}": v for k, v in model.state_dict().items()})
    assert load_model("test_resnet", checkpoint=path).num_classes == 5
    with pytest.raises(
        ValueError, match=r"tells 5 classes apart and the model's 10, take num_classes=5 .*new_head=True"
    ):
        load_model("test_resnet", num_classes=10, checkpoint=path)
    fresh = load_model("test_resnet", num_classes=10, checkpoint=path, new_head=True, random_state=4)
    assert torch.equal(fresh.fc.weight, load_model("test_resnet", num_classes=10, random_state=4).fc.weight)
    assert torch.equal(fresh.conv1[0].weight, model.conv1[0].weight)
    assert "the head fc is new and untrained, the file has fc.weight (5, 96), fc.bias (5,)" in fresh.provenance["notes"]
    kept = load_model("test_resnet", num_classes=5, checkpoint=path, new_head=True)
    assert torch.equal(kept.fc.weight, model.fc.weight), "a head that fits is kept"
    headless = {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")}
    path = save_checkpoint(tmp_path / "backbone.safetensors", headless)
    with pytest.raises(ValueError, match="no head, take a fresh one with new_head=True"):
        load_model("test_resnet", num_classes=10, checkpoint=path)
    assert load_model("test_resnet", num_classes=10, checkpoint=path, new_head=True).fc.weight.shape == (10, 96)
    with pytest.raises(ValueError, match="new_head must be left out without a checkpoint"):
        load_model("test_resnet", new_head=True)


def test_a_mismatch_shows_five_differences_and_the_likely_cause(tmp_path):
    path = save_checkpoint(tmp_path / "a.safetensors", load_model("test_convnext", num_classes=10).state_dict())
    with pytest.raises(ValueError) as error:
        load_model("test_resnet", num_classes=10, checkpoint=path)
    words = str(error.value)
    assert len(words) < 700 and "\n" not in words and "another architecture" in words and "--import" in words
    assert words.count("missing: ") + words.count("unexpected: ") + words.count(" in the model") == 5
    state = {"state_dict": load_model("resnet18").state_dict(), "arch": "resnet18"}
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="the file says that it is of 'resnet18', choose that architecture"):
        load_model("test_resnet", checkpoint=tmp_path / "a.pt")
    with pytest.raises(ValueError, match="made at another image size"):
        land = Landscape(Position(8), (torch.randn(4, 3), torch.arange(4) % 2))
        land.point(Position(4).state_dict())
    models = {
        width: nn.Sequential(nn.Linear(2, width), nn.Linear(width, width), nn.Linear(width, 2)) for width in (3, 4)
    }
    with pytest.raises(ValueError, match="of other widths"):
        compatible_state_dict(models[3], models[4].state_dict())
    with pytest.raises(ValueError, match="of another variant"):
        compatible_state_dict(models[3], nn.Sequential(*models[3], nn.Linear(2, 2)).state_dict())
    with pytest.raises(ValueError, match="of another architecture"):  # the names are the same, no weight fits
        compatible_state_dict(models[3], {n: torch.ones(7) for n in (*models[3].state_dict(), "linear.bias")})


class Position(nn.Module):
    def __init__(self, length):
        super().__init__()
        self.pos_embed, self.fc = nn.Parameter(torch.zeros(1, length)), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x) + self.pos_embed.sum()


def test_odd_variances_are_named(tmp_path):
    state = load_model("test_resnet", num_classes=10).state_dict()
    state["bn1.running_var"][0] = 0.0
    state["layer1.0.bn1.running_var"][0] = -1.0
    torch.save(state, tmp_path / "odd.pt")
    wanted = ["variances below zero in layer1.0.bn1.running_var", "variances of zero in bn1.running_var"]
    assert read_checkpoint(tmp_path / "odd.pt")[1] == wanted


def test_wrappers_are_taken_out_wherever_they_stand():
    state = {"module._orig_mod.a._fsdp_wrapped_module.b": torch.ones(1), "module._orig_mod.c": torch.ones(2)}
    cleaned, notes = clean_state_dict(state)
    assert set(cleaned) == {"module.a.b", "module.c"} and len(notes) == 2


def test_models_that_someone_shared(tmp_path, monkeypatch):
    """A folder that timm wrote, and the same as the hub's cache keeps it; without a network."""
    model = load_model("test_vit", num_classes=7, image_size=32, random_state=3)
    timm.models.save_for_hf(model, tmp_path / "shared", model_args={"img_size": 32, "num_classes": 7})
    revision = tmp_path / "hub" / "models--me--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(tmp_path / "shared", revision)
    (tmp_path / "hub" / "models--me--tiny" / "refs").mkdir()
    (tmp_path / "hub" / "models--me--tiny" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, more in (
        (f"local-dir:{tmp_path / 'shared'}", {}),
        ("hf-hub:me/tiny", {"cache_dir": str(tmp_path / "hub")}),
    ):
        shared = load_model(name, pretrained=True, **more)
        assert shared.num_classes == 7 and equal(shared.state_dict(), model.state_dict())
        assert shared.provenance["architecture"] == name
        path = save_checkpoint(tmp_path / "own.safetensors", {k: v * 2 for k, v in model.state_dict().items()})
        own = load_model(name, checkpoint=path, **more)
        assert torch.equal(own.head.weight, 2 * model.head.weight)
    with pytest.raises(ValueError, match=r"hf-hub:me/nothing.*connect to the network once"):
        load_model("hf-hub:me/nothing", cache_dir=str(tmp_path / "hub"))
    (tmp_path / "shared" / "config.json").write_text(json.dumps({}))
    with pytest.raises(ValueError, match="one that timm can reach"):
        load_model(f"local-dir:{tmp_path / 'shared'}")
