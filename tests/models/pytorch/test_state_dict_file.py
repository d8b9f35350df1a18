"""Files of PyTorch: reading, writing, and that nothing in them is executed."""

import collections
import importlib.util
import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from engine.errors import ConfigurationError
from models.pytorch import state_dict_file
from models.pytorch.state_dict_file import read_state_dict, write_state_dict

GOLDENS = Path(__file__).parents[2] / "goldens"


def archive(path, pickled, *, records=None, compression=zipfile.ZIP_STORED, **others):
    """A zip archive like those of torch.save with any pickle; storage "0" has 24 float32."""
    records = {"data/0": np.arange(24, dtype="<f4").tobytes()} if records is None else records
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("name/data.pkl", pickled)
        for name, record in (records | {"version": b"3\n"} | others).items():
            file.writestr(f"name/{name}", record)
    return str(path)


def tensor_pickle(*, shape=(2, 3), strides=(3, 1), offset=0, elements=24, storage="torch FloatStorage"):
    """The pickle of {"w": a tensor}, written opcode by opcode."""
    module, name = storage.split()

    def numbers(values):
        return (
            b"("
            + b"".join(b"I%d\n" % v if v < 0 else b"\x8a\x09" + v.to_bytes(9, "little") for v in values)
            + b"t"
        )

    return (
        b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n"
        + b"((X\x07\0\0\0storage"
        + f"c{module}\n{name}\n".encode()
        + b"X\x01\0\0\x000X\x03\0\0\0cpu"
        + b"\x8a\x09"
        + elements.to_bytes(9, "little")
        + b"tQ\x8a\x09"
        + offset.to_bytes(9, "little")
        + numbers(shape)
        + numbers(strides)
        + b"\x89ccollections\nOrderedDict\n)RtRs."
    )


def refusal(path):
    with pytest.raises(ConfigurationError) as error:
        read_state_dict(str(path))
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


@pytest.mark.parametrize("name", ["torch_2.13.pth", "torch_2.13_old_format.pth"])
def test_every_dtype_and_layout_that_torch_wrote(name):
    arrays = read_state_dict(str(GOLDENS / name))
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 8
    expected = {
        "plain": base,
        "transposed": base.transpose(2, 0, 1),
        "row": base[1, 2],
        "scalar": np.array(7, np.int64),
        "double": np.array([1e-300, 2.5]),
        "half": np.array([0.5, -65504], np.float16),
        "bfloat16": np.array([1 + 2**-7, -(1 + 98 / 128) * 2.0**127], np.float32),
        "int32": np.array([-5], np.int32),
        "int16": np.array([-5], np.int16),
        "int8": np.array([-5], np.int8),
        "uint8": np.array([250], np.uint8),
        "bool": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
        "parameter": np.array([4, 5], np.float32),
    }
    assert list(arrays) == list(expected)
    for key, value in expected.items():
        assert arrays[key].dtype == value.dtype, key
        np.testing.assert_array_equal(arrays[key], value, err_msg=key)


def test_big_endian_numbers(tmp_path):
    records = {"data/0": np.arange(24, dtype=">f4").tobytes()}
    path = archive(tmp_path / "f.pth", tensor_pickle(), records=records, byteorder=b"big")
    np.testing.assert_array_equal(read_state_dict(path)["w"], [[0, 1, 2], [3, 4, 5]])


ARRAYS = {
    "a.weight": np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32),
    "a.transposed": np.arange(6, dtype=np.float64).reshape(2, 3).T,
    "b.count": np.array(3, np.int64),
    "b.empty": np.zeros((0, 2), np.float32),
    "c.ü": np.array([1, 2], ">f4"),
}


def test_what_is_written_is_read(tmp_path):
    first, second = str(tmp_path / "first.pth"), str(tmp_path / "second.pth")
    write_state_dict(first, ARRAYS)
    write_state_dict(second, read_state_dict(first))
    assert Path(first).read_bytes() == Path(second).read_bytes()
    for name, array in read_state_dict(first).items():
        assert array.dtype == ARRAYS[name].dtype.newbyteorder("=")
        np.testing.assert_array_equal(array, ARRAYS[name])
    assert sorted(os.listdir(tmp_path)) == ["first.pth", "second.pth"]


