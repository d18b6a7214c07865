"""Nothing is lost for good on a model's word: its user is asked, and the answer counts once."""

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, get_args
from uuid import UUID, uuid4

import httpx
import pytest
from dirty_equals import IsDatetime, IsUUID

from agent_server import Caller, Conflict, Tool, ToolContext, tool
from agent_server.audit import Surface
from agent_server.calls.call import Runtime, call_tool
from agent_server.calls.confirmations import ASKERS, ConfirmationRepository
from agent_server.calls.consent import confirm_call, decline_call
from agent_server.db import Database
from agent_server.settings import Settings
from agent_server.testing import Call, Calls, Say, ScriptedOpenAI, Step, scripted_openai
from tests import zygote
from tests.conftest import ROOT, execute, fetch
from tests.server import Client, Start
from tests.sse import read_frames

DELETE = Call("delete_task", {"task": "Buy fins"})


@dataclass
class Talk:
    """A user with the task "Buy fins", and a model that does whatever the script says."""

    client: Client
    model: ScriptedOpenAI
    url: str

    async def say(self, *script: Step, key: str | None = None) -> list[dict[str, Any]]:
        """The data of the questions that the turn put to the user."""
        self.model.script = script
        body = {"message": "please", "agent": "tasks"}
        async with self.client.http.stream("POST", "/api/chat", json=body, headers=self.auth(key)) as response:
            frames = [frame.data async for frame in read_frames(response)]
        return [data["data"] for data in frames if data != "[DONE]" and data["type"] == "data-confirmation"]

    def told(self) -> list[str]:
        """What the model read of its calls, in its last request."""
        return [m["content"] for m in self.model.requests[-1]["messages"] if m["role"] == "tool"]

    def auth(self, key: str | None = None) -> dict[str, str]:
        return {"Authorization": f"Bearer {key or self.client.key}"}

    async def answer(self, id: str, confirm: object, key: str | None = None) -> httpx.Response:
        path = f"/api/confirmations/{id}"
        return await self.client.http.post(path, json={"confirm": confirm}, headers=self.auth(key))

    async def read(self, id: str, key: str | None = None) -> httpx.Response:
        return await self.client.http.get(f"/api/confirmations/{id}", headers=self.auth(key))

    async def add(self, title: str) -> dict[str, Any]:
        answer = await self.client.http.post("/api/tools/create_task", json={"title": title}, headers=self.auth())
        created: dict[str, Any] = answer.json()
        return created

    async def id_of(self, title: str) -> str:
        ((id,),) = await fetch(self.url, f"select id from task where title = '{title}'")
        return str(id)

    async def titles(self) -> list[str]:
        return [title for (title,) in await fetch(self.url, "select title from task order by title")]

    async def audit(self) -> list[tuple[Any, ...]]:
        return await fetch(
            self.url, "select surface, outcome from audit where action = 'delete_task' order by at, outcome"
        )


@pytest.fixture
async def talk(start: Start, stocked_url: str) -> AsyncIterator[Talk]:
    async with scripted_openai([]) as model, start(openai_base_url=model.url, model="m") as client:
        talk = Talk(client, model, stocked_url)
        await talk.add("Buy fins")
        yield talk


async def test_a_model_that_deletes_at_once_deletes_nothing_and_the_user_is_asked(talk: Talk) -> None:
    questions = await talk.say(DELETE, Say("Please confirm."))
    assert questions == [
        {
            "call_id": "call_1_0",
            "id": IsUUID(),
            "tool": "delete_task",
            "title": "Delete task",
            "arguments": {"task": "Buy fins"},
            "question": 'Delete the task "Buy fins"?',
            "expires_at": IsDatetime(iso_string=True),
        }
    ]
    (told,) = talk.told()
    assert "Not done" in told
    assert "do not call delete_task again" in told
    assert await talk.titles() == ["Buy fins"]
    assert await talk.audit() == [("agent", "asked")]


async def test_a_model_that_insists_gets_a_question_for_each_of_two_calls_and_nothing_else(talk: Talk) -> None:
    both = Calls((Call("delete_task", {"task": "Buy fins"}, "a"), Call("delete_task", {"task": "Buy fins"}, "b")))
    questions = await talk.say(both, DELETE, DELETE, Say("I tried."))
    assert len({question["id"] for question in questions}) == 2
    assert [told.partition(":")[0] for told in talk.told() if told.startswith("conflict")] == ["conflict"] * 2
    assert await talk.titles() == ["Buy fins"]


