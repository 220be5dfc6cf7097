"""What lies in the queues, read as arq keeps it."""

from uuid import UUID

import orjson
from arq.constants import job_key_prefix

from shared.broker.client import Broker, Queue
from shared.database.leases import WorkItem


async def jobs_in(broker: Broker, queue: Queue) -> list[list[WorkItem]]:
    """Return the work items of every job that waits in the queue, the next job first."""
    job_ids = [job_id.decode() for job_id in await broker.arq_connection.zrange(queue, 0, -1)]
    raw = [await broker.arq_connection.get(job_key_prefix + job_id) for job_id in job_ids]
    messages = [orjson.loads(each) for each in raw if each is not None]
    assert all(message["f"] == queue.job for message in messages)
    return [
        [WorkItem(UUID(row_id), lease_version) for row_id, lease_version in message["a"][0]] for message in messages
    ]


async def items_in(broker: Broker, queue: Queue) -> list[WorkItem]:
    """Return the work items of all jobs that wait in the queue."""
    return [item for job in await jobs_in(broker, queue) for item in job]
