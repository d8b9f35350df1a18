"""How records are supplied: within which memory, from which cache, from where; damaged ones."""

import dataclasses

import tensorflow as tf

from data.errors import DataError

STOP, SKIP = "stop", "skip"
NO_CACHE, IN_MEMORY, ON_DISK = "none", "memory", "disk"
WINDOWS_HELD = 3
"""Windows in memory at once: the one drawn from, the next one, and what collecting that one takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Supply:
    """Settings of reading. Caches and budgets change neither order nor pixels; what does says so.

    Attributes:
        window_bytes: encoded bytes of the examples shuffled together. (The order does depend on it.)
        ram_budget_bytes: for windows, caches and what tf.data buffers.
        cache: decoded images kept "memory" or "disk" (in the data directory), if they fit: into what
            the windows leave of the budget, or into half of what is free on the disk. The log says so.
        on_bad_record: "stop" names the file, the record and the reason; "skip" takes the next record in
            the place of a damaged one, which reads records one by one from where they lie: meant for
            local disks.
        largest_bad_share: part of the examples that may be damaged before "skip" stops, too.
        service: address of a tf.data service dispatcher, such as "grpc://10.0.0.2:5050", whose workers
            read and decode. Every example still comes once an epoch, but the order does not repeat,
            neighbouring epochs mix, and a restart begins with the window of its position.
        max_pixels: larger images are refused by their header, before memory is taken for them.

    Raises:
        DataError: names the setting that cannot be used.
    """

    window_bytes: int = 32 * 2**20
    ram_budget_bytes: int = 2**30
    cache: str = NO_CACHE
    on_bad_record: str = STOP
    largest_bad_share: float = 0.01
    service: str = ""
    max_pixels: int = 178_956_970

    def __post_init__(self):
        for name in ("window_bytes", "ram_budget_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} = {getattr(self, name)}: must be at least 1.")
        if WINDOWS_HELD * self.window_bytes > self.ram_budget_bytes:
            raise DataError(
                f"window_bytes = {self.window_bytes}: {WINDOWS_HELD} windows are held at once, which is more "
                f"than ram_budget_bytes = {self.ram_budget_bytes}; lower the one or raise the other."
            )
        for name, choices in (("cache", (NO_CACHE, IN_MEMORY, ON_DISK)), ("on_bad_record", (STOP, SKIP))):
            if getattr(self, name) not in choices:
                raise DataError(f"{name} = {getattr(self, name)!r}: must be one of {', '.join(choices)}.")
        if not 0 <= self.largest_bad_share < 1:
            raise DataError(f"largest_bad_share = {self.largest_bad_share}: must be in [0, 1).")
        if self.service and (self.cache != NO_CACHE or self.on_bad_record == SKIP):
            raise DataError(
                f"service = {self.service!r}: goes neither with a cache nor with on_bad_record = 'skip', "
                "which belong to one process; choose one of them."
            )

    @property
    def cache_bytes(self):
        """Memory that a cache may take."""
        return self.ram_budget_bytes - WINDOWS_HELD * self.window_bytes

    @property
    def options(self):
        """The `tf.data.Options` of every data set here."""
        options = tf.data.Options()
        options.deterministic = True
        # Each worker asks for its own rows; TensorFlow would shard by decoding all in every worker.
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        options.autotune.ram_budget = max(self.cache_bytes, 1)
        return options