async def test_a_model_that_is_told_no_cannot_go_on_without_being_asked_again(talk: Talk) -> None:
    (question,) = await talk.say(DELETE, Say("Please confirm."))
    declined = await talk.answer(question["id"], confirm=False)
    assert (declined.status_code, declined.json()["status"]) == (200, "declined")
    (again,) = await talk.say(DELETE, Say("Please confirm."))
    assert again["id"] != question["id"]
    assert (await talk.answer(question["id"], confirm=True)).status_code == 409
    assert await talk.titles() == ["Buy fins"]
    assert await talk.audit() == [("agent", "asked"), ("agent", "declined"), ("agent", "asked")]


async def test_nobody_is_asked_about_another_users_task_or_one_that_is_not_there(talk: Talk) -> None:
    theirs = await talk.add("Theirs")
    key = await talk.client.new_key()
    for task in (theirs["id"], "Theirs", "no such title"):
        assert await talk.say(Call("delete_task", {"task": task}), Say("Sorry."), key=key) == []
        (told,) = talk.told()
        assert told.startswith("not_found: ")
    assert await talk.titles() == ["Buy fins", "Theirs"]


@pytest.mark.parametrize("arguments", ["{", '{"task": ""}', '{"task": "Buy fins", "confirmed": true}'])
async def test_arguments_that_the_tool_does_not_take_are_refused_without_a_question(talk: Talk, arguments: str) -> None:
    assert await talk.say(Call("delete_task", arguments), Say("Sorry.")) == []
    (told,) = talk.told()
    assert told.startswith("invalid_input: ")
    assert await talk.titles() == ["Buy fins"]


async def test_a_yes_makes_the_call_once(talk: Talk) -> None:
    (question,) = await talk.say(DELETE, Say("Please confirm."))
    done = await talk.answer(question["id"], confirm=True)
    assert done.status_code == 200
    assert done.json() == {
        "id": question["id"],
        "status": "confirmed",
        "output": {"id": IsUUID(), "title": "Buy fins"},
        "text": "Deleted: **Buy fins**",
        "html": None,
    }
    assert await talk.titles() == []
    await talk.add("Buy fins")
    for word in (True, False):
        again = await talk.answer(question["id"], confirm=word)
        assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert await talk.titles() == ["Buy fins"]
    assert await talk.audit() == [("agent", "asked"), ("agent", "ok")]


async def test_how_the_confirmed_call_ended_is_kept_with_the_question(talk: Talk) -> None:
    (first,) = await talk.say(DELETE, Say("Please confirm."))
    (second,) = await talk.say(DELETE, Say("Please confirm."))
    (third,) = await talk.say(DELETE, Say("Please confirm."))
    await talk.answer(first["id"], confirm=False)
    await talk.answer(second["id"], confirm=True)
    # A process of an earlier version, which does not keep it, may have been the one that was answered.
    await execute(talk.url, f"update confirmation set used_at = now(), confirmed = true where id = '{third['id']}'")
    kept = [(await talk.read(asked["id"])).json() for asked in (first, second, third)]
    assert [(row["status"], row["done"], row["error"]) for row in kept] == [
        ("declined", None, None),
        ("confirmed", True, None),
        ("confirmed", None, None),
    ]


