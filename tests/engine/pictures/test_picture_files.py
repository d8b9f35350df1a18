"""engine.translate and files: folders, lists, formats, transparency, orientation, strips, going on."""

import resource

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image, ImageOps

import engine.translate
from engine.inference.batch_function import BatchFunction
from engine.inference.translator import Translator
from engine.pictures.role_format import RoleFormat


def negative(pictures, *_):
    """The negative of a picture: a network whose outputs are known."""
    return -pictures


@pytest.fixture
def network(monkeypatch):
    """Puts a function in the place of the reference's generator."""

    def use(function=negative, *, channels=(3, 3), stored=(None, None), **more):
        roles = [RoleFormat(channels=c, stored=s) for c, s in zip(channels, stored, strict=True)]
        compiled = BatchFunction(function)
        translator = Translator(
            description="a test",
            input=roles[0],
            output=roles[1],
            check_size=lambda height, width: None,
            **{"translate": compiled} | more,
            compiled=compiled,
        )
        monkeypatch.setattr(engine.translate, "translator_of_torch_file", lambda *_, **__: translator)
        return translator

    return use


@pytest.fixture
def run(translate, tmp_path):
    """Runs the program on tmp_path/in: run(flags) -> exit code, stdout, stderr."""

    def start(**flags):
        given = {"torch_checkpoint": "g.pth", "input": tmp_path / "in", "output": tmp_path / "out"}
        return translate(**given | flags)

    return start


