"""Options of GPUs: what the environment says is respected, and nothing is ignored. No GPU is needed."""

import subprocess
import sys

import pytest
import tensorflow as tf

from engine.distribution import gpu_options
from engine.distribution.gpu_options import ALLOCATOR, AUTOTUNE, set_gpu_options
from engine.errors import ConfigurationError
from tests.helpers.lowering import hlo_here


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for variable in (AUTOTUNE, ALLOCATOR):
        monkeypatch.setenv(variable, "")  # so that it is restored
        monkeypatch.delenv(variable)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(True)


def options(tf32=True, cudnn_autotune=None, cuda_malloc_async=False):
    set_gpu_options(tf32=tf32, cudnn_autotune=cudnn_autotune, cuda_malloc_async=cuda_malloc_async)
    return [gpu_options.os.environ.get(variable) for variable in (AUTOTUNE, ALLOCATOR)]


def test_by_default_tensorflow_decides():
    assert options() == [None, None]
    assert tf.config.experimental.tensor_float_32_execution_enabled()


def test_settings_reach_the_environment():
    assert options(cudnn_autotune=False, cuda_malloc_async=True) == ["0", "cuda_malloc_async"]
    assert options(cudnn_autotune=False) == ["0", "cuda_malloc_async"]  # of an earlier run in this process


def test_the_environment_is_respected(monkeypatch):
    monkeypatch.setenv(AUTOTUNE, "false")
    monkeypatch.setenv(ALLOCATOR, "something")
    assert options() == ["false", "something"]
    assert options(cudnn_autotune=False) == ["false", "something"]
    with pytest.raises(
        ConfigurationError, match="cudnn_autotune = True: .* TF_CUDNN_USE_AUTOTUNE is 'false'"
    ):
        options(cudnn_autotune=True)
    with pytest.raises(
        ConfigurationError, match="cuda_malloc_async = True: .* TF_GPU_ALLOCATOR is 'something'"
    ):
        options(cuda_malloc_async=True)


def test_deterministic_mode_lets_no_clock_choose(monkeypatch):
    monkeypatch.setattr(gpu_options, "is_deterministic", lambda: True)
    with pytest.raises(ConfigurationError, match="DETERMINISM = True rules out"):
        options(cudnn_autotune=True)
    assert options() == ["0", None]
    assert options(cudnn_autotune=False) == ["0", None]
    monkeypatch.setenv(AUTOTUNE, "1")
    with pytest.raises(ConfigurationError, match="DETERMINISM = True: contradicts .* is '1'"):
        options()


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_reaches_every_product_of_a_program(allowed):
    options(tf32=allowed)

    @tf.function(autograph=False, jit_compile=True)
    def products(image, kernel):
        x = tf.nn.conv2d(image, kernel, 1, "SAME")  # [1, 4, 4, 4]
        return tf.linalg.matmul(x, x)

    specs = tf.TensorSpec([1, 4, 4, 4]), tf.TensorSpec([3, 3, 4, 4])
    hlo = hlo_here(products.get_concrete_function(*specs))
    lines = [line for line in hlo.splitlines() if " convolution(" in line or " dot(" in line]
    assert len(lines) == 2
    assert ["operand_precision={highest,highest}" in line for line in lines] == [not allowed] * 2


def test_a_run_sets_them_before_its_devices(make_trainer, noise_pairs, small_pix2pix, monkeypatch):
    seen = []
    make = "engine.outer_loop.trainer.make_devices"
    real = sys.modules["engine.outer_loop.trainer"].make_devices
    monkeypatch.setattr(
        make, lambda *a, **k: seen.append(gpu_options.os.environ.get(ALLOCATOR)) or real(*a, **k)
    )
    settings = {"tf32": False, "cudnn_autotune": False, "cuda_malloc_async": True}
    make_trainer(small_pix2pix(), noise_pairs(size=12), total_examples=2, **settings)
    assert seen == ["cuda_malloc_async"]
    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def test_a_program_names_a_contradiction_in_one_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "engine.train",
        "--gin_file=gin/quickstart.gin",
        f"--workdir={tmp_path}/run",
    ]
    command.append("--gin_param=experiment.Experiment.cuda_malloc_async = True")
    environment = gpu_options.os.environ | {ALLOCATOR: "bfc"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "TF_GPU_ALLOCATOR is 'bfc'" in done.stderr