async def test_of_answers_at_once_one_has_an_effect(talk: Talk) -> None:
    (question,) = await talk.say(DELETE, Say("Please confirm."))
    answers = await asyncio.gather(*(talk.answer(question["id"], confirm=True) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    assert await talk.titles() == []
    assert await talk.audit() == [("agent", "asked"), ("agent", "ok")]


async def test_a_yes_and_a_no_at_once_are_one_of_the_two(talk: Talk) -> None:
    (question,) = await talk.say(DELETE, Say("Please confirm."))
    answers = await asyncio.gather(*(talk.answer(question["id"], confirm=word) for word in (True, False, True, False)))
    (counted,) = [answer.json()["status"] for answer in answers if answer.status_code == 200]
    assert await talk.titles() == ([] if counted == "confirmed" else ["Buy fins"])
    assert (await talk.read(question["id"])).json()["status"] == counted


async def test_a_question_of_another_caller_is_not_there(talk: Talk) -> None:
    (question,) = await talk.say(DELETE, Say("Please confirm."))
    key = await talk.client.new_key()
    for id in (question["id"], str(uuid4())):
        for answer in (await talk.read(id, key), await talk.answer(id, True, key), await talk.answer(id, False, key)):
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            assert answer.json()["detail"] == f"There is no question {id} to answer"
    assert (await talk.read(question["id"])).json()["status"] == "open"
    assert await talk.titles() == ["Buy fins"]


async def test_a_question_that_has_expired_is_answered_no_more(talk: Talk) -> None:
    (question,) = await talk.say(DELETE, Say("Please confirm."))
    await execute(talk.url, "update confirmation set expires_at = now()")
    assert (await talk.read(question["id"])).json()["status"] == "expired"
    late = await talk.answer(question["id"], confirm=True)
    assert (late.status_code, late.json()["detail"]) == (409, "This question has expired; ask for it again")
    assert await talk.titles() == ["Buy fins"]


async def test_a_key_without_the_tools_scope_confirms_nothing_and_uses_nothing_up(talk: Talk) -> None:
    (question,) = await talk.say(DELETE, Say("Please confirm."))
    answer = await talk.client.http.post("/api/tools/list_tasks", json={}, headers=talk.auth())
    assert answer.status_code == 200
    await execute(talk.url, "update api_key set scopes = '{tasks:read,conversations:write}'")
    refused = await talk.answer(question["id"], confirm=True)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert await talk.titles() == ["Buy fins"]
    await execute(talk.url, "update api_key set scopes = '{tasks:write,conversations:write}'")
    assert (await talk.answer(question["id"], confirm=True)).status_code == 200
    assert await talk.titles() == []
    assert await talk.audit() == [("agent", "asked"), ("agent", "forbidden"), ("agent", "ok")]


@pytest.mark.parametrize("body", [{}, {"confirm": "yes"}, {"confirm": 1}, {"confirm": None}, {"confirm": True, "x": 1}])
async def test_what_is_no_answer_answers_nothing(talk: Talk, body: dict[str, Any]) -> None:
    (question,) = await talk.say(DELETE, Say("Please confirm."))
    path = f"/api/confirmations/{question['id']}"
    assert (await talk.client.http.post(path, json=body, headers=talk.auth())).status_code == 422
    assert (await talk.client.http.post(path, json={"confirm": True})).status_code == 401
    assert (await talk.read(question["id"])).json()["status"] == "open"


async def test_the_owner_reads_what_was_asked(talk: Talk) -> None:
    (question,) = await talk.say(DELETE, Say("Please confirm."))
    id = await talk.id_of("Buy fins")
    assert (await talk.read(question["id"])).json() == {
        "id": question["id"],
        "tool": "delete_task",
        "title": "Delete task",
        "arguments": {"task": "Buy fins"},
        "question": 'Delete the task "Buy fins"?',
        "losses": [{"id": id, "title": "Buy fins"}],
        "status": "open",
        "done": None,
        "error": None,
        "conversation_id": IsUUID(),
        "turn_id": IsUUID(),
        "created_at": IsDatetime(iso_string=True),
        "expires_at": IsDatetime(iso_string=True),
    }


async def test_a_guest_answers_its_own(talk: Talk) -> None:
    guest = (await talk.client.http.post("/api/session")).json()["token"]
    add = Call("create_task", {"title": "Rent a mask"})
    (question,) = await talk.say(add, Call("delete_task", {"task": "Rent a mask"}), Say("?"), key=guest)
    assert await talk.titles() == ["Buy fins", "Rent a mask"]
    assert (await talk.answer(question["id"], confirm=True)).status_code == 404
    assert (await talk.answer(question["id"], confirm=True, key=guest)).status_code == 200
    assert await talk.titles() == ["Buy fins"]


def test_it_is_said_of_every_surface_who_asks() -> None:
    assert set(ASKERS) == set(get_args(Surface))


async def test_the_call_over_rest_is_the_users_own_word(talk: Talk) -> None:
    done = await talk.client.http.post("/api/tools/delete_task", json={"task": "Buy fins"}, headers=talk.auth())
    assert done.status_code == 200
    assert await talk.titles() == []


async def test_a_turn_that_another_replica_takes_over_asks_once(start: Start, stocked_url: str) -> None:
    never = asyncio.Event()
    async with (
        scripted_openai([DELETE, Say("Please confirm that.", hold=(2, never))]) as first,
        scripted_openai([Say("I have asked you.")]) as then,
        start(openai_base_url=first.url, model="m") as here,
        start(openai_base_url=then.url, model="m") as there,
    ):
        await here.http.post("/api/tools/create_task", json={"title": "Buy fins"}, headers=here.auth)
        body, seen = {"message": "please", "agent": "tasks"}, []
        async with here.http.stream("POST", "/api/chat", json=body, headers=here.auth) as response:
            turn = response.headers["X-Turn-Id"]
            async for frame in read_frames(response):
                seen.append(frame.data)
                if frame.data["type"] == "text-delta":
                    break
        await execute(stocked_url, f"update turn set owner = gen_random_uuid() where id = '{turn}'")
        log = (await there.http.get(f"/api/turns/{turn}/events", headers=here.auth)).text
        asked = [json.loads(data) for data in _data(log, "confirmation")]
        assert len(asked) == 1
        assert asked[0]["id"] == next(data["data"]["id"] for data in seen if data["type"] == "data-confirmation")
        assert await fetch(stocked_url, "select count(*) from confirmation") == [(1,)]
        (told,) = [m["content"] for m in then.requests[0]["messages"] if m["role"] == "tool"]
        assert asked[0]["id"] in told


def _data(log: str, kind: str) -> list[str]:
    frames = [frame.split("\n") for frame in log.split("\n\n")]
    return [frame[-1].removeprefix("data: ") for frame in frames if f"event: {kind}" in frame]


async def test_the_offline_model_says_what_it_waits_for_beside_the_question(client: Client) -> None:
    await client.http.post("/api/tools/create_task", json={"title": "Buy fins"}, headers=client.auth)
    answer = await client.ask("Delete the task buy fins")
    assert answer["text"] == "Nothing has been done yet: it waits for your yes."
    assert answer["tools"][-1]["output"]["question"] == 'Delete the task "Buy fins"?'


@dataclass
class Outside:
    """What a tool did outside the database."""

    done: list[str]


@tool(scope="letters:burn", effect="once", destructive=True)
async def burn_letter(context: ToolContext, name: str) -> str:
    """Burn a letter."""
    await asyncio.sleep(0)
    context.resource(Outside).done.append(context.idempotency_key)
    return name


@tool(scope="letters:burn", effect="keyed", destructive=True)
async def shred_letter(context: ToolContext, name: str) -> str:
    """Shred a letter."""
    await asyncio.sleep(0)
    context.resource(Outside).done.append(context.idempotency_key)
    raise Conflict("The shredder is jammed")


@pytest.mark.parametrize("burn", [burn_letter, shred_letter])
async def test_an_effect_outside_the_database_happens_once_for_one_yes(
    database: Database, me: Caller, other: Caller, burn: Tool[..., Any]
) -> None:
    outside, tools = Outside([]), {burn.name: burn}
    runtime = Runtime(settings=Settings(), database=database, resources={Outside: outside})
    asked = await call_tool(runtime, burn, {"name": "a"}, caller=me, surface="agent")
    id = UUID(asked["confirmation"])
    assert outside.done == []
    answers = await asyncio.gather(
        *(confirm_call(runtime, tools, id, caller=caller, surface="agent") for caller in (me, me, other, me)),
        return_exceptions=True,
    )
    assert outside.done == [str(id)]
    assert sum(answer == "a" or "jammed" in str(answer) for answer in answers) == 1
    with pytest.raises(Conflict, match="answered already"):
        await decline_call(runtime, id, caller=me, surface="agent")
    async with database.transaction(me.id) as session:
        row = await ConfirmationRepository(session, me).get(id)
    assert row.outcome == ("ok" if burn is burn_letter else "conflict: The shredder is jammed")


async def test_the_command_line_asks_on_a_terminal_and_needs_a_yes_without_one(start: Start, stocked_url: str) -> None:
    async with start() as client:
        await client.http.post("/api/tools/create_task", json={"title": "Buy fins"}, headers=client.auth)
        environment = {**os.environ, "DATABASE_URL": stocked_url, "AGENT_SERVER_KEY": client.key}

    async def call(typed: str | None, *more: str) -> tuple[int | None, str]:
        command = zygote.command("agent_server", "tool", "call", "delete_task", "--task", "Buy fins", *more)
        ours, theirs = os.openpty()
        os.write(ours, (typed or "").encode())
        stdin = subprocess.DEVNULL if typed is None else theirs
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdin=stdin, stdout=-1, stderr=-1, env=environment
        )
        _, said = await process.communicate()
        os.close(ours)
        os.close(theirs)
        return process.returncode, said.decode()

    unasked, said = await call(None)
    assert (unasked, "--yes" in said) == (2, True)
    declined, said = await call("n\n")
    assert (declined, 'Delete the task "Buy fins"?' in said) == (1, True)
    assert await fetch(stocked_url, "select title from task") == [("Buy fins",)]
    assert (await call("y\n"))[0] == 0
    assert await fetch(stocked_url, "select title from task") == []
