"""Broken and hostile files: one sentence, at once, with nothing run and nothing unpacked that is too large."""

import argparse
import json
import pickle
import resource
import struct
import tracemalloc
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from estimators import CheckpointError, read_checkpoint
from estimators.models._pickle import Inert, interpret_bytes
from tests.checkpoint_fuzz import Trap, counted, limited


def refusal(path, **arguments):
    """Give the sentence a file is refused with; it is one, it is short, and it took no time."""
    with limited(20), pytest.raises(CheckpointError) as error:
        read_checkpoint(path, **arguments)
    words = str(error.value)
    assert len(words) < 600 and words.isprintable() and words.count(". ") == 0 and words.endswith(".")
    return words


def test_three_hundred_broken_files_are_read_or_refused(tmp_path):
    counts, _, faults = counted(tmp_path, 300)
    assert faults == []
    assert sum(counts.values()) == 300
    assert not (tmp_path / "exploded").exists()
    outcomes = {kind: {found for k, found in counts if k == kind} for kind, _ in counts}
    assert outcomes.keys() == {"zip", "legacy", "safetensors", "index", "structure"}
    assert all("refused" in found for found in outcomes.values()), "a mutation that breaks nothing tests nothing"


def test_a_file_that_holds_itself_ends_at_once(tmp_path):
    loop = {"epoch": 1}
    loop["state_dict"] = loop
    for new in (True, False):
        torch.save(loop, tmp_path / "loop.pt", _use_new_zipfile_serialization=new)
        assert "no named tensors" in refusal(tmp_path / "loop.pt")


def test_a_tuple_whose_hash_never_ends_is_not_hashed(tmp_path):
    content = b"\x80\x02}(" + b"X\x01\x00\x00\x00a\x85" + b"2\x86" * 80 + b"K\x01u."
    (tmp_path / "hash.pt").write_bytes(content)
    refusal(tmp_path / "hash.pt")


def test_a_bomb_is_refused_by_its_header(tmp_path):
    """256 MB of zeros packed into one: as a tensor, as the list of contents, under a false name."""
    block = bytes(2**26)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, name in enumerate(("x/data/0", "x/data.pkl", "x/other")):
        path = tmp_path / f"bomb{number}.pt"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            if name != "x/data.pkl":
                archive.writestr("x/data.pkl", pickle.dumps({}))
            with archive.open(name, "w") as record:
                for _ in range(4):
                    record.write(block)
        assert path.stat().st_size < 2**22
        assert "claim to unpack to 268,4" in refusal(path)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 100 * 1024, "it was unpacked"


def test_a_large_record_is_read_once_and_alone(tmp_path):
    saved = {"state_dict": {"w": torch.ones(2**24)}, "optimizer": {"state": {0: {"m": torch.zeros(2**24)}}}}
    for new in (True, False):
        torch.save(saved, tmp_path / "large.pt", _use_new_zipfile_serialization=new)
        tracemalloc.start()  # sees what Python allocates beside the tensor itself
        state, _ = read_checkpoint(tmp_path / "large.pt")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 16 * 2**20 and state["w"].untyped_storage().nbytes() == 2**26
        assert state["w"].sum() == 2**24


def test_what_a_header_claims_is_compared_with_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{" + bytes(64))
    assert "header is longer" in refusal(path)
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert "damaged" in refusal(path)
    path.write_bytes(struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_000 + b"]" * 995 + b"}")
    refusal(path)
    wide = {"w": torch.ones(1).expand(2**15, 2**20), "v": torch.ones(3)}
    for new in (True, False):
        torch.save(wide, tmp_path / "wide.pt", _use_new_zipfile_serialization=new)
        assert "claim tensors of 137,438,9" in refusal(tmp_path / "wide.pt")


def test_a_list_of_contents_without_end_is_cut(tmp_path):
    path = tmp_path / "long.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + b"]0" * 3_000_000 + b"}.")
    assert "list of contents is too long" in refusal(path)
    path.write_bytes(b"\x80\x02\x96" + struct.pack("<Q", 2**50) + b"x")
    assert "list of contents is too long" in refusal(path)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)


@pytest.mark.parametrize("new", [True, False])
def test_a_whole_module_is_refused_in_one_plain_sentence(tmp_path, new):
    for number, saved in enumerate((Net(), {"model": Net(), "epoch": 3}, nn.Sequential(nn.Linear(2, 2)))):
        path = tmp_path / f"{number}.pt"
        torch.save(saved, path, _use_new_zipfile_serialization=new)
        words = refusal(path)
        assert "whole object" in words and "was not run" in words
        assert "torch.save(model.state_dict(), 'weights.pt')" in words
        assert ("Sequential" if number == 2 else "test_hostile.Net") in words