def test_pythons_own_unpickler_understands_what_is_written(tmp_path):
    write_state_dict(str(tmp_path / "f.pth"), ARRAYS)

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            return collections.OrderedDict if name == "OrderedDict" else lambda *arguments: (name, *arguments)

        def persistent_load(self, identity):
            return identity

    with zipfile.ZipFile(tmp_path / "f.pth") as file:
        state = Unpickler(io.BytesIO(file.read("archive/data.pkl"))).load()
        assert type(state) is collections.OrderedDict and list(state) == list(ARRAYS)
        for number, (name, array) in enumerate(ARRAYS.items()):
            function, storage, offset, shape, strides, gradient, hooks = state[name]
            assert function == "_rebuild_tensor_v2" and (offset, gradient, hooks) == (0, False, {})
            assert storage[0] == "storage" and storage[2:] == (str(number), "cpu", array.size)
            assert shape == array.shape
            assert (
                strides == tuple(s // array.itemsize for s in np.empty(shape, array.dtype).strides)
                or not array.size
            )
            assert (
                file.read(f"archive/data/{number}") == array.astype(array.dtype.newbyteorder("<")).tobytes()
            )


def test_torch_reads_what_is_written(tmp_path):
    """With a Python that has PyTorch: this one, or the one that GANTRY_TORCH_PYTHON names."""
    python = os.environ.get("GANTRY_TORCH_PYTHON")
    if not python and importlib.util.find_spec("torch") is None:
        pytest.skip("no PyTorch here, and GANTRY_TORCH_PYTHON names no Python that has it")
    path, answer = str(tmp_path / "f.pth"), str(tmp_path / "answer.npz")
    write_state_dict(path, ARRAYS)
    code = (
        "import sys, numpy, torch; d = torch.load(sys.argv[1], weights_only=True); "
        "assert type(d).__name__ == 'OrderedDict'; "
        "numpy.savez(sys.argv[2], **{k: v.numpy() for k, v in d.items()})"
    )
    subprocess.run([python or sys.executable, "-c", code, path, answer], check=True)
    with np.load(answer) as arrays:
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(arrays[name], array)


class Command:
    """Pickles as a call that would create a file."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def commands(path):
    return {
        "posix.system": Command(os.system, f"touch {path}"),
        "io.open": Command(open, str(path), "w"),
        "builtins.exec": Command(exec, f"open({str(path)!r}, 'w').close()"),
        "subprocess.Popen": Command(subprocess.Popen, ["touch", str(path)]),
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", commands("unused"))
@pytest.mark.parametrize("inside", [False, True])
def test_a_malicious_pickle_is_refused_by_name_and_runs_nothing(tmp_path, name, protocol, inside):
    victim = tmp_path / "victim"
    command = commands(victim)[name]
    pickled = pickle.dumps({"w": command} if inside else command, protocol, fix_imports=False)
    old = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    (tmp_path / "old.pth").write_bytes(old + pickled)
    (tmp_path / "bare.pth").write_bytes(b"\x80\x02" + pickled if protocol < 2 else pickled)
    for path in (archive(tmp_path / "zip.pth", pickled), tmp_path / "old.pth", tmp_path / "bare.pth"):
        assert f"names {name}" in refusal(path)
    assert not victim.exists()


def test_the_malicious_pickle_would_run(tmp_path):
    for name, command in commands(tmp_path / "victim").items():
        made = pickle.loads(pickle.dumps(command))
        if name == "subprocess.Popen":
            made.wait()
        if isinstance(made, io.IOBase):
            made.close()
        assert (tmp_path / "victim").exists(), name
        (tmp_path / "victim").unlink()


@pytest.mark.parametrize(
    "pickled, expected",
    [
        (b"(S'touch victim'\nios\nsystem\n.", "os.system"),  # INST makes a call without REDUCE
        (b"\x80\x02ctorch.nn.modules.conv\nConv2d\n)\x81.", "torch.nn.modules.conv.Conv2d"),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\0\0\0aK\x01sb.",
            "sets attributes of torch._utils",
        ),
        (b"\x80\x02ccollections\nOrderedDict\n}\x85R.", "calls collections.OrderedDict"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"\x80\x02}X\x01\0\0\0wK\x01s.", "'w'"),
        (b"\x80\x02}K\x01K\x01s.", "int"),
        (b"\x80\x02K\x01.", "int, no dictionary"),
        (b"\x80\x02}.", "no dictionary of tensors"),
        (b"\x80\x02X\x01\0\0\0aQ.", "outside the file"),
        (b"\x80\x02R.", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02}", "damaged"),
        (b"\x80\x02X\x05\0\0\0a", "damaged"),
        (b"\x80\x02\xff.", "damaged"),
        (b"S'\\q'\n.", "uses STRING"),
        (b"", "damaged"),
        (tensor_pickle(storage="torch QInt8Storage"), "torch.QInt8Storage"),
        (tensor_pickle(shape=(5, 5), strides=(5, 1)), "w is larger than its storage"),
        (tensor_pickle(shape=(10**12,), strides=(0,)), "w is larger"),
        (tensor_pickle(shape=(2**30, 2**30), strides=(0, 0)), "w is larger"),
        (tensor_pickle(offset=20), "w is larger"),
        (tensor_pickle(strides=(2**40, 1)), "w is larger"),
        (tensor_pickle(offset=2**70), "impossible shape"),
        (tensor_pickle(shape=(2,)), "impossible shape"),
        (tensor_pickle(elements=25), "96 bytes"),
        (tensor_pickle(elements=2**50), "96 bytes"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_state_dict_is_refused(tmp_path, pickled, expected):
    assert expected in refusal(archive(tmp_path / "f.pth", pickled))


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch):
    path = tmp_path / "f.pth"
    write_state_dict(str(path), {"w": np.zeros(2)})
    before = path.read_bytes()

    def fail(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, "the disk is full")

    monkeypatch.setattr(tf.io.gfile, "rename", fail)
    with pytest.raises(ConfigurationError, match=r"f\.pth: cannot be written \(the disk is full\)"):
        write_state_dict(str(path), {"w": np.ones(2)})
    assert os.listdir(tmp_path) == ["f.pth"] and path.read_bytes() == before


def test_what_is_no_file_of_torch_is_refused(tmp_path):
    (tmp_path / "text.pth").write_text("weights")
    assert "torch.save" in refusal(tmp_path / "text.pth")
    assert "cannot be read" in refusal(tmp_path / "absent.pth")
    assert "cannot be read" in refusal(tmp_path)
    whole = Path(archive(tmp_path / "whole.pth", tensor_pickle())).read_bytes()
    assert read_state_dict(str(tmp_path / "whole.pth"))["w"].shape == (2, 3)
    (tmp_path / "cut.pth").write_bytes(whole[:-40])
    assert "complete" in refusal(tmp_path / "cut.pth")
    at = whole.index(np.arange(24, dtype="<f4").tobytes()) + 9
    (tmp_path / "flipped.pth").write_bytes(whole[:at] + b"\x99" + whole[at + 1 :])
    assert "complete" in refusal(tmp_path / "flipped.pth")
    assert "compressed" in refusal(
        archive(tmp_path / "z.pth", tensor_pickle(), compression=zipfile.ZIP_DEFLATED)
    )
    assert "data/0, which is not there" in refusal(archive(tmp_path / "n.pth", tensor_pickle(), records={}))
    assert "byte order" in refusal(archive(tmp_path / "b.pth", tensor_pickle(), byteorder=b"middle"))
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as file:
        file.writestr("name/other", b"")
    assert "data.pkl" in refusal(tmp_path / "other.pth")


def test_small_files_cannot_fill_the_memory(tmp_path, monkeypatch):
    path = Path(
        archive(
            tmp_path / "twice.pth", tensor_pickle(), records={f"data/{n}": b"\0" * 4096 for n in range(3)}
        )
    )
    with zipfile.ZipFile(path, "a") as file:  # its directory names one record three times
        first = file.getinfo("name/data/0")
        for n in (1, 2):
            file.getinfo(f"name/data/{n}").header_offset = first.header_offset
            file.getinfo(f"name/data/{n}").file_size = 1 << 20
        file.writestr("name/last", b"")
    assert "records that overlap" in refusal(path)
    monkeypatch.setattr(state_dict_file, "_LARGEST_PICKLE_BYTES", 10)
    assert "no state dict" in refusal(archive(tmp_path / "large.pth", tensor_pickle()))


@pytest.mark.parametrize("name", ["torch_2.13.pth", "torch_2.13_old_format.pth"])
@pytest.mark.filterwarnings("error")
def test_damage_anywhere_is_read_or_refused_but_nothing_else(tmp_path, name):
    whole = (GOLDENS / name).read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for position in random.integers(0, len(whole), 3):
            damaged[position] = random.integers(256)
        (tmp_path / "damaged.pth").write_bytes(damaged[: random.integers(1, 2 * len(whole))])
        try:
            read_state_dict(str(tmp_path / "damaged.pth"))
        except ConfigurationError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 150
