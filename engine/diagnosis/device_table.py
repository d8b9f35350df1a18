"""Accelerators that people train on, and how much of their memory a training can use."""

from __future__ import annotations

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownDevice:
    """A kind of accelerator, as TensorFlow sees one of it: a GPU, or a core or chip of a TPU.

    Attributes:
      name: with its memory where there are several sizes.
      gib: memory. Of NVIDIA GPUs about what nvidia-smi reports, which is less than the name says where error
        correction takes a part.
      has_bfloat16: in hardware: NVIDIA GPUs from compute capability 8.0 on, and all TPUs from v2 on.
      is_tpu: whether XLA compiles the step for it.
    """

    name: str
    gib: float
    has_bfloat16: bool = True
    is_tpu: bool = False

    @property
    def reserve_bytes(self) -> int:
        """Memory that a training cannot use; an assumption, not a measurement.

        GPU: 1 GiB for the CUDA or HIP context, cuDNN, cuBLAS and their workspaces, and 8 % because memory is
        fragmented. TPU: 4 % for the program and its buffers.
        """
        if self.is_tpu:
            return round(0.04 * self.gib * GIB)
        return round((1 + 0.08 * self.gib) * GIB)

    @property
    def usable_bytes(self) -> int:
        """Memory for variables and tensors."""
        return round(self.gib * GIB) - self.reserve_bytes

    @property
    def half_precision(self) -> str:
        """The 16-bit PRECISION to choose on it."""
        return "bfloat16" if self.has_bfloat16 else "float16"


def _tpu(name: str, gib: float) -> KnownDevice:
    return KnownDevice(name=name, gib=gib, is_tpu=True)


KNOWN_DEVICES = (
    KnownDevice(name="T4", gib=15, has_bfloat16=False),
    KnownDevice(name="V100 16", gib=16, has_bfloat16=False),
    KnownDevice(name="V100 32", gib=32, has_bfloat16=False),
    KnownDevice(name="A10", gib=22.5),
    KnownDevice(name="L4", gib=22.5),
    KnownDevice(name="RTX 3090", gib=24),
    KnownDevice(name="RTX 4090", gib=24),
    KnownDevice(name="A100 40", gib=40),
    KnownDevice(name="A100 80", gib=80),
    KnownDevice(name="H100", gib=80),
    KnownDevice(name="H200", gib=140),
    KnownDevice(name="MI300X", gib=192),
    _tpu("TPU v2 core", 8),
    _tpu("TPU v3 core", 16),
    _tpu("TPU v4 chip", 32),
    _tpu("TPU v5e chip", 16),
    _tpu("TPU v5p chip", 95),
    _tpu("TPU v6e chip", 32),
)
"""Sources: NVIDIA's and AMD's data sheets and nvidia-smi; cloud.google.com/tpu/docs, "System architecture".
Two cores of a TPU v4 or v5p chip are one device."""