def test_a_trap_is_refused_by_name_also_beside_good_weights(tmp_path):
    for number, saved in enumerate(
        ({"state_dict": Trap(tmp_path)}, {"state_dict": {"w": torch.ones(2)}, "x": Trap(tmp_path)})
    ):
        torch.save(saved, tmp_path / f"{number}.pt")
        assert "posix.system" in refusal(tmp_path / f"{number}.pt")
    assert not (tmp_path / "exploded").exists()


class Configuration:
    """Of any kind: it is neither imported nor built."""

    def __setstate__(self, state):
        raise AssertionError("it was built")

    def __getstate__(self):
        return {"a": 1}


def test_things_beside_the_weights_are_read_around(tmp_path):
    saved = {"state_dict": {"w": torch.ones(2)}, "cfg": Configuration(), "args": argparse.Namespace(model="resnet18")}
    torch.save(saved, tmp_path / "a.pt")
    state, notes = read_checkpoint(tmp_path / "a.pt")
    assert state["w"].tolist() == [1, 1] and notes == ["took the entry 'state_dict'"]
    saved["state_dict"]["cfg"] = Configuration()
    torch.save(saved, tmp_path / "a.pt")
    assert "left out objects that are not tensors: cfg" in read_checkpoint(tmp_path / "a.pt")[1]


def test_tensors_in_pieces_or_packed_are_refused_by_name(tmp_path):
    torch.save({"w": torch.ones(2), "fc.weight": torch.eye(3).to_sparse()}, tmp_path / "sparse.pt")
    assert "'fc.weight' is a" in refusal(tmp_path / "sparse.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    torch.save({"w": torch.ones(2), "fc.weight": quantised}, tmp_path / "q.pt")
    assert "'fc.weight' is a quantised tensor" in refusal(tmp_path / "q.pt")


def test_a_damaged_record_is_told_by_its_checksum(tmp_path):
    torch.save({"w": torch.full((1000,), 7.0)}, tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    at = content.index(b"\x00\x00\xe0\x40" * 10)
    content[at + 16] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    assert "damaged" in refusal(tmp_path / "a.pt")


def test_shards_cannot_lead_out_of_their_folder(tmp_path):
    index = tmp_path / "m.safetensors.index.json"
    for shard in ("../x.safetensors", "/etc/passwd", "m.safetensors.index.json", "gone.safetensors", ""):
        index.write_text(json.dumps({"weight_map": {"w": shard}}))
        assert "shard" in refusal(index)
    index.write_text(json.dumps(["w"]))
    assert "weight_map" in refusal(index)


def test_names_are_shown_cut_and_plain(tmp_path):
    path = tmp_path / ("n" * 90 + "\x1b[31m.pt")
    path.write_bytes(b"junk")
    assert "\x1b" not in refusal(path)
    with pytest.raises(CheckpointError, match="existing file"):
        read_checkpoint("x" * 5000 + "\0")
    torch.save({"state_dict": {"w": torch.ones(1)}}, tmp_path / "a.pt")
    assert len(refusal(tmp_path / "a.pt", entry="y" * 10_000)) < 400


def test_the_machine_knows_every_operation_a_pickle_can_hold():
    values = {
        "a": [1, -1, 2**40, 2**100, 1.5, True, False, None, "é" * 300, "x" * 70_000, [[]], (("b",),)],
        "b": {1: "x", None: 2, 2.5: 3},
        "c": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, []],
        "d": OrderedDict(a=1),
    }
    newer = {"e": b"bytes", "f": {1, 2}, "g": frozenset((3,))}  # calls in older protocols, which are not made
    for protocol in range(6):
        assert interpret_bytes(pickle.dumps(values, protocol)).value == values, protocol
        given = interpret_bytes(pickle.dumps(newer, protocol)).value
        if protocol >= 4:
            assert given == {"e": b"bytes", "f": [1, 2], "g": [3]}
        else:
            assert isinstance(given["f"], Inert) and isinstance(given["g"], Inert)
        named = interpret_bytes(pickle.dumps([Configuration, Configuration()], protocol)).value
        assert named[0].text.endswith("test_hostile.Configuration")
        assert named[1].state == {"a": 1}
