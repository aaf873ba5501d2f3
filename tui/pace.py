"""How often the screen paints what the model says: often enough to read along, and no more than a
small share of one core, which belongs to the model. Keys are not held up by it.
"""

import asyncio
import time

__all__ = ["Pace"]

FRAME = 1 / 20  # seconds between two paints on a machine that is quick enough
SLOWEST = 1 / 4  # seconds: slower would not look alive
SHARE = 0.09  # of a core, for everything the thread of the screen does


class Pace:
    """`await rest()` after each paint."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._used = time.thread_time()

    async def rest(self) -> None:
        """Sleep for a frame, and as long as the thread has used more than its share since the last
        rest; what was idle before does not count."""
        await asyncio.sleep(FRAME)
        now, used = time.monotonic(), time.thread_time()
        owed = (used - self._used) / SHARE - (now - self._began)
        if owed > 0:
            await asyncio.sleep(min(owed, SLOWEST - FRAME))
        self._began, self._used = time.monotonic(), used
