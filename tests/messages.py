"""What lies in the queues, read as arq keeps it."""

from uuid import UUID

import orjson
from arq.constants import job_key_prefix

from shared.leases import Ref
from shared.queue import Carrier, Queue


async def jobs_in(carrier: Carrier, queue: Queue) -> list[list[Ref]]:
    """The tickets of every job that waits in the queue, the next job first."""
    job_ids = [job_id.decode() for job_id in await carrier.redis.zrange(queue, 0, -1)]
    raw = [await carrier.redis.get(job_key_prefix + job_id) for job_id in job_ids]
    messages = [orjson.loads(each) for each in raw if each is not None]
    assert all(message["f"] == queue.job for message in messages)
    return [[Ref(UUID(ref_id), attempt) for ref_id, attempt in message["a"][0]] for message in messages]


async def refs_in(carrier: Carrier, queue: Queue) -> list[Ref]:
    """The tickets of all jobs that wait in the queue."""
    return [ref for job in await jobs_in(carrier, queue) for ref in job]
