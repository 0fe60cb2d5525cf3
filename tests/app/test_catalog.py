"""What can be chosen, and how it is kept: names, specs, checkpoints and runs on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from app import catalog, workspace
from app.catalog import DataSpec, PointSpec
from app.names import distinct, names_apart
from app.workspace import library, runs
from estimators import list_data, load_data

# ---- architectures ----


def test_the_quick_group_comes_first_and_every_timm_name_is_there():
    import timm

    names = catalog.architectures()
    # timm's registry can grow while the process lives: our own variants register there.
    assert set(names) <= set(timm.list_models())
    assert len(names) > 1000
    assert len(names) == len(set(names))
    assert names[0] == "test_resnet"
    assert names[: len(catalog.QUICK_NAMES)] == tuple(name for name in catalog.QUICK_NAMES if name in names)


def test_words_in_any_order_find_a_name_and_none_is_made_up():
    assert catalog.matching("eva02 large") == catalog.matching("Large eva02")
    assert catalog.matching("large EVA02")[0].startswith("eva02_large")
    assert catalog.matching("resnet18")[0] == "resnet18" and catalog.matching("resnet_18")[0] == "resnet18"
    assert catalog.matching("vit-b/16")[0].startswith("vit_")
    assert catalog.matching("18 resnet")[0] == "resnet18"
    assert set(catalog.matching("18 resnet")) <= set(catalog.architectures())
    assert catalog.matching("no such network") == () and catalog.matching("") == ()
    assert catalog.matching("hf-hub:timm/resnet18") == ()  # what it stands for is not in the list


def test_a_mistyped_name_is_answered_with_near_ones():
    assert catalog.check_architecture("resnet18") is None
    sentence = catalog.check_architecture("rsenet18")
    assert "resnet18" in sentence
    assert "rsenet18" in sentence
    assert "Choose one from the list" in catalog.check_architecture("qqqqqqqq")


# ---- data ----


def make_folder(root, classes=("cat", "dog"), images=1):
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(images):
            (root / name / f"{number}.png").write_bytes(b"not decoded here")
    return root


def test_folders_are_checked_before_anything_is_computed(tmp_path):
    assert catalog.check_source("digits") is None
    assert catalog.check_source(str(make_folder(tmp_path / "good"))) is None
    assert "must exist" in catalog.check_source(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert "must hold image files" in catalog.check_source(str(tmp_path / "empty"))
    assert "at least two class" in catalog.check_source(str(make_folder(tmp_path / "one", ("cat",))))
    assert "got nothing" in catalog.check_source("  ")


def test_class_names_come_from_sub_folders_also_under_a_split(tmp_path):
    assert catalog.class_names("digits") == tuple("0123456789")
    assert catalog.class_names(str(make_folder(tmp_path / "a", ("dog", "cat")))) == ("cat", "dog")
    make_folder(tmp_path / "b" / "train", ("x", "y", "z"))
    assert catalog.class_names(str(tmp_path / "b")) == ("x", "y", "z")
    assert catalog.class_names(str(tmp_path / "nowhere")) == ()


def test_the_app_lists_what_load_data_loads(tmp_path):
    sources = {
        "digits": "digits",
        "plain": make_folder(tmp_path / "plain", ("cat", "dog"), images=9),
        "own": make_folder(make_folder(tmp_path / "own" / "train", ("b", "c"), 4).parent / "val", ("a", "c"), 3).parent,
        "train alone": make_folder(tmp_path / "alone" / "training", ("x", "y"), images=6).parent,
        "deep": make_folder(tmp_path / "deep", ("x/1", "x/2", "y/1", "y/3"), images=3),
    }
    for path in [*sources["plain"].rglob("*.png")][:5]:
        path.rename(path.with_suffix(".PGM"))
    for source in map(str, sources.values()):
        for split in ("train", "test", "all"):
            listed = list_data(source, split=split)
            assert catalog.check_source(source, split) is None
            assert catalog.available(source, split) == len(listed)
            assert catalog.class_names(source) == listed.class_names
    assert catalog.class_names(str(sources["own"])) == ("a", "b", "c")
    assert catalog.available(str(sources["train alone"]), "test") == 3
    with pytest.raises(ValueError, match="must be readable, got 14 "):
        load_data(str(sources["plain"]), image_size=8)


def test_what_load_data_refuses_the_app_refuses_in_the_same_words(tmp_path):
    high = make_folder(tmp_path / "high", ("a/cat", "a/dog", "b/cat", "b/dog"))
    alone = make_folder(tmp_path / "alone" / "test").parent
    assert catalog.check_source(str(alone)) is None
    for source, split, words in ((high, "all", "one level too high"), (alone, "train", "must have a folder 'train'")):
        with pytest.raises(ValueError, match=words) as refused:
            load_data(str(source), split=split)
        assert catalog.check_source(str(source), split) == str(refused.value)


def test_a_data_spec_is_plain_and_prints_its_own_python():
    spec = DataSpec(n_samples=64, split="test")
    assert json.loads(json.dumps(spec.as_dict()))["n_samples"] == 64
    assert spec.held_out().split == "train"
    assert DataSpec().held_out(None) == DataSpec(split="test", n_samples=None)
    assert hash(spec) == hash(DataSpec(n_samples=64, split="test"))
    assert spec.code("x") == ("x = load_data('digits', image_size=32, n_samples=64, split='test', random_state=0)")


# ---- points ----


def test_a_point_prints_the_python_that_builds_it(tmp_path):
    assert PointSpec(seed=3).code() == (
        "model = load_model('test_resnet', num_classes=10, image_size=32, random_state=3)"
    )
    assert "pretrained=True" in PointSpec(weights="pretrained").code()
    assert "random_state" not in PointSpec(weights="pretrained").code()
    path = tmp_path / "a.safetensors"
    assert f"checkpoint={str(path)!r}" in PointSpec(weights=f"file:{path}").code()
    assert PointSpec(seed=2).label == "test_resnet (random, seed 2)"


def add(tmp_path, name="digits-a", epochs=2):
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"final")
    files = []
    for number in range(epochs):
        files.append(tmp_path / f"epoch-{number}.safetensors")
        files[-1].write_bytes(f"epoch {number}".encode())
    meta = {
        "name": name,
        "architecture": "test_resnet",
        "num_classes": 10,
        "image_size": 32,
        "accuracy": 0.991,
    }
    return library.add_checkpoint(weights, meta, epochs=files)


def test_a_checkpoint_and_its_epochs_are_kept_and_found(tmp_path):
    entry = add(tmp_path)
    (found,) = library.list_checkpoints()
    assert found == library.Checkpoint.get(entry.id)
    assert (found.name, found.architecture, found.num_classes, found.image_size) == (
        "digits-a",
        "test_resnet",
        10,
        32,
    )
    assert found.path.read_bytes() == b"final"
    assert [path.read_bytes() for path in found.trajectory] == [b"epoch 0", b"epoch 1"]
    assert "99.1%" in found.label
    assert library.list_checkpoints("resnet18") == []
    point = PointSpec.from_checkpoint(found)
    assert point.checkpoint == found.path
    assert point.trajectory == found.trajectory
    middle = PointSpec.from_checkpoint(found, found.trajectory[1].stem)
    assert middle.checkpoint.read_bytes() == b"epoch 1"
    assert middle.label == "digits-a, epoch 1"


def test_rename_delete_and_undo(tmp_path):
    entry = add(tmp_path)
    library.Checkpoint.get(entry.id).rename("  better  ")
    assert library.Checkpoint.get(entry.id).name == "better"
    library.Checkpoint.get(entry.id).rename("   ")
    assert library.Checkpoint.get(entry.id).name == "better"
    binned = library.Checkpoint.get(entry.id).delete()
    assert library.list_checkpoints() == []
    with pytest.raises(ValueError, match="deleted"):
        library.Checkpoint.get(entry.id)
    workspace.restore(binned)
    assert library.Checkpoint.get(entry.id).path.read_bytes() == b"final"


def test_equal_names_are_told_apart(tmp_path):
    first, second = add(tmp_path), add(tmp_path)
    other = add(tmp_path, name="other")
    names = names_apart([first, second, other])
    assert len(set(names.values())) == 3 and names[other.id] == "other"
    assert all(names[c.id].startswith("digits-a, ") for c in (first, second))
    seeds = [library.Checkpoint(c.id, {**c.info, "start": {"seed": k}}) for k, c in enumerate((first, second))]
    assert list(names_apart(seeds).values()) == ["digits-a, seed 0", "digits-a, seed 1"]
    assert PointSpec.from_checkpoint(first).label != PointSpec.from_checkpoint(second).label
    assert distinct(["a", "b", "a"]) == ["a", "b", "a (2)"]


def test_names_are_not_used_twice(tmp_path):
    assert library.unused_name("digits-a") == "digits-a"
    add(tmp_path)
    assert library.unused_name("digits-a") == "digits-a 2"


def test_an_id_from_a_url_cannot_leave_the_workspace(tmp_path):
    (tmp_path / "secret").mkdir()
    for name in ("../../secret", "..", "", ".hidden", "/etc"):
        with pytest.raises(ValueError, match="checkpoint must be"):
            library.Checkpoint.get(name)


def test_the_same_upload_is_kept_once():
    first = library.store_upload(b"abc", "My Model.PTH")
    assert library.store_upload(b"abc", "other name.pth") == first
    assert first.suffix == ".pth"
    assert library.store_upload(b"abd", "My Model.PTH") != first


# ---- files that survive ----


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path):
    path = tmp_path / "a.json"
    workspace.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Circular"):
        loop = {}
        loop["self"] = loop
        workspace.write_json(path, loop)
    assert workspace.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["a.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(OSError, match="full"), workspace.new_folder(tmp_path, "run") as folder:
        (folder / "half").write_text("x")
        raise OSError("disk full")
    assert [p.name for p in tmp_path.iterdir()] == []
    with workspace.new_folder(tmp_path, "run") as folder:
        (folder / "whole").write_text("x")
    assert (tmp_path / "run" / "whole").read_text() == "x"


def test_kill_while_saving_loses_nothing_that_was_saved(tmp_path):
    """A process killed between two writes leaves the finished entries, and the half one does not show."""
    entry = add(tmp_path)
    program = """
        import os, signal
        from pathlib import Path
        from app import workspace
        with workspace.new_folder(workspace.folder("checkpoints"), "half") as folder:
            (folder / "weights.safetensors").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=os.environ, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert [c.id for c in library.list_checkpoints()] == [entry.id]
    assert len(list(workspace.folder("checkpoints").iterdir())) == 2, "the half folder is there, under its own name"


def test_damaged_entries_are_left_out_of_the_lists(tmp_path):
    entry = add(tmp_path)
    (workspace.folder("checkpoints") / entry.id / "meta.json").write_text("{ half")
    assert library.list_checkpoints() == []
    (workspace.folder("runs") / "broken").mkdir()
    assert runs.list_runs() == []


def test_a_run_that_names_a_class_outside_the_product_is_not_imported():
    with workspace.new_folder(workspace.folder("runs"), "strange") as folder:
        info = {"page": "surface", "title": "t", "created": "", "seconds": 1, "result": "os:system"}
        workspace.write_json(folder / "run.json", info)
    with pytest.raises(ValueError, match="must name a class of this program"):
        runs.load_result(runs.Run.get("strange"))
