"""Tensors as the pickle of a PyTorch state dict describes them: as views of storages."""

from __future__ import annotations

import dataclasses

STORAGES = {
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
"""PyTorch's storage class -> dtype."""

ORDERED_DICT = "collections.OrderedDict"
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
"""Names in the pickle of a state dict: of the dictionary, and of the function that makes a tensor."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """A flat array of numbers in the file.

    Attributes:
      key: name of the file's record that holds the numbers.
      dtype: one of the values of STORAGES.
      elements: how many numbers it has.
    """

    key: str
    dtype: str
    elements: int


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor as a view of a storage.

    Attributes:
      storage: holds the tensor's numbers.
      offset: of the first number, in elements.
      shape: the tensor's shape.
      strides: of each axis, in elements.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
