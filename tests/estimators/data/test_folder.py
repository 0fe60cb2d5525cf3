"""Folders of images: labels by name, splits that never overlap, and layouts that are refused."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from estimators import list_data, load_data
from estimators.data._folder import split_indices

COLOURS = {"ant": 10, "bee": 90, "cat": 170, "dog": 250}


def fill(root, **counts):
    """Give each class images of its own grey, so that a shifted label shows in the pixels."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("L", (4, 4), COLOURS.get(name, 128)).save(root / name / f"{i}.png")
    return root


def names_of(data):
    return [data.class_names[i] for i in data.targets]


def check_labels(root, split, count):
    data = load_data(root, split=split, channels=1, mean=(0.0,), std=(1.0,))
    greys = (data.inputs[:, 0, 0, 0] * 255).round().int().tolist()
    assert [COLOURS[name] for name in names_of(data)] == greys
    assert len(data) == count == len(list_data(root, split=split))
    assert list(list_data(root, split=split).targets) == data.targets.tolist()
    return data


def test_a_split_that_lacks_a_class_shifts_no_label(tmp_path):
    fill(tmp_path / "train", ant=2, cat=2, dog=2)
    fill(tmp_path / "val", bee=1, cat=3)
    fill(tmp_path / "test", dog=2, cat=1)
    for split, count in {"train": 6, "test": 3, "all": 13}.items():
        assert check_labels(tmp_path, split, count).class_names == ("ant", "bee", "cat", "dog")
    assert set(names_of(load_data(tmp_path, split="test"))) == {"cat", "dog"}


def test_an_empty_folder_of_a_class_keeps_its_number(tmp_path):
    fill(tmp_path / "train", ant=3, cat=3)
    (tmp_path / "train" / "bee").mkdir()
    fill(tmp_path / "test", cat=2, bee=1)
    assert check_labels(tmp_path, "test", 3).class_names == ("ant", "bee", "cat")


def test_all_joins_the_splits(tmp_path):
    fill(tmp_path / "train", ant=3, bee=2)
    fill(tmp_path / "Test", ant=1, bee=2)
    data = check_labels(tmp_path, "all", 8)
    assert data.class_names == ("ant", "bee") and len(load_data(tmp_path, split="test")) == 3


@pytest.mark.parametrize("counts", [{"ant": 20, "bee": 15}, {"ant": 2, "bee": 2}, {"ant": 98, "bee": 2, "cat": 1}])
def test_train_alone_holds_out_a_fixed_part_of_several_classes(tmp_path, counts):
    fill(tmp_path / "train", **counts)
    total = sum(counts.values())
    train, test = (list_data(tmp_path, split=s) for s in ("train", "test"))
    assert not set(train.files) & set(test.files) and len(train) + len(test) == total
    assert len(set(test.targets)) >= 2 and len(set(train.targets)) >= 2
    assert list_data(tmp_path, split="test").files == test.files
    check_labels(tmp_path, "test", len(test))
    check_labels(tmp_path, "all", total)
    assert len(test) == pytest.approx(total / 5, abs=1.2)


def test_a_plain_folder_holds_out_two_classes_too(tmp_path):
    fill(tmp_path, ant=98, bee=2)
    assert set(list_data(tmp_path, split="test").targets) == {0, 1}
    few = fill(tmp_path / "few", ant=5, bee=1)
    with pytest.raises(ValueError, match="Holding out a fifth must leave two classes"):
        list_data(few, split="test")


def test_the_split_of_enough_examples_is_stratified_and_stays_what_it_was():
    targets = np.repeat(np.arange(4), 25)
    test, train = split_indices(targets, "test"), split_indices(targets, "train")
    assert np.bincount(targets[test]).tolist() == [5] * 4 and np.array_equal(np.sort([*train, *test]), np.arange(100))
    assert test[:5].tolist() == split_indices(targets, "test")[:5].tolist()


def test_training_on_a_test_folder_alone_is_refused(tmp_path):
    fill(tmp_path / "test", ant=5, bee=5)
    check_labels(tmp_path, "test", 10)
    check_labels(tmp_path, "all", 10)
    with pytest.raises(ValueError, match=r"split='train' must have a folder 'train' .* got test alone .* Add one, or"):
        load_data(tmp_path, split="train")


def test_classes_may_be_called_like_splits(tmp_path):
    fill(tmp_path, train=5, bus=5, test=5)
    data = list_data(tmp_path, split="all")
    assert data.class_names == ("bus", "test", "train") and len(data) == 15
    fill(tmp_path / "train", steam=2, electric=2)
    (tmp_path / "train" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"classes or splits, got 'train' .* beside 'bus', 'test'"):
        list_data(tmp_path, split="all")


def test_splits_without_a_class_in_common_are_refused(tmp_path):
    fill(tmp_path / "train", ant=2, bee=2)
    fill(tmp_path / "val", images=4)  # Tiny ImageNet's: its labels are in a file
    with pytest.raises(ValueError, match=r"same names, got 'ant', 'bee' in 'train' and 'images' in 'val'"):
        list_data(tmp_path, split="train")


