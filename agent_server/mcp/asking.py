"""Ask the user of a client, before something is lost for good or because a tool asks.

In the protocol of 2026 the first answer to a call is a question with a `requestState`; the client puts it to its user
and calls again with both. The state is the id of the question's row, the same on every replica. It is not sealed,
because it holds nothing: the row names its caller, tool and arguments, expires, and is used up with the answer.

A client of before 2026 is asked while its call is open: over HTTP by `back_channel`, over stdio by the SDK.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from agent_server.caller import Caller
from agent_server.calls.call import Runtime, ask_first, call_tool, json_arguments
from agent_server.calls.confirmations import Changed, Confirmation, Question, find_asker, show_lines
from agent_server.calls.consent import confirm_call, decline_call, get_open_confirmation
from agent_server.calls.inquiries import ClientQuestion, ClientQuestionRepository, given_of, inquiries_of
from agent_server.errors import Conflict, InvalidInput, NotFound
from agent_server.mcp.back_channel import BackChannel, channel, read_needs
from agent_server.mcp.errors import error_data
from agent_server.mcp.listening import Hearing
from agent_server.questions import Answers, Asked, Inquiry, Need, Reply
from agent_server.tool import Tool

Context = ServerRequestContext[Any, Any]
Request = types.ElicitRequest | types.CreateMessageRequest | types.ListRootsRequest
_RESULTS: Mapping[type[Request], type[types.Result]] = {
    types.ElicitRequest: types.ElicitResult,
    types.CreateMessageRequest: types.CreateMessageResult,
    types.ListRootsRequest: types.ListRootsResult,
}
Outcome = Any | types.CallToolResult | types.InputRequiredResult

_CONFIRM, _ANSWER = "confirm", "answer"
_ASKED = "ask:"
"""How the state of a tool's question begins. That of one before something is lost is an id alone."""


@dataclass(frozen=True)
class Client:
    """What the client of a call can be asked, and on which way. With neither way it is asked by the answer to its call."""

    can: frozenset[Need]
    back: BackChannel | None = None
    context: Context | None = None

    @property
    def waits(self) -> bool:
        """Whether it is asked while its call is open."""
        return self.back is not None or self.context is not None

    async def ask(self, id: UUID, inquiry: Inquiry) -> Reply:
        """Ask what a tool asks while the call is open."""
        return await self.send(id, request_of(inquiry, id))

    async def send(self, id: UUID, request: Request) -> Reply:
        """Send a request while the call is open. What is no answer is none of the user's."""
        if self.back is not None:
            params = request.params and request.params.model_dump(mode="json", by_alias=True, exclude_none=True)
            answer = await self.back.ask(id, request.method, params or {})
        else:
            assert self.context is not None, "a client that waits has a way"
            related = ServerMessageMetadata(related_request_id=self.context.request_id)
            try:
                sent = await self.context.session.send_request(request, _RESULTS[type(request)], metadata=related)
                answer = sent.model_dump(mode="json", by_alias=True, exclude_none=True)
            except (MCPError, ValidationError):
                answer = None
        return read_reply(request, answer)


def read_reply(request: Request, answer: Mapping[str, Any] | None) -> Reply:
    """What a client says to a request. Of its model and of its folders it sends what there is, and an error for a no."""
    if not isinstance(request, types.ElicitRequest):
        is_there = answer is not None and ("content" in answer or "roots" in answer)
        return Reply("accept", answer) if is_there else Reply("cancel")
    match answer:
        case {"action": "accept", "content": dict(content)}:
            return Reply("accept", content)
        case {"action": "accept"}:
            return Reply("accept", {})
        case {"action": "decline"}:
            return Reply("decline")
    return Reply("cancel")


def read_response(name: str, inquiry: Inquiry, responses: Mapping[str, Any]) -> Reply:
    """What a client of 2026 says to the question of this name. Raises MCPError where that is no answer to it."""
    response = responses.get(name)
    request = request_of(inquiry, None)
    kinds: tuple[type[types.Result], ...] = (_RESULTS[type(request)],)
    if inquiry.sampling is not None:
        kinds = (*kinds, types.CreateMessageResultWithTools)
    if not isinstance(response, kinds):
        raise MCPError(types.INVALID_PARAMS, f"inputResponses.{name}: send what was answered to the question")
    return read_reply(request, response.model_dump(mode="json", by_alias=True, exclude_none=True))


