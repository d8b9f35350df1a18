"""Many images at a time, in threads: order kept, memory bounded."""

import collections
import concurrent.futures


def map_in_order(function, items, *, threads):
    """Applies a function to items in threads and gives the results in the order of the items.

    At most 2 * `threads` results are there or being made at a time, however many items there are: the
    next is begun only when the first of them has been taken.

    Args:
      function: called with one item, in several threads at once.
      items: anything to iterate over; done in the calling thread.
      threads: at least 1.

    Yields:
      function(item). What it raises is raised here, at that item's turn; then, and when the
      iteration is given up, nothing more is begun.
    """
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        pending = collections.deque()
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
