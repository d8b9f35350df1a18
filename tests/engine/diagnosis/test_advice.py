"""Advice in made-up machines."""

import pytest

from engine.diagnosis.advice import disk_advice, precision_advice


@pytest.mark.parametrize(
    ("flags", "precision", "kind", "expected"),
    [
        ("fpu avx512f avx512_bf16 fsrm", "float32", "CPU", "avx512_bf16"),
        ("amx_bf16 avx512_bf16 amx_tile", "float32", "CPU", "amx_bf16, avx512_bf16"),
        ("fpu avx512f avx512_bf16_other", "float32", "CPU", None),
        ("avx512_bf16", "bfloat16", "CPU", None),
        ("avx512_bf16", "float32", "GPU", None),
    ],
)
def test_bfloat16_is_advised_where_the_processor_has_it(tmp_path, flags, precision, kind, expected):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    lines = precision_advice(precision, kind=kind, cpuinfo=str(tmp_path / "cpuinfo"))
    assert lines == [] if expected is None else f"({expected})" in lines[0]


@pytest.mark.parametrize(
    ("capabilities", "precision", "expected"),
    [
        (((7, 0),), "bfloat16", "7.0"),
        (((8, 0), (7, 5)), "bfloat16", "7.5"),
        (((8, 0), (9, 0)), "bfloat16", None),
        (((7, 0),), "float16", None),
        ((), "bfloat16", None),
    ],
)
def test_a_gpu_before_8_0_has_no_bfloat16(capabilities, precision, expected):
    lines = precision_advice(precision, kind="GPU", compute_capabilities=capabilities)
    assert lines == [] if expected is None else f"compute capability {expected} has no bfloat16" in lines[0]


@pytest.fixture
def machine(tmp_path):
    """Disk advice for a data folder on a file system."""
    data = tmp_path / "my data" / "set"
    data.mkdir(parents=True)
    for disk, rotational, partition in (("sda", 1, "sda1"), ("nvme0n1", 0, "nvme0n1p2"), ("vda", 1, "vda1")):
        (tmp_path / "block" / disk / "queue").mkdir(parents=True)
        (tmp_path / "block" / disk / "queue" / "rotational").write_text(f"{rotational}\n")
        (tmp_path / "block" / disk / partition).mkdir()

    def advice(device, kind):
        above = str(tmp_path / "my data").replace(" ", "\\040")
        mounts = ["/dev/sda1 / ext4 rw 0 0", f"{device} {above} {kind} rw 0 0", "/dev/sda1 /my ext4 rw 0 0"]
        (tmp_path / "mounts").write_text("\n".join(mounts) + "\n")
        return disk_advice(str(data), mounts=str(tmp_path / "mounts"), block=str(tmp_path / "block"))

    return advice


@pytest.mark.parametrize(
    ("device", "kind", "expected"),
    [
        ("/dev/sda1", "ext4", "rotating disk (sda)"),
        ("/dev/sda", "xfs", "rotating disk (sda)"),
        ("/dev/nvme0n1p2", "ext4", None),
        ("/dev/vda1", "ext4", None),  # a hypervisor's disk says nothing about what it is on
        ("server:/export", "nfs4", "network file system (NFS)"),
        ("bucket", "fuse.gcsfuse", "network file system (gcsfuse)"),
        ("tmpfs", "tmpfs", None),
    ],
)
def test_slow_places_of_data(machine, device, kind, expected):
    lines = machine(device, kind)
    assert lines == [] if expected is None else expected in lines[0]


def test_nothing_is_said_of_object_stores_and_missing_folders(tmp_path):
    assert disk_advice("gs://bucket/data") == disk_advice(str(tmp_path / "nothing")) == []
