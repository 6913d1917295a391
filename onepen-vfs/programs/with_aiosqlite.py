"""aiosqlite: four tasks, each with a connection of its own."""

import asyncio
import time

import aiosqlite

from worker import Count, options, ready

path, given = options()
TASKS = 4


async def work(connection, transactions, count):
    for _ in range(transactions):
        began = time.perf_counter()
        try:
            await connection.execute("BEGIN")
            async with connection.execute("SELECT n FROM counter WHERE id = 1") as rows:
                (n,) = await rows.fetchone()
            await connection.execute("UPDATE counter SET n = ? WHERE id = 1", (n + 1,))
            await connection.commit()
            count.done += 1
        except Exception as error:
            count.failed(error)
            await connection.rollback()
        count.times.append(time.perf_counter() - began)


async def main():
    connections = [await aiosqlite.connect(path) for _ in range(TASKS)]
    ready()
    count = Count()
    share = int(given["transactions"]) // TASKS
    await asyncio.gather(*(work(each, share, count) for each in connections))
    for each in connections:
        await each.close()
    count.report()


asyncio.run(main())
