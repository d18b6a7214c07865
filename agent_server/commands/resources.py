"""agent-server resource"""

import base64
import sys
from dataclasses import asdict

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.readable import Readable, create_documents, list_templates, page_readable, read_contents

_PAGE = 200


async def list_resources(context: CommandContext, as_json: bool) -> None:
    server, caller = await context.server(), await context.caller()
    documents, resources = create_documents(server.database), server.workspace.resources
    found: list[Readable] = []
    cursor: str | None = None
    while True:
        page = await page_readable(documents, resources, caller, _PAGE, cursor)
        found += page.items
        if (cursor := page.next_cursor) is None:
            break
    templates = list_templates(documents, resources, caller)
    if as_json:
        show({"resources": [asdict(each) for each in found], "templates": [asdict(each) for each in templates]})
        return
    for each in (*found, *templates):
        say(f"{each.uri:<44} {each.mime_type:<18} {each.title}")


async def read_resource(context: CommandContext, uri: str, as_json: bool) -> None:
    server, caller = await context.server(), await context.caller()
    documents = create_documents(server.database)
    found = await read_contents(
        server.runtime, documents, server.workspace.resources, uri, caller=caller, surface="cli"
    )
    if as_json:
        show({"uri": uri, **found.model_dump(mode="json")})
    elif found.blob is not None:
        sys.stdout.buffer.write(base64.b64decode(found.blob))
    else:
        say(found.text or "")
