"""A Dask scheduler and workers as they are on a cluster: a process each, and workers in folders of their own."""

from __future__ import annotations

import asyncio
import os
from multiprocessing.connection import Connection


def schedule(port: int, said: Connection) -> None:
    """Be a scheduler until the process is killed; say where."""
    import distributed

    async def serve() -> None:
        async with distributed.Scheduler(host="127.0.0.1", port=port, dashboard=False) as scheduler:
            said.send(scheduler.address)
            await scheduler.finished()

    asyncio.run(serve())


def work(scheduler: str, folder: str, said: Connection) -> None:
    """Be a worker of one thread in a folder, until the process is killed or the scheduler is gone."""
    import distributed

    os.makedirs(folder)
    os.chdir(folder)

    async def serve() -> None:
        # On a cluster a nanny would be around it, whose own worker ends with it.
        async with distributed.Worker(scheduler, nthreads=1, local_directory=folder, dashboard=False) as worker:
            said.send(worker.address)
            await worker.finished()

    asyncio.run(serve())
