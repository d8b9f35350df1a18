"""Which GPUs a run takes, with a stand-in for nvidia-smi and for what TensorFlow finds."""

import os

import pytest
import tensorflow as tf

from engine import doctor
from engine.distribution import gpus, strategies
from engine.errors import ConfigurationError
from engine.experiment import Experiment

# Memory in use of 0 is a desktop's; 2 is idle but for a moment's computing.
MACHINE = [
    "0, GPU-aa11, 310, 2",
    "1, GPU-aa22, 9876, 97",
    "2, GPU-bb33, 4, [N/A]",
    "3, GPU-cc44, [N/A], 0",
    "4, GPU-dd55, 12, 60",
]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes a machine of so many GPUs that CUDA shows; returns what TensorFlow is told to use."""
    told = {"growth": []}
    gpus._idle_numbers.cache_clear()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.delenv("TF_CONFIG", raising=False)

    def make(*, shown=5, rows=MACHINE, exit_code=0, visible=None):
        program = tmp_path / "nvidia-smi"
        lines = "\n".join(rows)
        program.write_text(
            "#!/bin/sh\n"
            'case "$*" in\n'
            f"*index,uuid,memory.used,utilization.gpu*) echo '{lines}';;\n"
            "*memory.total*--id=2*) echo '16384, 1024';;\n"
            "*) echo 'No devices were found';;\n"
            f"esac\nexit {exit_code}\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        found = [tf.config.PhysicalDevice(f"/physical_device:GPU:{n}", "GPU") for n in range(shown)]
        told["visible"] = found

        def list_physical(kind=None):
            assert os.environ["CUDA_DEVICE_ORDER"]  # CUDA reads it when it is first asked
            return found if kind == "GPU" else []

        monkeypatch.setattr(tf.config, "list_physical_devices", list_physical)
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: told["visible"])
        monkeypatch.setattr(
            tf.config, "set_visible_devices", lambda devices, kind: told.update(visible=devices)
        )
        monkeypatch.setattr(
            tf.config.experimental, "set_memory_growth", lambda gpu, on: told["growth"].append(gpu.name)
        )
        return told

    yield make
    gpus._idle_numbers.cache_clear()


def names(devices):
    return [int(device.name.rpartition(":")[2]) for device in devices]


@pytest.mark.parametrize(
    "setting, visible, shown, expected",
    [
        ("all", None, 5, [0, 1, 2, 3, 4]),
        ("4,0", None, 5, [4, 0]),
        (" 1 , 2 ", None, 5, [1, 2]),
        ("idle", None, 5, [0, 2]),
        ("idle", "1,2", 2, [1]),  # CUDA's 1 is nvidia-smi's 2
        ("idle", "GPU-bb33,GPU-aa2", 2, [0]),
        ("1", "3,1", 2, [1]),
        ("all", None, 0, []),
    ],
)
def test_chosen_by_setting_and_cuda_visible_devices(machine, setting, visible, shown, expected):
    machine(shown=shown, visible=visible)
    assert names(gpus.chosen_gpus(setting)) == expected


@pytest.mark.parametrize(
    "setting, kwargs, expected",
    [
        ("0,7", {}, "there is no GPU 7; choose among 0, 1, 2, 3, 4"),
        ("2", {"shown": 2, "visible": "3,1"}, "no GPU 2 with CUDA_VISIBLE_DEVICES=3,1; choose among 0, 1"),
        ("0", {"shown": 0}, "TensorFlow finds no GPU on this machine; python -m engine.doctor"),
        ("idle", {"shown": 1, "visible": "1"}, "no GPU is idle (0: 9876 MiB in use, 97 % busy); wait"),
        ("idle", {"exit_code": 9}, "nvidia-smi fails (0, GPU-aa11"),
        ("idle", {"shown": 1, "visible": "MIG-1"}, "nvidia-smi does not list 'MIG-1'"),
        ("idle", {"shown": 1, "visible": "GPU-aa"}, "nvidia-smi does not list 'GPU-aa'"),  # two of them
    ],
)
def test_what_cannot_be_chosen_is_refused_with_a_remedy(machine, setting, kwargs, expected):
    machine(**kwargs)
    with pytest.raises(ConfigurationError) as caught:
        gpus.chosen_gpus(setting)
    assert expected in str(caught.value) and ";" in str(caught.value)


def test_no_nvidia_smi_and_another_order(machine, monkeypatch, tmp_path):
    machine()
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    with pytest.raises(ConfigurationError, match="CUDA_DEVICE_ORDER is FASTEST_FIRST.*set it to PCI_BUS_ID"):
        gpus.chosen_gpus("idle")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    (tmp_path / "nvidia-smi").unlink()
    with pytest.raises(ConfigurationError, match="nvidia-smi, .*, is not on the PATH; install"):
        gpus.chosen_gpus("idle")
    assert names(gpus.chosen_gpus("3")) == [3]


def test_a_trainer_built_again_keeps_the_gpus_although_it_uses_them_itself(machine):
    machine()
    first = gpus.chosen_gpus("idle")
    machine(rows=[row.replace("310, 2", "12000, 99") for row in MACHINE])
    assert gpus.chosen_gpus("idle") == first


@pytest.mark.parametrize(
    "name, cpu_replicas, setting, visible, strategy",
    [
        ("auto", 1, "idle", [0, 2], ("MirroredStrategy", ["GPU:0", "GPU:1"])),
        ("auto", 1, "3", [3], ("OneDeviceStrategy", "GPU:0")),
        ("one_device", 1, "4,1", [4], ("OneDeviceStrategy", "GPU:0")),  # nothing is taken of the other
        ("multi_worker", 1, "1,2", [1, 2], ("MultiWorkerMirroredStrategy",)),
        ("auto", 2, "all", [], ("MirroredStrategy", ["CPU:0", "CPU:1"])),
    ],
)
def test_devices_are_shown_before_the_strategy_is_made(
    machine, monkeypatch, name, cpu_replicas, setting, visible, strategy
):
    told = machine()
    if name == "multi_worker":
        monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 0}}')
    monkeypatch.setattr(strategies, "_cpu_devices", lambda count: [f"CPU:{n}" for n in range(count)])

    def made(kind):
        def make(*devices, **_):
            return names(told["visible"]), (kind, *devices)

        return make

    for kind in ("MirroredStrategy", "OneDeviceStrategy", "MultiWorkerMirroredStrategy"):
        monkeypatch.setattr(tf.distribute, kind, made(kind))
    assert strategies.make_strategy(name, cpu_replicas=cpu_replicas, gpus=setting) == (visible, strategy)
    assert told["growth"] == [f"/physical_device:GPU:{n}" for n in visible]
    assert gpus.numbers_in_use() == visible


def test_devices_cannot_change_once_tensorflow_has_started(machine, monkeypatch):
    machine()

    def refuse(devices, kind):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    with pytest.raises(ConfigurationError, match="has started with other GPUs.*start a new one"):
        gpus.use_gpus(gpus.chosen_gpus("0"))


def test_free_memory_is_that_of_the_chosen_gpu(machine):
    machine()
    gpus.use_gpus(gpus.chosen_gpus("3,2"))
    assert gpus.free_gpu_bytes("/device:GPU:1") == 15 * 2**30
    assert gpus.free_gpu_bytes("/device:GPU:0") is None


def test_doctor_lists_them_by_the_numbers_that_the_setting_takes(machine):
    machine(shown=2, visible="1,2")
    report = doctor.machine_report()
    assert "Number of accelerators: 2\n" in report
    assert "\n  0: /physical_device:GPU:0, 9876 MiB in use, 97 % busy\n" in report
    assert "\n  1: /physical_device:GPU:1, 4 MiB in use, idle\n" in report


@pytest.mark.parametrize("setting", ["some", "0;1", "0,0", "", "-1"])
def test_settings_are_checked_before_anything_runs(small_pix2pix, noise_pairs, setting):
    with pytest.raises(ConfigurationError, match="write 'all', 'idle', or"):
        Experiment(task=small_pix2pix(), data=noise_pairs(), total_examples=1, gpus=setting)
    with pytest.raises(ConfigurationError, match="set one of the two"):
        Experiment(task=small_pix2pix(), data=noise_pairs(), total_examples=1, gpus="0", cpu_replicas=2)
