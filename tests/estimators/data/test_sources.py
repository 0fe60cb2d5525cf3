"""Data sets of other people's: rows, dicts, images, timm's names; and examples that lie in a file."""

import pickle
import warnings

import numpy as np
import pytest
import timm.data
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from estimators import Landscape, SurfaceMapper, load_data, load_model, train
from estimators.cache import _identity
from estimators.data import _store, remapped
from tests.estimators.data.test_images import classes_of

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
LABELS = [i % 3 for i in range(12)]


class Rows:
    """A data set as Hugging Face's: no torch class, dict rows by number, features that name the classes."""

    def __init__(self, **columns):
        self.columns, self.read = columns, []
        label = type("ClassLabel", (), {"names": ["ant", "bee", "cat"]})()
        self.features = {name: label if name.endswith("label") else None for name in columns}

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, i):
        assert type(i) is int
        self.read.append(i)
        return {name: values[i] for name, values in self.columns.items()}


def pictures():
    return [Image.fromarray(p) for p in PIXELS]


def folder_of(root):
    for i, label in enumerate(LABELS):
        (root / "abc"[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[i]).save(root / "abc"[label] / f"{i:02d}.png")
    return root


def test_pictures_of_a_data_set_are_read_as_those_of_a_folder(tmp_path):
    folder = load_data(folder_of(tmp_path), split="all", image_size=4)
    order = torch.argsort(torch.tensor(LABELS), stable=True)
    rows = load_data(Rows(image=pictures(), label=LABELS), image_size=4)
    assert torch.equal(rows.inputs[order], folder.inputs) and torch.equal(rows.targets[order], folder.targets)
    assert rows.class_names == ("ant", "bee", "cat") and load_data(Rows(img=pictures(), y=LABELS)).inputs.shape[-1] == 6
    vision = torchvision.datasets.ImageFolder(tmp_path)
    assert load_data(vision, image_size=4).fingerprint == folder.fingerprint
    assert load_data(vision, image_size=4).class_names == ("a", "b", "c")
    timms = timm.data.create_dataset("", str(tmp_path))
    assert load_data(timms, image_size=4).fingerprint == folder.fingerprint
    assert load_data(timms, image_size=4).class_names == ("a", "b", "c")
    batches = DataLoader(vision, batch_size=5, collate_fn=lambda rows: tuple(zip(*rows, strict=True)))
    assert load_data(batches, image_size=4).fingerprint == folder.fingerprint


def test_of_a_data_set_only_the_drawn_rows_are_read():
    source = Rows(image=pictures(), label=LABELS)
    whole, few = load_data(Rows(image=pictures(), label=LABELS)), load_data(source, n_samples=4, random_state=1)
    assert len(source.read) == 4 and few.fingerprint == whole.subset(4, 1).fingerprint


def test_rows_one_after_another_are_taken_in_their_order():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(zip(torch.arange(24.0).view(12, 2), LABELS, strict=True))

    data = load_data(Stream())
    assert data.targets.tolist() == LABELS and data.inputs[:, 0].tolist() == list(range(0, 24, 2))
    splits = {
        "train": Rows(x=np.ones((4, 2)), label=LABELS[:4]),
        "validation": Rows(x=np.ones((3, 2)), label=LABELS[:3]),
    }
    assert len(load_data(splits)) == 4 and len(load_data(splits, split="test")) == 3
    with pytest.raises(ValueError, match=r"split must be one that the data hold, got 'all' and data of \['train'"):
        load_data(splits, split="all")


def test_the_columns_of_dicts_are_chosen_by_name_or_asked_for():
    ids, mask, image = torch.ones(12, 5, dtype=torch.long), torch.ones(12, 5), torch.randn(12, 3, 4, 4)
    text = load_data(Rows(input_ids=ids, attention_mask=mask, labels=LABELS))
    assert list(text.inputs) == ["input_ids", "attention_mask"] and torch.equal(text.inputs["input_ids"], ids)
    loader = DataLoader(
        [{"input_ids": i, "attention_mask": m, "labels": y} for i, m, y in zip(ids, mask, LABELS, strict=True)]
    )
    assert load_data(loader).fingerprint == text.fingerprint
    cifar100 = Rows(img=image, fine_label=LABELS, coarse_label=[0] * 12)
    with pytest.raises(ValueError, match=r"got \['coarse_label', 'fine_label', 'img'\], of which 0 may be the target"):
        load_data(cifar100)
    assert load_data(cifar100, target_key="fine_label").targets.tolist() == LABELS
    assert load_data(cifar100, target_key="fine_label").class_names == ("ant", "bee", "cat")
    two = Rows(image=image, x=mask, label=LABELS)
    with pytest.raises(ValueError, match=r"of which 2 may be the input beside 'label'\. Say which by input_key"):
        load_data(two)
    assert load_data(two, input_key="x").inputs.shape == (12, 5)
    assert list(load_data(two, input_key=("image", "x")).inputs) == ["image", "x"]
    with pytest.raises(ValueError, match=r"input_key must name entries of the rows, got \['picture'\]"):
        load_data(two, input_key="picture")


def test_rows_that_do_not_fit_are_one_sentence():
    with pytest.raises(ValueError, match=r"must have one shape and type, got \(2,\) in .* and then \(3,\)"):
        load_data([(torch.zeros(2), 0), (torch.zeros(3), 1), (torch.zeros(3), 1)])
    with pytest.raises(ValueError, match="must be tensors, arrays, numbers or PIL images, got object"):
        load_data([(object(), 0)] * 3)
    with pytest.raises(ValueError, match="must have the same inputs"):
        load_data([{"x": 1.0, "label": 0}, {"input_ids": 1, "attention_mask": 1, "label": 0}, {"x": 1.0, "label": 0}])
    with pytest.raises(ValueError, match=r"A row must be \(inputs, target\) or a dict, got Tensor"):
        load_data(DataLoader(torch.zeros(5, 2)))


def test_timms_names_are_read_from_their_folder(tmp_path):
    def cifar(root):
        """What torchvision's CIFAR10 reads, two images a file."""
        base = root / "cifar-10-batches-py"
        base.mkdir(parents=True)
        for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
            rows = RNG.integers(0, 256, (2, 3072), dtype=np.uint8)
            (base / name).write_bytes(pickle.dumps({"data": rows, "labels": [i, 9]}))
        (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {k}" for k in range(10)]}))

    cifar(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
        patch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
        data, test = load_data("torch/cifar10", root=tmp_path), load_data("torch/cifar10", root=tmp_path, split="test")
    assert data.inputs.shape == (10, 3, 32, 32) and len(test) == 2 and data.name == "torch/cifar10"
    assert data.targets.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9] and data.class_names[3] == "class 3"
    with pytest.raises(
        ValueError, match=r"'torch/cifar10' must be a data set of timm's that lies in root, .*Give root="
    ):
        load_data("torch/cifar10", root=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="Unknown torchvision dataset nonsense"):
        load_data("torch/nonsense", root=tmp_path)
    with pytest.raises(ValueError, match="split must be 'train' or 'test' for 'torch/cifar10'"):
        load_data("torch/cifar10", root=tmp_path, split="all")
    folder_of(tmp_path / "torch" / "mine")  # a folder that happens to be called so
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert len(load_data("torch/mine", split="all")) == 12


# ---- larger than memory ----


def nets():
    torch.manual_seed(0)
    narrow = nn.Sequential(  # keeps the contiguous layout, see core.network.layout
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 1, stride=2),
        nn.Flatten(),
        nn.Linear(512, 3),
    )
    return [load_model("test_vit", num_classes=3, image_size=16), load_model("test_resnet", num_classes=3), narrow]


@pytest.mark.parametrize(("which", "precision"), [(0, "float32"), (1, "float32"), (2, "float32"), (2, "float64")])
def test_streamed_examples_give_equal_numbers(tmp_path, which, precision):
    folder = classes_of(tmp_path, 12, size=16)
    plain, streamed = (load_data(folder, split="all", stream=stream) for stream in (False, True))
    assert streamed.streamed and not plain.streamed and torch.equal(plain.inputs, streamed.inputs)
    assert plain.fingerprint == streamed.fingerprint
    net = nets()[which]
    policy = "recompute" if which == 1 else "auto"
    a, b = (Landscape(net, data, batch_size=16, precision=precision, batch_norm=policy) for data in (plain, streamed))
    v = torch.randn(a.n_parameters, generator=torch.Generator().manual_seed(1), dtype=a.theta.dtype)
    assert a.loss() == b.loss() and a.fingerprint == b.fingerprint
    assert torch.equal(a.gradient(), b.gradient()) and torch.equal(a.hvp(v), b.hvp(v))
    assert a.accuracy() == b.accuracy()
    if which == 2:
        maps = [SurfaceMapper(resolution=3, batch_size=16).fit(net, data).losses_ for data in (plain, streamed)]
        assert np.array_equal(*maps)


def test_streamed_examples_train_to_equal_weights(tmp_path):
    folder = classes_of(tmp_path, 10, size=16)
    runs = [
        train(load_model("test_vit", num_classes=2, image_size=16), load_data(folder, split="all", stream=s), epochs=1)
        for s in (False, True)
    ]
    states = [run.model.state_dict() for run in runs]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_what_does_not_fit_goes_to_a_file_by_itself(tmp_path, monkeypatch):
    folder, rows = classes_of(tmp_path, 10, size=8), TensorDataset(torch.randn(30, 8), torch.arange(30) % 3)
    whole = load_data(folder, split="all")
    assert not whole.streamed and not load_data(rows).streamed
    monkeypatch.setattr(_store, "free_memory", lambda device: 2 * 1000)
    for source, inputs in ((folder, whole.inputs), (rows, rows.tensors[0])):
        data = load_data(source, split="all", stream=None)
        assert torch.equal(data.inputs, inputs)
    assert load_data(folder, split="all").streamed
    assert not load_data(folder, split="all", stream=False).streamed
    loader = load_data(DataLoader(rows, batch_size=4))  # its length is not known: it spills on the way
    assert torch.equal(loader.inputs, rows.tensors[0]) and torch.equal(loader.targets, rows.tensors[1])


def test_streamed_inputs_of_every_kind_come_back(monkeypatch):
    for kind in (torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool, torch.complex64):
        x = torch.randint(0, 2, (9, 3, 4, 5)).to(kind)
        assert torch.equal(load_data([(a, 0) for a in x], stream=True).inputs, x)
    several = [{"input_ids": a, "attention_mask": b, "label": 1} for a, b in torch.randint(5, (9, 2, 4))]
    assert load_data(several, stream=True).fingerprint == load_data(several).fingerprint
    data = load_data(several, stream=True)
    assert data.streamed and not data.subset(3).streamed
    with pytest.raises(ValueError, match="stream must be True, False or None, got 'yes'"):
        load_data(several, stream="yes")


def test_a_mapped_file_has_no_name_and_a_full_disk_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data = load_data([(torch.ones(3), 0)] * 5, stream=True)
    assert data.inputs.sum() == 15 and not [p for p in tmp_path.rglob("*") if p.is_file()]
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(_store.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"The disk must hold the examples .*for 5 examples, 0\.0 GiB free.*TMPDIR"):
        load_data([(torch.ones(3), 0)] * 5, stream=True)


def test_a_mapped_layout_is_turned_in_a_file_of_its_own():
    data = load_data([(torch.randn(3, 4, 5), 0) for _ in range(130)], stream=True)
    turned = remapped(data.inputs, torch.float64, torch.contiguous_format)
    assert turned.is_contiguous() and torch.equal(turned, data.inputs.double())
    assert remapped(data.inputs, torch.float32, torch.channels_last) is data.inputs


def test_large_tensors_are_hashed_in_blocks_to_the_same_key(monkeypatch):
    x = torch.randn(70, 3, 40, 40).to(memory_format=torch.channels_last)
    key = _identity.fingerprint(x)
    assert key == _identity.fingerprint(x.contiguous())
    monkeypatch.setattr(_identity, "_LARGE", 0)
    monkeypatch.setattr(_identity, "_CHUNK", 1 << 16)
    other = _identity.fingerprint(x)
    assert other == _identity.fingerprint(x.contiguous()) and other != key


def test_nothing_is_said_where_nothing_is_odd(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data(classes_of(tmp_path, 3), split="all")
