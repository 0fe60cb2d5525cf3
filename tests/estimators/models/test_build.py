import os
import pickle

import pytest
import safetensors.torch
import timm
import torch

from estimators import load_model, read_checkpoint, save_checkpoint
from estimators.models import read_metadata, takes_image_size


def test_random_weights_follow_the_seed_and_leave_the_global_one():
    rng = torch.get_rng_state()
    a, b, c = (load_model("test_resnet", num_classes=10, random_state=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(a.fc.weight, b.fc.weight) and not torch.equal(a.fc.weight, c.fc.weight)
    assert not a.training and a.provenance["weights"] == "random (seed 0)"


def test_image_size_goes_only_where_it_is_taken():
    assert [takes_image_size(n) for n in ("test_vit", "resnet18", "test_convnext", "test_efficientnet")] == [
        True, False, False, False,
    ]  # fmt: skip
    x = torch.randn(1, 3, 32, 32)
    for name in ("test_vit", "test_resnet", "test_convnext", "test_efficientnet"):
        assert load_model(name, num_classes=4, image_size=32)(x).shape == (1, 4)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_checkpoints_of_every_kind_come_back(tmp_path, suffix):
    model = load_model("test_resnet", num_classes=10, random_state=3)
    path = tmp_path / f"a{suffix}"
    if suffix == ".pt":
        prefixed = {f"module.{k}": v for k, v in model.state_dict().items()}
        torch.save({"state_dict": prefixed, "best_prec1": 90.0}, path)
    else:
        save_checkpoint(path, model.state_dict(), {"epoch": 3})
        assert read_metadata(path) == {"epoch": 3}
    back = load_model("test_resnet", num_classes=10, checkpoint=path)
    assert torch.equal(back.fc.weight, model.fc.weight) and torch.equal(back.bn1.running_var, model.bn1.running_var)
    if suffix == ".pt":
        assert back.provenance["notes"] == ["took the entry 'state_dict'", "stripped the prefix 'module.'"]


def test_prefixes_stack_and_ema_is_said(tmp_path):
    model = load_model("test_vit", num_classes=3, image_size=32)
    path = tmp_path / "x.pth"
    wrapped = {f"_orig_mod.module.{k}": v for k, v in model.state_dict().items()}
    torch.save({"model": {k: v * 0 for k, v in wrapped.items()}, "state_dict_ema": wrapped}, path)
    state, notes = read_checkpoint(path)
    assert set(state) == set(model.state_dict())
    assert notes[0] == "took the entry 'state_dict_ema'"


def test_saved_checkpoint_loads_in_plain_timm_and_is_written_whole(tmp_path):
    model = load_model("test_resnet", num_classes=10, random_state=5)
    path = save_checkpoint(tmp_path / "m.safetensors", model.state_dict())
    plain = timm.create_model("test_resnet", num_classes=10, checkpoint_path=str(path))
    assert torch.equal(plain.fc.weight, model.fc.weight)
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_pretrained_goes_through_timms_own_loader(tmp_path):
    model = timm.create_model("test_resnet", num_classes=7)
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    overlay = {"file": str(path), "num_classes": 7}
    loaded = load_model("test_resnet", num_classes=7, pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(loaded.fc.weight, model.fc.weight) and loaded.provenance["weights"] == "timm pretrained"


def test_bad_input_is_said(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"Did you mean .*resnet18"):
        load_model("resnet_18")
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"hello")
    with pytest.raises(ValueError, match="safetensors file or a torch file that holds only tensors"):
        load_model("test_resnet", checkpoint=junk)
    junk.rename(tmp_path / "junk.safetensors")
    with pytest.raises(ValueError, match="safetensors file or a torch file"):
        load_model("test_resnet", checkpoint=tmp_path / "junk.safetensors")
    with pytest.raises(ValueError, match="existing file"):
        load_model("test_resnet", checkpoint=tmp_path / "none.pt")
    path = save_checkpoint(tmp_path / "vit.safetensors", load_model("test_vit", num_classes=10).state_dict())
    with pytest.raises(ValueError, match="mismatches") as error:
        load_model("test_resnet", num_classes=10, checkpoint=path)
    assert "missing: conv1.0.weight" in str(error.value) and "unexpected: cls_token" in str(error.value)
    five = save_checkpoint(tmp_path / "five.safetensors", load_model("test_resnet", num_classes=5).state_dict())
    with pytest.raises(ValueError, match=r"fc.weight: \(5, 96\) in the weights, \(10, 96\) in the model"):
        load_model("test_resnet", num_classes=10, checkpoint=five)
    with pytest.raises(ValueError, match="built with arguments it takes"):
        load_model("test_resnet", no_such_argument=1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    missing = {"file": str(tmp_path / "gone.safetensors")}
    with pytest.raises(ValueError, match="Connect to the network once"):
        load_model("test_resnet", pretrained=True, pretrained_cfg_overlay=missing)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/exploded",)

    path = tmp_path / "bomb.pt"
    with open(path, "wb") as handle:
        pickle.dump({"state_dict": Bomb()}, handle)
    with pytest.raises(ValueError, match="only tensors"):
        read_checkpoint(path)
    torch.save({"state_dict": Bomb()}, path)
    with pytest.raises(ValueError, match="only tensors"):
        read_checkpoint(path)
    assert not (tmp_path / "exploded").exists()