def request_of(inquiry: Inquiry, id: UUID | None) -> Request:
    """A tool's question as the protocol has it. `id` is for a client of before 2026."""
    if inquiry.roots:
        return types.ListRootsRequest(params=None if id is not None else types.RequestParams())
    if inquiry.sampling is not None:
        return types.CreateMessageRequest(params=types.CreateMessageRequestParams.model_validate(inquiry.sampling))
    return types.ElicitRequest(params=_params_of(inquiry, id))


def find_client(context: Context) -> Client:
    """The client of this request.

    One that cannot be asked is not refused: it asks its user by itself, by the `destructiveHint`.
    """
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS and not context.session.can_send_request:
        back = channel.get()
        return Client(frozenset() if back is None else back.can, back)
    declared = context.session.client_capabilities
    said = {} if declared is None else declared.model_dump(mode="json", by_alias=True, exclude_none=True)
    return Client(read_needs(said), None, None if context.protocol_version in MODERN_PROTOCOL_VERSIONS else context)


def name_missing(needs: Need) -> Mapping[str, Any]:
    """What a client of 2026 has to declare to be asked, as `ClientCapabilities`."""
    match needs:
        case "forms" | "urls":
            return {"elicitation": {"form" if needs == "forms" else "url": {}}}
        case "samples":
            return {"sampling": {}}
        case "roots":
            return {"roots": {}}


@dataclass(frozen=True)
class Asking:
    """One call of a client, with the questions that it may take."""

    runtime: Runtime
    tool: Tool[..., Any]
    params: types.CallToolRequestParams
    caller: Caller
    client: Client
    heard: Hearing

    async def make(self) -> Outcome:
        """The output of the call, or a question in its place. Raises MCPError for a state that is not this caller's for
        this call, or is used up or has expired, and as `call_tool`."""
        if self.params.request_state is not None:
            return await self._go_on(self.params.request_state)
        if find_asker(self.tool, "mcp") == "client" and "forms" in self.client.can:
            question = await ask_first(self.runtime, self.tool, self._arguments, caller=self.caller, surface="mcp")
            return await self._confirm(question) if self.client.waits else _put(question)
        return await self._call(self._begin(uuid4().hex))

    def _begin(self, key: str, given: Sequence[tuple[Inquiry, Reply]] = ()) -> Answers:
        return Answers(key=key, given=given, can=self.client.can)

    @property
    def _arguments(self) -> Mapping[str, Any]:
        return self.params.arguments or {}

    async def _call(self, answers: Answers) -> Outcome:
        while True:
            try:
                return await call_tool(
                    self.runtime,
                    self.tool,
                    self._arguments,
                    caller=self.caller,
                    surface="mcp",
                    listener=self.heard,
                    answers=answers,
                )
            except Asked as asked:
                if not self.client.waits:
                    row = await self._keep(asked.inquiries, asked.answers)
                    requests = zip(_name_all(asked.inquiries), asked.inquiries, strict=True)
                    return require_input(f"{_ASKED}{row.id}", {name: request_of(each, None) for name, each in requests})
                answers = asked.answers
                for inquiry in asked.inquiries:
                    row = await self._keep([inquiry], answers)
                    answers = answers.add(inquiry, await self.client.ask(row.id, inquiry))

    async def _keep(self, inquiries: Sequence[Inquiry], answers: Answers) -> ClientQuestion:
        arguments = json_arguments(self.tool, self.tool.validate(self._arguments))
        async with self.runtime.database.transaction(self.caller.id) as session:
            questions = ClientQuestionRepository(session, self.caller)
            return await questions.put(self.tool.name, arguments, inquiries, answers)

    async def _confirm(self, question: Question) -> Outcome:
        """Put the question while the call is open."""
        while True:
            form = types.ElicitRequest(params=_form_of(question))
            reply = await self.client.send(await self._keep_question(question), form)
            try:
                return await self._take_word(UUID(question.id), reply)
            except Changed as changed:
                if changed.question is None:
                    raise
                question = changed.question

    async def _keep_question(self, question: Question) -> UUID:
        if self.client.back is None:
            return UUID(question.id)
        async with self.runtime.database.transaction(self.caller.id) as session:
            questions = ClientQuestionRepository(session, self.caller)
            asked = Inquiry(question.question)
            return (await questions.put(self.tool.name, question.arguments, [asked], Answers(key=question.id))).id

    async def _take_word(self, id: UUID, reply: Reply) -> Outcome:
        """What the user's word about a call makes of it. Raises Changed."""
        # Only a plain yes is one: a client may send the form back as it was, or a text in the place of the boolean.
        if reply.action == "accept" and (reply.content or {}).get(_CONFIRM) is True:
            tools = {self.tool.name: self.tool}
            return await confirm_call(self.runtime, tools, id, caller=self.caller, surface="mcp", listener=self.heard)
        await decline_call(self.runtime, id, caller=self.caller, surface="mcp")
        said_no = (
            f"declined: the user did not confirm it, so nothing was done. Do not call {self.tool.name} again for this"
        )
        return types.CallToolResult(content=[types.TextContent(text=said_no)], is_error=True)

    async def _go_on(self, state: str) -> Outcome:
        """Take the answer that came with a second call."""
        is_tools = state.startswith(_ASKED)
        try:
            id = UUID(state.removeprefix(_ASKED))
            row = await (self._get_question(id) if is_tools else get_open_confirmation(self.runtime, id, self.caller))
            self._compare(row)
        except ValueError:
            raise MCPError(types.INVALID_PARAMS, "requestState: not one of this server's; call without it") from None
        except (NotFound, Conflict, InvalidInput) as error:
            data = error_data(error).model_copy(update={"code": types.INVALID_PARAMS})
            raise MCPError.from_error_data(data) from error
        if isinstance(row, ClientQuestion):
            inquiries = inquiries_of(row)
            replies = [self._read_response(*each) for each in zip(_name_all(inquiries), inquiries, strict=True)]
            await self._use_up(row)
            return await self._call(self._begin(row.key, given_of(row, replies)))
        reply = self._read_response(_CONFIRM, Inquiry(""))
        try:
            return await self._take_word(row.id, reply)
        except Changed as changed:
            if changed.question is None:
                raise
            return _put(changed.question)

    async def _get_question(self, id: UUID) -> ClientQuestion:
        async with self.runtime.database.transaction(self.caller.id) as session:
            row = await ClientQuestionRepository(session, self.caller).find(id)
        if row is None:
            raise NotFound(f"There is no question {id} to answer; each is answered once, within 15 minutes")
        return row

    def _compare(self, row: ClientQuestion | Confirmation) -> None:
        # The client sends the arguments again, and could have its user asked about one call and then make another.
        sent = json_arguments(self.tool, self.tool.validate(self._arguments))
        if row.tool != self.tool.name or row.arguments != sent:
            raise InvalidInput("requestState: is of another call; call again as at first, without it")

    def _read_response(self, name: str, inquiry: Inquiry) -> Reply:
        return read_response(name, inquiry, self.params.input_responses or {})

    async def _use_up(self, row: ClientQuestion) -> None:
        # In a transaction of its own, before the tool runs: of two answers, or one sent twice, one makes the call.
        async with self.runtime.database.transaction(self.caller.id) as session:
            taken = await ClientQuestionRepository(session, self.caller).take(row.id)
        if not taken:
            error = error_data(Conflict("This has just been answered, or has just expired"))
            raise MCPError.from_error_data(error.model_copy(update={"code": types.INVALID_PARAMS}))


