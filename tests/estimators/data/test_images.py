"""Image files of every depth and mode against numpy, and files that are refused by name."""

import numpy as np
import pytest
from PIL import Image

from estimators import load_data
from estimators.data import _images as images
from estimators.data._images import read_pixels

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (6, 5), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (6, 5)).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (6, 5), dtype=np.uint8)
ALPHA[0], ALPHA[1] = 0, 255


def over_white(colour, alpha):
    a = alpha[..., None] / 255
    return a * (colour / 255) + (1 - a)


def save(tmp_path, image, name):
    image.save(tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_grey_of_16_bits_is_scaled_by_its_depth(tmp_path, name):
    path = save(tmp_path, Image.fromarray(GREY16), name)
    for channels in (1, 3):
        pixels = read_pixels(path, channels)
        assert pixels.shape == (channels, 6, 5) and pixels.dtype == np.float32
        np.testing.assert_allclose(pixels, np.broadcast_to(GREY16 / 65535, pixels.shape), atol=1e-7)


def test_dark_16_bits_stay_dark_in_a_folder(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(3):
            save(tmp_path / name, Image.fromarray((GREY16 // 16).astype(np.uint16)), f"{i}.png")
    data = load_data(tmp_path, split="all", channels=1, mean=(0.0,), std=(1.0,), image_size=5)
    assert 0 < float(data.inputs.max()) <= 1 / 16


def test_integers_of_32_bits_and_floats(tmp_path):
    deep = RNG.integers(0, 2**31 - 1, (6, 5)).astype(np.int32)
    np.testing.assert_allclose(read_pixels(save(tmp_path, Image.fromarray(deep), "a.tif"), 1)[0], deep / (2**31 - 1))
    unit = RNG.random((6, 5), dtype=np.float32)
    np.testing.assert_array_equal(read_pixels(save(tmp_path, Image.fromarray(unit), "b.tif"), 1)[0], unit)
    with pytest.raises(ValueError, match="fit into 16 bits, which would come out black"):
        read_pixels(save(tmp_path, Image.fromarray(GREY16.astype(np.int32)), "c.tif"), 1)
    with pytest.raises(ValueError, match="negative pixels"):
        read_pixels(save(tmp_path, Image.fromarray(-deep), "d.tif"), 1)
    for values in (unit * 255, unit - 1, np.where(unit > 0.5, np.nan, unit)):
        with pytest.raises(ValueError, match="float pixels from"):
            read_pixels(save(tmp_path, Image.fromarray(values.astype(np.float32)), "e.tif"), 1)


def test_8_bits_are_what_they_were(tmp_path):
    np.testing.assert_array_equal(
        read_pixels(save(tmp_path, Image.fromarray(COLOUR), "a.png"), 3), (COLOUR / np.float32(255)).transpose(2, 0, 1)
    )
    grey = read_pixels(save(tmp_path, Image.fromarray(GREY8), "b.png"), 3)
    np.testing.assert_array_equal(grey, np.repeat((GREY8 / np.float32(255))[None], 3, 0))
    bits = read_pixels(save(tmp_path, Image.fromarray(GREY8 > 99), "c.png"), 1)
    np.testing.assert_array_equal(bits[0], (GREY8 > 99).astype(np.float32))


def test_what_is_transparent_lies_on_white(tmp_path):
    expected = over_white(COLOUR, ALPHA).transpose(2, 0, 1)
    rgba = Image.fromarray(np.dstack([COLOUR, ALPHA]))
    np.testing.assert_allclose(read_pixels(save(tmp_path, rgba, "a.png"), 3), expected, atol=1 / 255)
    la = Image.merge("LA", [Image.fromarray(GREY8), Image.fromarray(ALPHA)])
    expected = over_white(GREY8[..., None], ALPHA)[..., 0]
    np.testing.assert_allclose(read_pixels(save(tmp_path, la, "b.png"), 1)[0], expected, atol=1 / 255)


def test_palettes_with_and_without_transparency(tmp_path):
    indices = RNG.integers(0, 4, (6, 5), dtype=np.uint8)
    palette = np.array([[255, 0, 0], [0, 200, 0], [10, 20, 30], [7, 7, 7]], dtype=np.uint8)
    image = Image.new("P", (5, 6))
    image.putpalette(palette.tobytes())
    image.putdata(indices.ravel().tolist())
    plain = read_pixels(save(tmp_path, image, "a.png"), 3)
    np.testing.assert_allclose(plain.transpose(1, 2, 0), palette[indices] / 255, atol=1e-6)
    alpha = np.array([0, 255, 128, 255], dtype=np.uint8)
    image.save(tmp_path / "b.png", transparency=alpha.tobytes())
    expected = over_white(palette[indices], alpha[indices])
    np.testing.assert_allclose(read_pixels(tmp_path / "b.png", 3).transpose(1, 2, 0), expected, atol=1 / 255)


def test_cmyk_becomes_colours(tmp_path):
    image = Image.fromarray(COLOUR).convert("CMYK")
    pixels = read_pixels(save(tmp_path, image, "a.tif"), 3)
    np.testing.assert_allclose(pixels.transpose(1, 2, 0), COLOUR / 255, atol=1 / 255)


def classes_of(root, n, size=4):
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(RNG.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(root / name / f"{i:02d}.png")
    return root


def test_all_images_that_cannot_be_read_are_named(tmp_path):
    classes_of(tmp_path, 20)
    whole = (tmp_path / "bee" / "00.png").read_bytes()
    (tmp_path / "ant" / "03.png").write_bytes(b"not an image")
    (tmp_path / "ant" / "07.png").write_bytes(b"")
    (tmp_path / "bee" / "01.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "bee" / "02.png").write_bytes(whole[:40] + bytes(8) + whole[48:])
    with pytest.raises(ValueError, match=r"^Every image must be readable, got 4 that are not: ") as refused:
        load_data(tmp_path, split="all")
    for name in ("ant/03.png", "ant/07.png", "bee/01.png", "bee/02.png"):
        assert name in str(refused.value)
    for path in sorted((tmp_path / "ant").iterdir()):
        path.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"22 that are not: .* and 12 more\. Remove or replace them, or") as refused:
        load_data(tmp_path, split="all")
    assert str(refused.value).count(".png'") <= 20


def test_a_first_image_that_cannot_be_read_is_named_by_both_splits(tmp_path):
    classes_of(tmp_path / "train", 2)
    classes_of(tmp_path / "test", 2)
    (tmp_path / "train" / "ant" / "00.png").write_bytes(b"not an image")
    for split in ("train", "test"):
        with pytest.raises(ValueError, match=r"must be readable, got 1 that are not: .*train/ant/00\.png"):
            load_data(tmp_path, split=split)
    assert len(load_data(tmp_path, split="test", image_size=4)) == 4


@pytest.mark.parametrize("share", [1.1, 3.0])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_beyond_pillows_limit_are_refused_by_name(tmp_path, monkeypatch, share):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    classes_of(tmp_path, 3)
    side = int((1000 * share) ** 0.5)
    Image.new("RGB", (side, side)).save(tmp_path / "bee" / "01.png")
    with pytest.raises(ValueError, match=r"must be readable, got 1 that are not: .*bee/01\.png.*(limit|bomb)"):
        load_data(tmp_path, split="all", image_size=4)


def test_a_huge_first_image_does_not_set_the_size_for_all(tmp_path, monkeypatch):
    classes_of(tmp_path, 10)
    Image.new("1", (2000, 2000)).save(tmp_path / "ant" / "00.png")
    assert load_data(tmp_path, split="all").inputs.shape == (20, 3, 4, 4)
    (tmp_path / "ant" / "00.png").unlink()
    assert load_data(tmp_path, split="all").inputs.shape == (19, 3, 4, 4)
    with pytest.raises(ValueError, match=r"19 images of 1000000 × 1000000 pixels must fit .* Lower image_size or"):
        load_data(tmp_path, split="all", image_size=10**6)
    monkeypatch.setattr(images, "GUESSED_BYTES", 19 * 3 * 16 * 4)
    assert len(load_data(tmp_path, split="all")) == 19
    monkeypatch.setattr(images, "GUESSED_BYTES", 19 * 3 * 16 * 4 - 1)
    with pytest.raises(ValueError, match="image_size must be given"):
        load_data(tmp_path, split="all")
    assert len(load_data(tmp_path, split="all", n_samples=18)) == 18


# ---- left out by choice, sizes, bombs, names ----


def damaged(root):
    classes_of(root, 10)
    (root / "ant" / "03.png").write_bytes(b"not an image")
    (root / "bee" / "01.png").write_bytes(b"")
    return root


def test_unreadable_images_are_left_out_by_choice_and_listed(tmp_path):
    whole = load_data(classes_of(tmp_path / "whole", 10), split="all", image_size=4)
    damaged(tmp_path / "damaged")
    with pytest.warns(UserWarning, match=r"2 images were left out: .*ant/03\.png.*bee/01\.png"):
        data = load_data(tmp_path / "damaged", split="all", unreadable="skip")
    assert len(data) == 18 == len(data.inputs) and len(data.skipped) == 2 and "03.png" in data.skipped[0]
    assert data.targets.tolist() == [0] * 9 + [1] * 9 and not whole.skipped
    kept = [i for i in range(20) if i not in (3, 11)]
    for stream in (True, False):
        with pytest.warns(UserWarning, match="left out"):
            again = load_data(tmp_path / "damaged", split="all", unreadable="skip", stream=stream)
        assert again.fingerprint == data.fingerprint
    assert whole.take(kept).targets.tolist() == data.targets.tolist()
    with pytest.raises(ValueError, match=r"got 2 that are not: .* or leave them out: unreadable='skip'"):
        load_data(tmp_path / "damaged", split="all")
    for path in (tmp_path / "damaged").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="got 20 that are not"):
        load_data(tmp_path / "damaged", split="all", unreadable="skip")
    with pytest.raises(ValueError, match="unreadable must be one of"):
        load_data(tmp_path / "damaged", unreadable="ignore")


def test_images_of_unequal_sizes_take_the_usual_one(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i, size in enumerate([(90, 3), (8, 5), (8, 8), (7, 9), (1, 40)]):
            Image.new("RGB", size).save(tmp_path / name / f"{i}.png")
    assert load_data(tmp_path, split="all").inputs.shape == (10, 3, 8, 8)
    assert load_data(tmp_path, split="all", image_size=5).inputs.shape == (10, 3, 5, 5)


def test_an_image_of_no_size_is_named(tmp_path):
    classes_of(tmp_path, 3)
    (tmp_path / "ant" / "01.ppm").write_bytes(b"P6\n0 0\n255\n")
    (tmp_path / "bee" / "01.ppm").write_bytes(b"P6\n0 5\n255\n")
    with pytest.raises(ValueError, match=r"got 2 that are not: .*ant/01\.ppm.*bee/01\.ppm"):
        load_data(tmp_path, split="all")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    """144 megapixels of one colour in a few kilobytes: Pillow's limit, then memory, by the header alone."""
    classes_of(tmp_path, 3)
    bomb = tmp_path / "ant" / "01.png"
    Image.new("1", (12_000, 12_000)).save(bomb)
    assert bomb.stat().st_size < 100_000

    def unpacked(self):
        raise AssertionError("it was unpacked")

    with pytest.raises(ValueError, match=r"got 1 that are not: .*ant/01\.png.*12000 × 12000 pixels, more than"):
        load_data(tmp_path, split="all", image_size=4)
    with Image.open(bomb) as image:
        monkeypatch.setattr(type(image), "load", unpacked)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        monkeypatch.setattr("estimators.checks.free_memory", lambda device: 10**9)
        with pytest.raises(ValueError, match=r"12000 × 12000 pixels must fit into the free memory .* 4\.16 GiB"):
            images.pixels_of(image, 3)


def test_another_format_under_the_name_of_a_picture_is_not_opened(tmp_path):
    """PostScript would be run by another program."""
    classes_of(tmp_path, 3)
    (tmp_path / "ant" / "01.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    Image.new("RGB", (4, 4)).save(tmp_path / "bee" / "01.png", format="JPEG")  # told by its content
    with pytest.raises(ValueError, match=r"got 1 that are not: .*ant/01\.png.*cannot identify"):
        load_data(tmp_path, split="all")
