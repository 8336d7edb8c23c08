"""What a failing retriever becomes: retried, 429, 503 or 504."""

from __future__ import annotations

import asyncio
import time

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from bioelx_ray.records import Mention
from bioelx_ray.tables import to_table
from deployments.client import RetrieverClient
from deployments.problems import Problem
from deployments.retriever import Query, RetrieverDeployment
from tests.serving import small_stage


class ScriptedHandle:
    """Serve's handle with a script: an exception is raised, a number of seconds is waited.

    At the script's end calls reach a retriever. `calls` are the methods called, `cancelled` counts
    calls that were cancelled.
    """

    def __init__(self, *script):
        self.script = list(script)
        self.calls = []
        self.cancelled = 0
        self._target = RetrieverDeployment(small_stage())

    def options(self, *, method_name):
        self.calls.append(method_name)
        return self

    def remote(self, *args):
        step = self.script.pop(0) if self.script else 0
        return _Response(self, step, getattr(self._target, self.calls[-1]), args)


class _Response:
    def __init__(self, handle, step, method, args):
        self._handle, self._step, self._method, self._args = handle, step, method, args

    def __await__(self):
        return self._run().__await__()

    async def _run(self):
        if isinstance(self._step, Exception):
            raise self._step
        await asyncio.sleep(self._step)
        return await self._method(*self._args)

    def cancel(self):
        self._handle.cancelled += 1


def query(seconds=5.0):
    mentions = to_table([Mention(text="asthma")], Mention)
    return Query(mentions=mentions, k=1, deadline=time.time() + seconds)


def call(client, seconds=5.0):
    return asyncio.run(client.retrieve(query(seconds)))


def status(client, seconds=5.0):
    with pytest.raises(Problem) as caught:
        call(client, seconds)
    assert (caught.value.headers is not None) == (caught.value.status_code in {429, 503})
    return caught.value.status_code


def test_a_call_whose_replica_died_is_made_once_more():
    handle = ScriptedHandle(ActorDiedError())
    assert call(RetrieverClient(handle)).counts == [1]
    assert handle.calls == ["retrieve", "retrieve"]


@pytest.mark.parametrize("error", [ActorDiedError, lambda: DeploymentUnavailableError("x")])
def test_dead_twice_is_503_and_then_asks_for_a_sign_of_life(error):
    handle = ScriptedHandle(error(), error(), 60)
    client = RetrieverClient(handle)
    assert status(client) == 503
    start = time.monotonic()
    assert status(client) == 503
    assert time.monotonic() - start < 2
    assert call(client).counts == [1]
    assert handle.calls == ["retrieve"] * 2 + ["ping"] * 2 + ["retrieve"]


def test_dead_and_then_silent_is_503():
    assert status(RetrieverClient(ScriptedHandle(ActorDiedError(), 60)), 0.1) == 503


def test_a_late_answer_is_504_and_its_work_is_cancelled():
    handle = ScriptedHandle(60)
    client = RetrieverClient(handle)
    assert status(client, 0.05) == 504
    assert handle.cancelled == 1
    assert status(client, -1) == 504
    assert call(client).counts == [1]


def test_work_whose_time_is_over_does_not_start():
    with pytest.raises(TimeoutError):
        asyncio.run(RetrieverDeployment(small_stage()).retrieve(query(-1)))


def test_a_full_queue_is_429_and_no_sign_of_death():
    handle = ScriptedHandle(BackPressureError(64, 64, 429, 2))
    client = RetrieverClient(handle)
    assert status(client) == 429
    assert call(client).counts == [1]
    assert handle.calls == ["retrieve", "retrieve"]


def test_a_client_that_hangs_up_cancels_the_work():
    handle = ScriptedHandle(60)

    async def hang_up():
        task = asyncio.create_task(RetrieverClient(handle).retrieve(query()))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(hang_up())
    assert handle.cancelled == 1


def test_not_ready_while_the_retriever_is_down():
    assert not asyncio.run(RetrieverClient(ScriptedHandle(*[ActorDiedError()] * 2)).ready())
    assert asyncio.run(RetrieverClient(ScriptedHandle()).ready())


def test_an_error_in_the_work_loses_its_message():
    broken = Query(
        mentions=to_table([Mention(text="broken secret")], Mention),
        k=1,
        deadline=time.time() + 5,
    )
    with pytest.raises(RuntimeError, match=r"RuntimeError at .*serving\.py") as caught:
        asyncio.run(RetrieverDeployment(small_stage()).retrieve(broken))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
