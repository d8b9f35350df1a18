"""Settings for reading records: memory, caches, damaged records, the tf.data service."""

import dataclasses

import tensorflow as tf

from data.errors import DataError
from data.formats.image_info import MAX_PIXELS

STOP, SKIP = "stop", "skip"
NO_CACHE, IN_MEMORY, ON_DISK = "none", "memory", "disk"
EXACT, FAST = "exact", "fast"
WINDOWS_HELD = 3
"""Windows in memory at once: the one drawn from, the next one, and a copy while that one is collected."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Supply:
    """Settings for reading records.

    The pixels depend on `resizing` only, the order of examples on `window_bytes` and `service`.

    Attributes:
      window_bytes: encoded bytes of the examples shuffled together.
      ram_budget_bytes: limit for windows, caches and tf.data's buffers.
      cache: "none", or where to cache decoded images: in "memory", if they fit into ram_budget_bytes beside
        the windows, or on "disk" (in data_dir), if they fit into half of the free space. The log says which.
      resizing: "exact" gives training Pillow's pixels (see `data.pipeline.resizing`). "fast" resizes whole
        images to load_size before the random part is cut: a cache then keeps the resized images; JPEG files
        of at least twice that size are decoded at a reduced scale; and 8-bit pictures that grow use
        TensorFlow's bicubic kernel. The random parts are the same, their pixels differ by some grey levels:
        data/README.md says how many. Labels, images of other depths and evaluation stay exact.
      on_bad_record: "stop" raises an error with the file, the record and the reason. "skip" uses the next
        record instead of a damaged one; it reads each record from its own offset, so it suits local disks
        only.
      largest_bad_share: fraction of the examples that may be damaged; with more, "skip" raises an error too.
      service: address of a tf.data service dispatcher, such as "grpc://10.0.0.2:5050", whose workers read and
        decode. Every example still comes once per epoch, but the order is not repeatable, neighbouring epochs
        mix, and a restart begins at the start of a window.
      max_pixels: larger images raise an error, before memory is allocated for them.

    Raises:
      DataError: a setting cannot be used; the message names it.
    """

    window_bytes: int = 32 * 2**20
    ram_budget_bytes: int = 2**30
    cache: str = NO_CACHE
    resizing: str = EXACT
    on_bad_record: str = STOP
    largest_bad_share: float = 0.01
    service: str = ""
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        for name in ("window_bytes", "ram_budget_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} = {getattr(self, name)}: must be at least 1")
        if WINDOWS_HELD * self.window_bytes > self.ram_budget_bytes:
            raise DataError(
                f"window_bytes = {self.window_bytes}: {WINDOWS_HELD} windows are in memory at once, which is "
                f"more than ram_budget_bytes = {self.ram_budget_bytes}; lower the one or raise the other"
            )
        for name, choices in (
            ("cache", (NO_CACHE, IN_MEMORY, ON_DISK)),
            ("resizing", (EXACT, FAST)),
            ("on_bad_record", (STOP, SKIP)),
        ):
            if getattr(self, name) not in choices:
                raise DataError(f"{name} = {getattr(self, name)!r}: must be one of {', '.join(choices)}")
        if not 0 <= self.largest_bad_share < 1:
            raise DataError(f"largest_bad_share = {self.largest_bad_share}: must be in [0, 1)")
        if self.service and (self.cache != NO_CACHE or self.on_bad_record == SKIP):
            raise DataError(
                f"service = {self.service!r}: cannot be used with a cache or with on_bad_record = 'skip', "
                "which need one process; choose one of them"
            )

    @property
    def cache_bytes(self) -> int:
        """Memory that a cache in memory may take."""
        return self.ram_budget_bytes - WINDOWS_HELD * self.window_bytes

    @property
    def options(self) -> tf.data.Options:
        """The `tf.data.Options` of every data set that this package returns."""
        options = tf.data.Options()
        options.deterministic = True
        # Each worker reads its own rows; TensorFlow's sharding would decode all rows in every worker.
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        options.autotune.ram_budget = max(self.cache_bytes, 1)
        return options
