import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from estimators import data_settings, load_data, load_model


def make_folder(root, classes=("ant", "bee"), n=5, size=9):
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def test_digits_splits_are_disjoint_fixed_and_complete():
    train, test, everything = (load_data("digits", split=s) for s in ("train", "test", "all"))
    assert len(train) + len(test) == len(everything) == 1797
    assert train.inputs.shape[1:] == (3, 32, 32) and train.targets.dtype == torch.int64
    rows = {tuple(x.flatten()[::97].tolist()) for x in train.inputs}
    assert sum(tuple(x.flatten()[::97].tolist()) in rows for x in test.inputs) < 5
    assert load_data("digits").fingerprint == train.fingerprint != test.fingerprint
    assert np.bincount(test.targets).min() >= 30


def test_samples_follow_their_seed():
    a, b, c = (load_data("digits", n_samples=50, random_state=s) for s in (0, 0, 1))
    assert a.fingerprint == b.fingerprint != c.fingerprint and len(a) == 50


def test_digits_are_normalised_as_asked():
    data = load_data("digits", mean=(0.5,) * 3, std=(0.5,) * 3, image_size=16)
    assert data.inputs.shape[-1] == 16
    assert float(data.inputs.min()) == -1.0 and float(data.inputs.max()) <= 1.0
    assert load_data("digits", channels=1).inputs.shape[1] == 1


def test_folder_of_classes(tmp_path):
    make_folder(tmp_path)
    everything = load_data(tmp_path, split="all", image_size=8)
    assert everything.class_names == ("ant", "bee") and everything.inputs.shape == (10, 3, 8, 8)
    train, test = load_data(tmp_path, split="train"), load_data(tmp_path, split="test")
    assert (len(train), len(test)) == (8, 2)
    pixel = np.asarray(Image.open(tmp_path / "ant" / "0.png"))[0, 0, 0] / 255
    assert load_data(tmp_path, split="all").inputs[0, 0, 0, 0].item() == pytest.approx(
        (pixel - 0.485) / 0.229, rel=1e-5
    )


def test_folder_with_its_own_split(tmp_path):
    make_folder(tmp_path / "train", n=3)
    make_folder(tmp_path / "val", n=2)
    assert len(load_data(tmp_path)) == 6 and len(load_data(tmp_path, split="test")) == 4


def test_arrays_datasets_and_loaders_agree():
    x, y = torch.randn(7, 3, 4, 4), torch.arange(7) % 3
    whole = load_data((x, y))
    pairs = TensorDataset(x, y)
    dicts = [{"pixel_values": a, "labels": b} for a, b in pairs]
    sources = [(x.numpy(), y.numpy()), pairs, DataLoader(pairs, batch_size=3), DataLoader(dicts, batch_size=2)]
    assert {load_data(s).fingerprint for s in sources} == {whole.fingerprint}


def test_what_a_timm_model_expects():
    settings = data_settings(load_model("test_resnet", num_classes=10, in_chans=1))
    assert settings["channels"] == 1 and len(settings["mean"]) == 1
    assert data_settings(torch.nn.Linear(2, 2)) == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: "no such folder", "'digits' or an existing folder"),
        (lambda p: p, "no image in"),
        (lambda p: (torch.zeros(1, 2), torch.zeros(1)), "at least 2 examples"),
        (lambda p: (torch.zeros(3, 2), torch.zeros(2)), "equal lengths"),
        (lambda p: DataLoader([{"a": 1, "b": 2}]), "a dict must have one of"),
    ],
)
def test_bad_sources_are_said(make, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_data(make(tmp_path))


def test_other_bad_input_is_said(tmp_path):
    with pytest.raises(ValueError, match="split must be one of"):
        load_data("digits", split="validation")
    with pytest.raises(ValueError, match="n_samples must be between 1 and 1437"):
        load_data("digits", n_samples=5000)
    with pytest.raises(TypeError, match="data must be 'digits', a folder"):
        load_data(42)
    make_folder(tmp_path)
    (tmp_path / "ant" / "0.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="Every image must be readable"):
        load_data(tmp_path)


@pytest.mark.parametrize("count", [2.5, "3", True, np.float64(4.0)])
def test_a_share_of_an_example_is_refused(count):
    for source in ("digits", (torch.zeros(9, 3), torch.zeros(9, dtype=torch.int64))):
        with pytest.raises(ValueError, match="n_samples must be an integer of at least 0, got"):
            load_data(source, n_samples=count)


@pytest.mark.parametrize("size", [0, -3, 2.5, (32, 32)])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="image_size must be an integer of at least 1, got"):
        load_data("digits", image_size=size)


def test_what_is_documented_of_sizes_holds(tmp_path):
    assert load_data("digits").inputs.shape[-1] == 32
    assert set(data_settings(load_model("test_resnet"))) == {"channels", "mean", "std"}
    assert "image_size" not in data_settings.__doc__
    rng = np.random.default_rng(0)
    for place, shape in {"test/a": (5, 7), "test/b": (7, 7), "train/a": (6, 9), "train/b": (12, 12)}.items():
        (tmp_path / place).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 255, (*shape, 3), dtype=np.uint8)).save(tmp_path / place / f"{i}.png")
    # the middle one of the widths of all splits, the same for each of them
    assert {load_data(tmp_path, split=s).inputs.shape[-2:] for s in ("train", "test", "all")} == {(9, 9)}


def test_of_a_folder_only_the_drawn_images_are_read(tmp_path):
    make_folder(tmp_path, n=20)
    whole = load_data(tmp_path, split="all")
    for seed in (0, 1):
        drawn = load_data(tmp_path, split="all", n_samples=7, random_state=seed)
        assert drawn.fingerprint == whole.subset(7, seed).fingerprint
    for path in sorted(tmp_path.rglob("*.png"))[5:]:
        path.write_bytes(b"not an image")
    rest = [seed for seed in range(200) if not (np.random.default_rng(seed).permutation(40)[:2] >= 5).any()]
    assert len(load_data(tmp_path, split="all", n_samples=2, random_state=rest[0])) == 2