def _put(question: Question) -> types.InputRequiredResult:
    return require_input(question.id, {_CONFIRM: types.ElicitRequest(params=_form_of(question))})


def require_input(state: str, requests: Mapping[str, Request]) -> types.InputRequiredResult:
    """The answer to a call that asks a client of 2026."""
    return types.InputRequiredResult(request_state=state, input_requests=dict(requests))


def _name_all(inquiries: Sequence[Inquiry]) -> Sequence[str]:
    """What a client knows these questions by. Those without a name, or with that of another one, are numbered."""
    names = [inquiry.name or (_ANSWER if n == 0 else f"{_ANSWER}_{n + 1}") for n, inquiry in enumerate(inquiries)]
    return [f"{name}_{n + 1}" if name in names[:n] else name for n, name in enumerate(names)]


def _form_of(question: Question) -> types.ElicitRequestFormParams:
    return types.ElicitRequestFormParams(
        message=f"{question.question} This cannot be undone.",
        requested_schema={
            "type": "object",
            "properties": {_CONFIRM: {"type": "boolean", "title": question.title, "default": False}},
            "required": [_CONFIRM],
        },
    )


def _params_of(inquiry: Inquiry, id: UUID | None) -> types.ElicitRequestParams:
    """A tool's question. `id` is for a client of before 2026, which is told when what it opened is done."""
    # What a tool quotes may be of others; it must not hide or reorder what the user reads.
    message = show_lines(inquiry.message)
    if inquiry.url is not None:
        return types.ElicitRequestURLParams(
            message=message, url=inquiry.url, elicitation_id=None if id is None else str(id)
        )
    return types.ElicitRequestFormParams(message=message, requested_schema=dict(inquiry.schema or {}))