def noise(*shape, seed=0, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def save(path, pixels, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **kwargs)
    return path


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def load(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_folders_in_folders_keep_their_paths_and_the_output_is_no_input(run, network, tmp_path):
    network()
    pictures = {name: noise(6, 9, 3, seed=n) for n, name in enumerate(("a", "b/a", "b/c d/é"))}
    for name, pixels in pictures.items():
        save(tmp_path / "in" / f"{name}.png", pixels)
    save(tmp_path / "in" / "b" / "._a.png", pictures["a"])  # a file of macOS
    output = tmp_path / "in" / "out"
    for _ in range(2):
        assert run(output=output)[0] == 0
        assert files_in(output) == [f"{name}.png" for name in pictures]
    for name, pixels in pictures.items():
        np.testing.assert_array_equal(load(output / f"{name}.png"), 255 - pixels)
    assert run(input=tmp_path / "in" / "b" / "**" / "*.png", output=tmp_path / "part")[0] == 0
    assert files_in(tmp_path / "part") == ["a.png", "c d/é.png"]


def test_a_list_of_pictures(run, network, tmp_path):
    network()
    for name in ("in/x/a", "in/b", "elsewhere/c"):
        save(tmp_path / f"{name}.png", noise(4, 4, 3))
    lines = ["x/a.png", "", f"{tmp_path}/elsewhere/c.png", "  b.png ", "x/a.png", "gone.png"]
    (tmp_path / "in" / "list.txt").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    code, told, errors = run(input=tmp_path / "in" / "list.txt")
    assert code == 2 and "gone.png: does not exist" in errors and errors.count("\n") == 1
    assert files_in(tmp_path / "out") == ["b.png", "c.png", "x/a.png"]
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    for name, expected in (("empty", "lists no picture"), ("bytes", "is not a text in UTF-8")):
        code, _, errors = run(input=tmp_path / f"{name}.txt")
        assert code == 2 and expected in errors and errors.count("\n") == 1


def test_formats(run, network, tmp_path):
    network()
    smooth = np.uint8(np.add.outer(np.arange(32), 3 * np.arange(48))[..., np.newaxis] + [0, 20, 60])
    save(tmp_path / "in" / "a.png", smooth)
    (tmp_path / "in" / "deep.png").write_bytes(tf.io.encode_png(noise(8, 8, 3, dtype=np.uint16)).numpy())
    deep = 65535 - noise(8, 8, 3, dtype=np.uint16)
    endings = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tif"}
    for format, ending in endings.items():
        output = tmp_path / format
        code, told, errors = run(output=output, format=format)
        assert (code, errors) == (0, "")
        assert files_in(output) == [f"a{ending}", f"deep{ending}"]
        pixels = tifffile.imread(output / "a.tif") if format == "tiff" else load(output / f"a{ending}")
        assert pixels.dtype == np.uint8
        error = np.abs(pixels.astype(int) - (255 - smooth)).max()
        assert error <= (0 if format in ("png", "tiff") else 12)
        with Image.open(output / f"a{ending}") as image:
            assert image.format == format.upper()
        lost = "1 of 2 pictures is of uint16 values, written with the 8 bits"
        assert (lost in told) == (format in ("jpeg", "webp"))
    written = tf.io.decode_png((tmp_path / "png" / "deep.png").read_bytes(), dtype=tf.uint16).numpy()
    assert np.abs(written.astype(int) - deep).max() <= 1
    written = tifffile.imread(tmp_path / "tiff" / "deep.tif")
    assert written.dtype == np.uint16 and np.abs(written.astype(int) - deep).max() <= 1
    assert load(tmp_path / "jpeg" / "deep.jpg").dtype == np.uint8


def test_what_a_format_cannot_hold_is_refused_by_name(run, network, tmp_path):
    network()
    wide = Image.new("RGB", (16384, 1))
    (tmp_path / "in").mkdir()
    wide.save(tmp_path / "in" / "wide.png")
    save(tmp_path / "in" / "a.png", noise(4, 4, 3))
    code, _, errors = run(format="webp")
    assert code == 2 and errors.count("\n") == 1 and "wide.png: 16384x1 pixels do not fit into webp" in errors
    assert files_in(tmp_path / "out") == ["a.webp"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [1, 4])
def test_transparency_is_carried_over(run, network, tmp_path, channels, factor):
    def enlarged(pictures, *_):
        return -tf.repeat(tf.repeat(pictures, factor, axis=1), factor, axis=2)

    network(enlarged, channels=(channels, channels), factor=factor)
    colours = noise(8, 12, channels)
    alpha = np.uint8(np.linspace(0, 255, 8 * 12).reshape(8, 12, 1))
    save(tmp_path / "in" / "a.png", np.concatenate([colours, alpha], axis=-1))
    large = (255 - colours).repeat(factor, 0).repeat(factor, 1)
    for format, ending in {"png": ".png", "webp": ".webp", "tiff": ".tif"}.items():
        output = tmp_path / format
        assert run(output=output, format=format)[::2] == (0, "")
        path = output / f"a{ending}"
        pixels = tifffile.imread(path) if format == "tiff" else load(path)
        if format == "webp":
            pixels = pixels[..., [0, 3] if channels == 1 else [0, 1, 2, 3]]
        assert pixels.shape == (8 * factor, 12 * factor, channels + 1)
        if format != "webp":
            np.testing.assert_array_equal(pixels[..., :-1], large)
        resized = Image.fromarray(alpha[..., 0]).resize((12 * factor, 8 * factor), Image.Resampling.BICUBIC)
        assert np.abs(pixels[..., -1].astype(int) - np.asarray(resized)).max() <= (0 if factor == 1 else 2)
    code, told, _ = run(output=tmp_path / "jpeg", format="jpeg")
    assert code == 0 and "without the transparency, which jpeg cannot hold" in told
    assert load(tmp_path / "jpeg" / "a.jpg").shape[:2] == (8 * factor, 12 * factor)


def test_transparency_of_16_bits_and_of_a_grey_picture_for_a_colour_network(run, network, tmp_path):
    network()
    deep = noise(5, 6, 4, dtype=np.uint16)
    grey = noise(5, 6, 2)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "deep.png").write_bytes(tf.io.encode_png(deep).numpy())
    save(tmp_path / "in" / "grey.png", grey)
    assert run()[0] == 0
    written = tf.io.decode_png((tmp_path / "out" / "deep.png").read_bytes(), dtype=tf.uint16).numpy()
    np.testing.assert_array_equal(written[..., 3], deep[..., 3])
    assert np.abs(written[..., :3].astype(int) - (65535 - deep[..., :3])).max() <= 1
    np.testing.assert_array_equal(
        load(tmp_path / "out" / "grey.png"), np.dstack([255 - grey[..., :1]] * 3 + [grey[..., 1:]])
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_as_pillow_does(run, network, tmp_path, orientation):
    network()
    exif = Image.Exif()
    exif[0x0112] = orientation
    for ending, settings in (("jpg", {"quality": 100, "subsampling": 0}), ("png", {})):
        path = save(tmp_path / "in" / ending / f"a.{ending}", noise(8, 16, 3), exif=exif, **settings)
        output = tmp_path / "out" / ending
        assert run(input=path, output=output)[0] == 0
        with Image.open(path) as image:
            upright = np.asarray(ImageOps.exif_transpose(image))
        written = load(output / "a.png")
        assert written.shape == upright.shape
        assert np.abs(written.astype(int) - (255 - upright)).max() <= 1
        with Image.open(output / "a.png") as image:
            assert image.getexif().get(0x0112, 1) == 1  # or it would be turned once more


def test_strips_show_input_output_and_target(run, network, tmp_path):
    network()
    a, b = noise(6, 8, 3, seed=1), noise(6, 8, 3, seed=2)
    target = noise(6, 8, 3, seed=3)
    save(tmp_path / "in" / "x" / "a.png", a)
    save(tmp_path / "in" / "b.png", b)
    save(tmp_path / "targets" / "x" / "a.webp", target, lossless=True)
    save(tmp_path / "targets" / "other.png", target)
    code, told, _ = run(compare=True, target=tmp_path / "targets")
    assert code == 0 and "1 of 2 pictures is without a target" in told
    assert files_in(tmp_path / "out") == ["b.png", "b_compare.png", "x/a.png", "x/a_compare.png"]
    np.testing.assert_array_equal(load(tmp_path / "out/x/a_compare.png"), np.hstack([a, 255 - a, target]))
    np.testing.assert_array_equal(load(tmp_path / "out/b_compare.png"), np.hstack([b, 255 - b]))
    assert run(compare=True, output=tmp_path / "jpeg", format="jpeg")[0] == 0
    assert load(tmp_path / "jpeg" / "b_compare.jpg").shape == (6, 16, 3)
    code, _, errors = run(
        compare=True,
        target=tmp_path / "targets",
        output=tmp_path / "targets",
        input=tmp_path / "in/x",
        format="webp",
    )
    assert code == 0  # targets/a.webp is a new file
    code, _, errors = run(
        compare=True, target=tmp_path / "targets", output=tmp_path / "targets", format="webp"
    )
    assert code == 2 and f"would overwrite {tmp_path}/targets/x/a.webp" in errors
    np.testing.assert_array_equal(load(tmp_path / "targets" / "x" / "a.webp"), target)


def test_a_strip_may_not_replace_another_picture(run, network, tmp_path):
    network()
    save(tmp_path / "in" / "a.png", noise(4, 4, 3))
    save(tmp_path / "in" / "a_compare.png", noise(4, 4, 3))
    assert run()[0] == 0
    code, _, errors = run(compare=True, output=tmp_path / "strips")
    assert code == 2 and "would both become" in errors and errors.count("\n") == 1
    assert not (tmp_path / "strips").exists()


def test_skip_existing_goes_on_where_it_stopped(run, network, tmp_path):
    network()
    for name in "abc":
        save(tmp_path / "in" / f"{name}.png", noise(4, 4, 3))
    output = tmp_path / "out"
    assert run(input=tmp_path / "in" / "[ab].png")[0] == 0
    (output / "a.png").write_bytes(b"kept")
    (output / "b.png").write_bytes(b"")  # as after a loss of power
    code, told, _ = run(skip_existing=True)
    assert code == 0 and "skipped 1 of 3 pictures" in told and "translated 2 pictures" in told
    assert (output / "a.png").read_bytes() == b"kept"
    assert load(output / "b.png").shape == load(output / "c.png").shape == (4, 4, 3)
    code, told, _ = run(skip_existing=True)
    assert code == 0 and "skipped 3 of 3 pictures" in told
    # Without all that is asked for, a picture is not done.
    code, told, _ = run(skip_existing=True, raw=True)
    assert code == 0 and "skipped 0 of 3 pictures" in told
    assert files_in(output) == [f"{name}.{end}" for name in "abc" for end in ("npy", "png")]


def test_a_full_disk_is_one_line_and_leaves_no_half_written_file(run, network, tmp_path):
    """The operating system refuses larger files, as a full disk would."""
    network()
    save(tmp_path / "in" / "a.png", np.zeros((4, 4, 3), np.uint8))
    save(tmp_path / "in" / "b.png", noise(64, 64, 3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        code, _, errors = run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2 and errors.count("\n") == 1
    assert f"--output={tmp_path}/out: cannot be written" in errors and "choose another folder" in errors
    assert files_in(tmp_path / "out") in ([], ["a.png"])
    code, told, _ = run(skip_existing=True)
    assert code == 0 and files_in(tmp_path / "out") == ["a.png", "b.png"]


def test_a_batch_that_is_too_large_for_the_memory_is_translated_one_by_one(run, network, tmp_path):
    def translate(pictures, *_):
        if pictures.shape[0] * pictures.shape[1] > 8:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return -pictures

    network(translate=translate)
    for number in range(3):
        save(tmp_path / "in" / f"{number}.png", noise(8, 4, 3, seed=number))
    save(tmp_path / "in" / "large.png", noise(9, 4, 3))
    code, _, errors = run()
    assert code == 2 and errors.count("\n") == 1
    assert "large.png: 4x9 pixels do not fit into the memory; lower --memory_gib=2" in errors
    assert files_in(tmp_path / "out") == ["0.png", "1.png", "2.png"]


def test_a_bad_picture_among_many_is_named_and_the_others_are_translated(run, network, tmp_path):
    def first_is_broken(pictures, *_):
        bad = tf.reduce_min(pictures, axis=[1, 2, 3], keepdims=True) == 1.0  # all white
        return tf.where(bad, np.nan, -pictures)

    network(first_is_broken)
    for number in range(12):
        save(tmp_path / "in" / f"{number:02d}.png", noise(4, 4, 3, seed=number))
    save(tmp_path / "in" / "05.png", np.full((4, 4, 3), 255, np.uint8))
    (tmp_path / "in" / "07.png").write_bytes(b"no picture")
    code, told, errors = run(batch=4)
    assert code == 3 and "05.png: the network's output is not finite" in errors  # as before: the worse code
    assert "refused 2 of 12 pictures" in told and "07.png: not an image" in told
    assert len(files_in(tmp_path / "out")) == 10
    for number in (0, 4, 6, 11):
        expected = 255 - noise(4, 4, 3, seed=number)
        np.testing.assert_array_equal(load(tmp_path / "out" / f"{number:02d}.png"), expected)
