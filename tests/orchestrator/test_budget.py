"""A model is given as much of a conversation as it takes, in whole turns."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent_server.conversations.budget import count_request, count_tokens, cut_outputs, fit_budget
from agent_server.conversations.history import alternate
from agent_server.models.windows import UNKNOWN, find_window
from agent_server.settings import load_settings
from agent_server.testing import Call, Calls, Say, Step, scripted_openai
from tests.server import Start

TEXT = st.text(st.characters(codec="utf-8"), max_size=30) | st.integers(1, 5_000).map(lambda n: "word " * n)
ANSWER = st.lists(st.tuples(TEXT, TEXT), max_size=3)


def turn(n: int, question: str, calls: list[tuple[str, str]], answer: str | None) -> list[dict[str, Any]]:
    bodies: list[dict[str, Any]] = [{"role": "user", "content": f"{n}. {question}"}]
    for i, (arguments, output) in enumerate(calls):
        id = f"call_{n}_{i}"
        bodies.append({"type": "function_call", "call_id": id, "name": "t", "arguments": json.dumps({"a": arguments})})
        bodies.append({"type": "function_call_output", "call_id": id, "output": output})
    return bodies if answer is None else [*bodies, {"role": "assistant", "content": f"{n}. {answer}"}]


TURNS = st.lists(st.tuples(TEXT, ANSWER, st.none() | TEXT), max_size=6).map(
    lambda turns: [turn(n, *one) for n, one in enumerate(turns)]
)


@given(TURNS, ANSWER, st.integers(0, 20_000))
def test_whole_turns_are_left_out_the_oldest_first_and_the_last_one_stays(
    turns: list[list[dict[str, Any]]], calls: list[tuple[str, str]], budget: int
) -> None:
    past, present = [body for one in turns for body in one], turn(99, "now", calls, None)
    kept, now = fit_budget(past, present, budget)
    assert now[0] == present[0]
    assert [body.get("call_id") for body in now] == [body.get("call_id") for body in present]
    # What is kept are the ends of the conversation, with each call and its output.
    shapes = [[(b.get("role"), b.get("type"), b.get("call_id")) for b in one] for one in turns]
    ends = [[shape for one in shapes[n:] for shape in one] for n in range(len(shapes))] or [[]]
    assert [(b.get("role"), b.get("type"), b.get("call_id")) for b in kept] in ends
    if count_request([*past, *present]) <= budget:
        assert (kept, now) == (past, present)
    if len(kept) > len(turns[-1]) if turns else False:
        assert count_request([*kept, *now]) <= budget


@given(TURNS, st.lists(st.sampled_from(["steer", "call", "text"]), max_size=5))
def test_user_and_assistant_speak_by_turns_as_the_strictest_template_wants(
    turns: list[list[dict[str, Any]]], acts: list[str]
) -> None:
    past, present = [body for one in turns for body in one], turn(99, "now", [], None)
    for n, act in enumerate(acts):
        present += {
            "steer": [{"role": "user", "content": f"steer {n}"}],
            "call": turn(100 + n, "", [("a", "b")], None)[1:],
            "text": [{"role": "assistant", "content": f"text {n}"}],
        }[act]
    spoken = alternate(past, present)
    # Mistral's template counts messages of the user, and those of the assistant that have no call beside them.
    counted = [
        body["role"]
        for n, body in enumerate(spoken)
        if body.get("role") == "user"
        or (
            body.get("role") == "assistant"
            and spoken[n + 1 : n + 2] != []
            and spoken[n + 1].get("type") != "function_call"
        )
        or (body.get("role") == "assistant" and n == len(spoken) - 1)
    ]
    assert all(role == ("user", "assistant")[n % 2] for n, role in enumerate(counted)), counted
    said = json.dumps(spoken)
    assert all(json.dumps(body["content"])[1:-1] in said for body in present if "content" in body)
    assert [b for b in spoken if "call_id" in b] == [b for b in [*past, *present] if "call_id" in b]


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_text_is_never_fewer_tokens_than_a_part_of_it(text: str, more: str) -> None:
    assert count_tokens(text) <= count_tokens(text + more)


def test_the_output_of_a_tool_is_cut_in_its_middle() -> None:
    (cut,) = cut_outputs(
        [{"type": "function_call_output", "call_id": "a", "output": "begin" + "x" * 9_000 + "end"}], 600
    )
    assert cut["output"].startswith("begin")
    assert cut["output"].endswith("end")
    assert "8,408 characters are left out" in cut["output"]
    assert len(cut["output"]) < 700


def test_the_window_of_a_model_is_what_is_set_or_known_or_a_safe_guess() -> None:
    settings = load_settings()
    assert find_window("openai/gpt-4.1", settings) > 1_000_000
    assert find_window("groq/openai/gpt-oss-120b", settings) == 131_072
    assert find_window("openai/my-own-model", settings) == UNKNOWN
    assert find_window("ollama_chat/llama3.3", settings) <= UNKNOWN
    assert find_window("openai/gpt-4.1", load_settings(context_window=4_096)) == 4_096


async def test_a_conversation_goes_on_for_ever_with_a_small_model_and_people_see_all_of_it(start: Start) -> None:
    window = 6_000
    script: list[Step] = [
        Calls(tuple(Call("create_task", {"title": f"{n} {'long ' * 30}"}) for n in range(20))),
        Call("list_tasks", {}),
        *(Say(f"answer {n} {'word ' * 400}") for n in range(8)),
    ]
    async with (
        scripted_openai(script) as model,
        start(openai_base_url=model.url, model="m", context_window=window, tool_output_limit=2_000) as client,
    ):
        answer = await client.ask("Add twenty tasks")
        first = answer
        for n in range(7):
            question = f"question {n} {'please ' * 100}"
            answer = await client.ask(question, id=answer["conversation_id"])
            given = [m["content"] for m in model.requests[-1]["messages"] if m["role"] in ("user", "assistant")]
            assert given[-1] == question.strip() or given[-1] == question
            assert any(f"answer {n}" in (text or "") for text in given), "the last answer is there"
            assert sum(len(json.dumps(m)) for m in model.requests[-1]["messages"]) < window * 4
        assert not any("Add twenty" in (text or "") for text in given), "old turns are left out"
        output = next(tool["output"] for tool in first["tools"] if tool["name"] == "list_tasks")
        assert len(output["items"]) == 20
        told = [m["content"] for m in model.requests[2]["messages"] if m["role"] == "tool"]
        assert max(map(len, told)) < 2_100


async def test_the_first_turns_are_summarised_where_that_is_switched_on(start: Start) -> None:
    def reply(request: dict[str, Any]) -> Step:
        asked = request["messages"][0]["content"]
        return Say("They dive.") if asked.startswith("Summarise") else Say(f"answer {'word ' * 100}")

    async with (
        scripted_openai(reply) as model,
        start(openai_base_url=model.url, model="m", summaries=True, history_limit=6) as client,
    ):
        answer = await client.ask("question 0")
        id = answer["conversation_id"]
        for n in range(1, 5):
            await client.ask(f"question {n}", id=id)
        usage = (await client.ask("question 5", id=id))["usage"]
        assert (usage["requests"], usage["total_tokens"]) in ((1, 15), (2, 30))
        summed = [r["messages"][1]["content"] for r in model.requests if r["messages"][0]["content"].startswith("Summ")]
        assert "question 0" in summed[0]
        assert "question 5" not in summed[-1]
        told = model.requests[-1 if "question 5" in str(model.requests[-1]["messages"][-1]) else -2]
        assert '"They dive."' in told["messages"][0]["content"]
        assert "question 0" not in json.dumps(told["messages"][1:])
        assert (await client.get(f"/api/conversations/{id}"))["summary"] == "They dive."
        # What was summarised is not there any more once it is edited.
        edit = {
            "id": id,
            "messages": [{"id": f"{answer['turn_id']}.1", "role": "user", "parts": [{"type": "text", "text": "Anew"}]}],
        }
        await client.http.post("/api/chat", json={**edit, "stream": False}, headers=client.auth)
        assert (await client.get(f"/api/conversations/{id}"))["summary"] is None
        assert "They dive" not in json.dumps(model.requests[-1])


async def test_nothing_is_summarised_unless_it_is_switched_on(start: Start) -> None:
    async with (
        scripted_openai(lambda _: Say("word " * 100)) as model,
        start(openai_base_url=model.url, model="m", history_limit=2) as client,
    ):
        answer = await client.ask("question 0")
        for n in range(1, 4):
            await client.ask(f"question {n}", id=answer["conversation_id"])
        assert len(model.requests) == 4
        assert (await client.get(f"/api/conversations/{answer['conversation_id']}"))["summary"] is None
