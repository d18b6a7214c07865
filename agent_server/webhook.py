"""A webhook is what another service tells this server over `POST /api/hooks/<name>`.

    def verify(request: WebhookRequest) -> Delivery | None:
        ...  # checks the signature, and says whose rows it is about

    @webhook("stripe", scope="payments:receive", verify=verify)
    async def hear_stripe(context: ToolContext, event: str, status: str) -> None:
        \"\"\"Note what the provider says of a payment.\"\"\"

Nobody signs in to send one. So nothing is read or written before `verify` has found a signature of the service and,
in what is signed, the owner. Then the function is called as a tool is: for that owner, with the scope that it declares
and no other, in one transaction, with a time limit and a row in the audit. No other surface offers it.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from agent_server.errors import Mistake
from agent_server.tool import Tool, collect_mistakes, report_mistakes, tool

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True, kw_only=True)
class WebhookRequest:
    """A request as it came. Names of `headers` are in lower case; `body` are the very bytes that were signed."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What a request that was verified says: to call the webhook's function with `arguments`, for `owner`. `key` is the
    service's own name for what it tells, which is the same when it tells it again."""

    owner: UUID
    arguments: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None


Verify = Callable[[WebhookRequest], Delivery | None]


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """One declared webhook. `receiver` is what is called of it."""

    name: str
    verify: Verify
    receiver: Tool[..., Any]


def webhook(
    name: str, *, scope: str, verify: Verify, per_hour: int | None = None
) -> Callable[[Callable[..., Awaitable[Any]]], Webhook]:
    """Declare a webhook. Raises WorkspaceInvalid for what cannot work, with file and line.

    Args:
        name: what follows `/api/hooks/` in its address.
        scope: what the function may do, `resource:verb`.
        verify: whose rows a request is about; None of one that is genuine and asks for nothing. It raises Forbidden for
            one that the service has not signed, or that is too old. It gets no session.
        per_hour: how often it may be called for an owner in an hour.
    """

    def declare(function: Callable[..., Awaitable[Any]]) -> Webhook:
        code = inspect.unwrap(function).__code__
        with collect_mistakes() as found:
            receiver = tool(scope=scope, effect="stored", per_hour=per_hour)(function)
        declared = Webhook(name=name, verify=verify, receiver=receiver)
        kept = [mistake.message.removeprefix(f"tool {function.__name__}: ") for mistake in found]
        wrong = [*_mistakes(declared), *kept]
        report_mistakes([Mistake(code.co_filename, code.co_firstlineno, f"webhook {name}: {m}") for m in wrong])
        return declared

    return declare


def _mistakes(declared: Webhook) -> Iterator[str]:
    if not _NAME.fullmatch(declared.name):
        yield "a name is words of a-z and 0-9 with a dash between them, as in stripe or our-bank"
    if not callable(declared.verify) or inspect.iscoroutinefunction(declared.verify):
        yield "verify must be a function that is not `async`: it looks at the request alone"


def collect_webhooks(found: Sequence[Webhook], root: Path) -> tuple[dict[str, Webhook], list[Mistake]]:
    """The webhooks by name, and those whose name is another's."""
    kept: dict[str, Webhook] = {}
    problems: list[Mistake] = []
    for each in found:
        if kept.setdefault(each.name, each) is not each:
            path = Path(each.receiver.file)
            file = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
            problems.append(Mistake(file, each.receiver.line, f"webhook {each.name}: there is one already; rename one"))
    return kept, problems