@pytest.mark.parametrize("places", [("one", "two"), ("photos",), ("set/train", "set/test")])
def test_a_folder_one_level_too_high_is_refused_with_what_to_do(tmp_path, places):
    for place in places:
        fill(tmp_path / place, ant=2, bee=2)
    with pytest.raises(ValueError, match=r"one level too high\. Give one of its folders, such as") as refused:
        load_data(tmp_path, split="all")
    assert str(tmp_path / places[0].split("/")[0]) in str(refused.value)
    assert len(load_data(tmp_path / places[0], split="all")) == 4


def test_a_folder_levels_too_high_beside_other_pictures_is_refused(tmp_path):
    fill(tmp_path, holiday=3)
    fill(tmp_path / "sets" / "pets" / "train", ant=2, bee=2)
    fill(tmp_path / "sets" / "pets" / "test", ant=2, bee=2)
    with pytest.raises(ValueError, match=r"with splits of its own in 'sets/pets': .* lies too high\. Give '.*pets'"):
        list_data(tmp_path, split="all")
    assert len(list_data(tmp_path / "sets" / "pets", split="all")) == 8


def test_folders_inside_classes_are_the_classes(tmp_path):
    for name in ("ant", "bee"):
        fill(tmp_path / "tiny" / name, images=3)  # one folder each, as in Tiny ImageNet
        fill(tmp_path / "kinds" / name, **{f"{name}-red": 2, f"{name}-black": 2})
    assert list_data(tmp_path / "tiny", split="all").class_names == ("ant", "bee")
    assert len(list_data(tmp_path / "kinds", split="all")) == 8


def test_a_folder_one_level_too_low_is_refused(tmp_path):
    fill(tmp_path, ant=3)
    with pytest.raises(ValueError, match="got 3 images in no class's folder"):
        load_data(tmp_path / "ant")


def test_links_out_of_the_folder_and_hidden_files_are_left_out(tmp_path):
    secret = fill(tmp_path / "elsewhere", cat=3)
    root = fill(tmp_path / "data", ant=3, bee=3)
    (root / "bee" / "stolen.png").symlink_to(secret / "cat" / "0.png")
    (root / "cat").symlink_to(secret / "cat")
    (root / "ant" / "again").symlink_to(root, target_is_directory=True)  # a loop
    (root / "ant" / "link.png").symlink_to(root / "ant" / "0.png")  # stays inside
    fill(root / "ant" / ".ipynb_checkpoints", copies=2)
    (root / "bee" / "._0.png").write_bytes(b"AppleDouble")
    fill(root / "__MACOSX", ant=1)
    with pytest.warns(UserWarning, match=r"not followed: .*stolen\.png.*cat"):
        listed = list_data(root, split="all")
    assert listed.class_names == ("ant", "bee") and len(listed) == 7
    assert all(os.path.realpath(path).startswith(os.path.realpath(root)) for path in listed.files)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "cat").symlink_to(secret / "cat")
    with pytest.raises(ValueError, match=r"Links out of the folder are not followed: .*cat"):
        list_data(alone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        link = tmp_path / "link"
        link.symlink_to(secret, target_is_directory=True)  # the folder itself may be a link
        assert len(list_data(link, split="all")) == 3


def test_names_of_any_script_are_matched_across_splits(tmp_path):
    """Accents come composed from most systems and decomposed from macOS; both are one class."""
    composed, apart = "caf\u00e9", "cafe\u0301"
    fill(tmp_path / "train", **{composed: 2, "고양이": 2, "кошка": 2, "猫 🐈": 2, "a\nb": 2})
    fill(tmp_path / "test", **{apart: 3, "고양이": 1})
    listed = list_data(tmp_path, split="test")
    assert listed.class_names == tuple(sorted([composed, "고양이", "кошка", "猫 🐈", "a\nb"]))
    assert [listed.class_names[i] for i in listed.targets].count(composed) == 3
    fill(tmp_path / "train", **{apart: 4})  # both in one split: one class, no image lost
    assert len(list_data(tmp_path, split="train")) == 14 and composed in list_data(tmp_path).class_names
    assert len(load_data(tmp_path, split="all", image_size=4)) == 18


def test_names_that_are_no_text_are_escaped(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    try:
        fill(tmp_path / "x", **{name: 2, "ant": 2})
    except OSError:  # a file system that takes text alone
        return
    data = load_data(tmp_path / "x", split="all")
    assert data.class_names == ("ant", "caf\\xe9") and "".join(data.class_names).encode()
    (tmp_path / "x" / name / "0.png").write_bytes(b"")
    with pytest.raises(ValueError, match="must be readable") as refused:
        load_data(tmp_path / "x", split="all")
    assert str(refused.value).encode()


def test_classes_that_hold_folders_are_said(tmp_path):
    fill(tmp_path / "pets", cat=2, dog=2)
    fill(tmp_path / "birds", eagle=2, sparrow=2)
    with pytest.warns(UserWarning, match=r"'pets' is one class; its images lie in folders inside it: 'cat', 'dog'\."):
        data = load_data(tmp_path, split="all")
    assert data.class_names == ("birds", "pets")
    assert list_data(tmp_path, split="all").notes[0].startswith("'birds' is one class")
    fill(tmp_path / "flat", ant=2, bee=2)
    assert list_data(tmp_path / "flat", split="all").notes == ()
