"""Files that other people's tools wrote open as they are, and what was done to read them is said."""

import warnings

import pytest
import torch
from torch import nn

from estimators import Landscape, describe_checkpoint, load_data, load_model, read_checkpoint
from tests import checkpoint_files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return checkpoint_files.write_all(tmp_path_factory.mktemp("files"))


def same(kind, given, wanted, rounded):
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    assert wanted.keys() - counters <= given.keys() <= wanted.keys()
    for name in given.keys() - (counters if rounded else set()):
        torch.testing.assert_close(given[name], wanted[name], rtol=rounded, atol=rounded / 10, msg=f"{kind}: {name}")


def test_every_file_opens_with_the_weights_that_were_written(files):
    assert len(files) >= 24
    data = load_data("digits", n_samples=16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        land = Landscape(load_model("test_resnet", num_classes=10, random_state=9), data)
    for kind, written in files.items():
        model = load_model("test_resnet", checkpoint=written.path, entry=written.entry)
        assert model.num_classes == 10, kind
        same(kind, model.state_dict(), written.state, written.rounded)
        said = "; ".join(model.provenance["notes"])
        for words in written.notes:
            assert words in said, (kind, words, said)
        state, _ = read_checkpoint(written.path, entry=written.entry)
        wanted = [written.state[name] for name, _ in model.named_parameters()]
        torch.testing.assert_close(
            land.point(state), nn.utils.parameters_to_vector(wanted), rtol=written.rounded, atol=written.rounded / 10
        )


def test_what_a_file_holds_is_said_without_reading_its_tensors(files):
    info = describe_checkpoint(files["timm, average"].path)
    assert info.entries == ("state_dict_ema", "state_dict")
    assert (info.architecture, info.image_size) == ("test_resnet", 32)
    assert describe_checkpoint(files["DDP, flat"].path).entries == ("",)
    assert describe_checkpoint(files["DDP"].path).architecture == "test_resnet"
    assert describe_checkpoint(files["shards"].path).entries == ("",)


def test_an_entry_that_is_not_there_is_said_with_those_that_are(files):
    with pytest.raises(ValueError, match=r"one of 'state_dict_ema', 'state_dict' in 'last.pth.tar', got 'swa'"):
        read_checkpoint(files["timm, average"].path, entry="swa")


def test_torch_reads_the_same_numbers(files):
    for kind in ("plain, before 1.6", "DDP, flat", "timm ModelEmaV2"):
        path = files[kind].path
        with torch.serialization.safe_globals([]):
            whole = torch.load(path, weights_only=kind != "plain, before 1.6")
        whole = whole.get("net", whole)
        state, _ = read_checkpoint(path)
        assert len(state) == len(whole)
        assert all(torch.equal(a, b) for a, b in zip(state.values(), whole.values(), strict=True))
