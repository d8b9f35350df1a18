"""Processes many images in threads, in order and with bounded memory."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int
) -> Iterator[_Result]:
    """Applies a function to items in threads and yields the results in the order of the items.

    At most 2 * `threads` results exist or are being computed at a time: the next item starts when the
    first result has been consumed.

    Args:
      function: called with one item, in several threads at the same time.
      items: any iterable; it is iterated in the calling thread.
      threads: at least 1.

    Yields:
      function(item). An exception of the function is raised here, in place of the item's result. After
      that, or when the iteration is abandoned, no further item starts.
    """
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        pending: collections.deque[concurrent.futures.Future[_Result]] = collections.deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) == 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
