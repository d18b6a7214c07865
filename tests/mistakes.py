"""Workspaces with one mistake each, and what is said of it. No two of them have a file in common."""

BASE = {
    "content/guide/first.md": "# First\n\nText.\n",
    "prompts/guide.md": "---\nname: guide\ndescription: x\n---\nHelp.\n",
}
"""What each of the workspaces has beside its mistake."""


def prompt(name: str, lines: str = "", body: str = "Help.\n") -> dict[str, str]:
    return raw(name, f"---\nname: {name}\ndescription: Answers questions.\n{lines}---\n{body}")


def raw(name: str, text: str) -> dict[str, str]:
    return {f"prompts/{name}.md": text}


def page(name: str, text: str) -> dict[str, str]:
    return {f"content/guide/{name}.md": text}


def tool(
    name: str,
    decorator: str = '@tool(scope="things:read", effect="read")',
    head: str | None = None,
    doc: str = '    """Count the things."""\n',
) -> dict[str, str]:
    head = head or f"async def {name}(context: ToolContext) -> int:"
    return {
        f"tools/{name}.py": f"from agent_server import ToolContext, tool\n\n\n{decorator}\n{head}\n{doc}    return 0\n"
    }


CASES: dict[str, tuple[dict[str, str], str]] = {
    "knowledge_misspelt": (
        prompt("knowledge_misspelt", "knowledge: [giude]\n"),
        "prompts/knowledge_misspelt.md:4: knowledge: there is no collection 'giude'; did you mean 'guide'? (a collection is a folder of content/ with a page in it, as in content/guide/first.md)",
    ),
    "knowledge_unknown": (
        prompt("knowledge_unknown", "knowledge:\n  - guide\n  - astronomy\n"),
        "prompts/knowledge_unknown.md:4: knowledge: there is no collection 'astronomy'; there is guide (a collection is a folder of content/ with a page in it, as in content/guide/first.md)",
    ),
    "tool_misspelt": (
        prompt("tool_misspelt", "tools: [serch_knowledge]\n"),
        "prompts/tool_misspelt.md:4: tools: there is no tool 'serch_knowledge'; did you mean 'search_knowledge'? There are add_my_document, count_conversations, delete_conversation, delete_my_document, get_conversation, list_conversations, list_documents, list_messages, list_my_documents, offer_form, read_document, read_my_document, rename_conversation, search_conversations, search_knowledge",
    ),
    "handoff_unknown": (
        prompt("handoff_unknown", "handoffs: [xyz]\n"),
        "prompts/handoff_unknown.md:4: handoffs: there is no agent 'xyz'; there are guide, handoff_unknown, triage",
    ),
    "provider_misspelt": (
        prompt("provider_misspelt", "model: opnai/gpt-5.4-mini\n"),
        "prompts/provider_misspelt.md:4: model: there is no provider 'opnai'; did you mean 'openai/gpt-5.4-mini'? For a model of your own server set OPENAI_BASE_URL",
    ),
    "provider_unknown": (
        prompt("provider_unknown", "model: acme-llm/large\n"),
        "prompts/provider_unknown.md:4: model: there is no provider 'acme-llm'; write provider/model, as in openai/gpt-5.4-mini. For a model of your own server set OPENAI_BASE_URL",
    ),
    "model_missing": (
        prompt("model_missing", "model: gemini/\n"),
        "prompts/model_missing.md:4: model: 'gemini/' names no model; write as in openai/gpt-5.4-mini",
    ),
    "key_misspelt": (
        prompt("key_misspelt", "tols: [search_knowledge]\n"),
        "prompts/key_misspelt.md:4: tols: not a key of an agent; did you mean 'tools'? There are description, examples, handoffs, inputs, knowledge, max_turns, mcp, model, name, output, rephrase, share, temperature, tools, version",
    ),
    "key_unknown": (
        prompt("key_unknown", "colour: red\n"),
        "prompts/key_unknown.md:4: colour: not a key of an agent; there are description, examples, handoffs, inputs, knowledge, max_turns, mcp, model, name, output, rephrase, share, temperature, tools, version",
    ),
    "tools_number": (
        prompt("tools_number", "tools: 7\n"),
        "prompts/tools_number.md:4: tools: must be a list of texts, as in `tools: [search_knowledge]`; put one with a colon in quotation marks",
    ),
    "examples_mapping": (
        prompt("examples_mapping", "examples:\n  - What's up: how?\n"),
        'prompts/examples_mapping.md:4: examples: must be a list of texts, as in `examples: ["How long should dough rise?"]`; put one with a colon in quotation marks',
    ),
    "model_list": (
        prompt("model_list", "model: [a]\n"),
        "prompts/model_list.md:4: model: must be text, as in `model: openai/gpt-5.4-mini`; put a number or a yes in quotation marks",
    ),
    "no_description": (
        raw("no_description", "---\nname: no_description\n---\nHelp.\n"),
        "prompts/no_description.md:2: description: is missing; write one, as in `description: Answers questions about bread.`",
    ),
    "empty_description": (
        raw("empty_description", "---\nname: empty_description\ndescription: ''\n---\nHelp.\n"),
        "prompts/empty_description.md:3: description: is empty; write one, as in `description: Answers questions about bread.`",
    ),
    "description_number": (
        raw("description_number", "---\nname: description_number\ndescription: 5\n---\nHelp.\n"),
        "prompts/description_number.md:3: description: must be text, as in `description: Answers questions about bread.`; put a number or a yes in quotation marks",
    ),
    "no_name": (
        raw("no_name", "---\ndescription: x\n---\nHelp.\n"),
        "prompts/no_name.md:2: name: is missing; write one, as in `name: baker`",
    ),
    "bad_name": (
        raw("bad_name", "---\nname: Bad Name\ndescription: x\n---\nHelp.\n"),
        "prompts/bad_name.md:2: name: must be 1 to 40 of a-z, 0-9, - and _, starting with a letter, as in safety-adviser",
    ),
    "other_name": (
        raw("other_name", "---\nname: another\ndescription: x\n---\nHelp.\n"),
        "prompts/other_name.md:2: name: is 'another', the file is other_name.md; make them the same",
    ),
    "unclosed_list": (
        prompt("unclosed_list", "tools: [search_knowledge\nexamples:\n  - Hello\n"),
        "prompts/unclosed_list.md:4: front matter is not YAML: the list of `tools:` begins here and is not closed; end it with ], as in tools: [one, two]",
    ),
    "unclosed_mapping": (
        prompt("unclosed_mapping", "examples: {a: b\n"),
        "prompts/unclosed_mapping.md:4: front matter is not YAML: the mapping of `examples:` begins here and is not closed; end it with }, as in examples: {one: 1, two: 2}",
    ),
    "unclosed_quotation": (
        raw(
            "unclosed_quotation",
            '---\nname: unclosed_quotation\ndescription: "Answers questions.\nmodel: x\n---\nHelp.\n',
        ),
        'prompts/unclosed_quotation.md:3: front matter is not YAML: the quotation of `description:` does not end where its text does; write description: "Answers questions."',
    ),
    "quotation_in_list": (
        prompt("quotation_in_list", 'examples:\n  - "How long?\n  - Why?\n'),
        "prompts/quotation_in_list.md:5: front matter is not YAML: a quotation that begins here is not closed; look at the quotation marks, the brackets and how far this line is indented",
    ),
    "apostrophe": (
        raw("apostrophe", "---\nname: apostrophe\ndescription: 'It's fine'\n---\nHelp.\n"),
        'prompts/apostrophe.md:3: front matter is not YAML: the quotation of `description:` does not end where its text does; write description: "It\'s fine"',
    ),
    "tab": (
        prompt("tab", "tools:\n\t- search_knowledge\n"),
        "prompts/tab.md:5: front matter is not YAML: there is a tab in this line; write spaces",
    ),
    "colon": (
        raw("colon", "---\nname: colon\ndescription: Takes travel: where to go\n---\nHelp.\n"),
        'prompts/colon.md:3: front matter is not YAML: there is a colon in the value; put it in quotation marks, as in description: "Takes travel: where to go"',
    ),
    "no_space": (
        raw("no_space", "---\nname:no_space\ndescription: x\n---\nHelp.\n"),
        "prompts/no_space.md:2: front matter is not YAML: there is no space behind the colon; write `name: no_space`",
    ),
    "no_colon": (
        raw("no_colon", "---\nname no_colon\ndescription: x\n---\nHelp.\n"),
        "prompts/no_colon.md:2: front matter is not YAML: 'name no_colon' is no `key: value`; write one as in `title: Bread`, or indent the line",
    ),
    "indented": (
        prompt("indented", " model: offline\n"),
        "prompts/indented.md:4: front matter is not YAML: `model:` is indented and the line above has a value already; begin it at the margin",
    ),
    "sign": (
        raw("sign", "---\nname: sign\ndescription: @home\n---\nHelp.\n"),
        'prompts/sign.md:3: front matter is not YAML: a value cannot begin with @; put it in quotation marks, as in description: "@home"',
    ),
    "twice": (prompt("twice", "name: twice\n"), "prompts/twice.md:4: name: is on line 2 too; keep one"),
    "no_end": (
        raw("no_end", "---\nname: no_end\ndescription: x\n\nHelp.\n"),
        "prompts/no_end.md:1: its front matter does not end: write a line `---` below it",
    ),
    "no_begin": (
        raw("no_begin", "name: no_begin\ndescription: x\n---\nHelp.\n"),
        "prompts/no_begin.md:1: its front matter does not begin: write a line `---` above it",
    ),
    "no_front_matter": (
        raw("no_front_matter", "You are a baker.\n"),
        "prompts/no_front_matter.md:1: starts with front matter: `---`, `name: ...`, `description: ...`, `---`, and the instructions go below, as in `You answer questions about bread.`",
    ),
    "a_list": (
        raw("a_list", "---\n- name\n---\nHelp.\n"),
        "prompts/a_list.md:2: front matter is not `key: value` lines, as in `title: Bread`",
    ),
    "no_body": (
        prompt("no_body", body="\n"),
        "prompts/no_body.md:5: has no body: the instructions go below the front matter",
    ),
    "template_variable": (
        prompt("template_variable", body="Hello {{ user }}.\n"),
        "prompts/template_variable.md:5: template: 'user' is undefined (a body may use profile, today); declare it under `inputs:`",
    ),
    "temperature_hot": (
        prompt("temperature_hot", "temperature: 3\n"),
        "prompts/temperature_hot.md:4: temperature: must be a number, 0 to 2, as in `temperature: 0.3`",
    ),
    "turns_many": (
        prompt("turns_many", "max_turns: 6.5\n"),
        "prompts/turns_many.md:4: max_turns: must be a number, 1 to 200, without a point, as in `max_turns: 6`",
    ),
    "version_number": (
        prompt("version_number", "version: 2\n"),
        'prompts/version_number.md:4: version: must be text, as in `version: "2026-02"`; put a number or a yes in quotation marks',
    ),
    "input_type": (
        prompt("input_type", "inputs:\n  language: {type: text}\n"),
        "prompts/input_type.md:4: inputs: language: type must be one of string, integer, number, boolean, array, object",
    ),
    "input_default": (
        prompt("input_default", "inputs: {level: {type: integer, default: two}}\n"),
        "prompts/input_default.md:4: inputs: level: default must be a value of its type; leave it out where one must be given, and put a date in quotation marks",
    ),
    "input_taken": (
        prompt("input_taken", "inputs: {profile: {}}\n"),
        "prompts/input_taken.md:4: inputs: 'profile' means something else in a body; choose another name",
    ),
    "input_key": (
        prompt("input_key", "inputs: {city: {defualt: Rome}}\n"),
        "prompts/input_key.md:4: inputs: city: 'defualt' says nothing of an input; did you mean 'default'? There are default, description, enum, examples, type",
    ),
    "output_list": (
        prompt("output_list", "output: {type: array}\n"),
        "prompts/output_list.md:4: output: must describe an object, as in `output: {type: object, properties: {city: {type: string}}, required: [city]}`",
    ),
    "output_wrong": (
        prompt("output_wrong", "output: {type: object, properties: {city: {type: text}}}\n"),
        "prompts/output_wrong.md:4: output: is not a JSON Schema: properties.city.type: \"'text' is not valid under any of the given schemas\"",
    ),
    "output_away": (
        prompt("output_away", "output: schemas/nothing.json\n"),
        "prompts/output_away.md:4: output: there is no file 'schemas/nothing.json' in prompts/; write one, or the schema itself, as in `output: {type: object, properties: {city: {type: string}}, required: [city]}`",
    ),
    "output_broken": (
        prompt("output_broken", "output: schemas/broken.json\n") | {"prompts/schemas/broken.json": '{"type":\n'},
        "prompts/schemas/broken.json:2: is not JSON: Expecting value",
    ),
    "output_no_model": (
        prompt("output_no_model", "output: pydantic:Nothing\n"),
        "prompts/output_no_model.md:4: output: pydantic has no Pydantic model 'Nothing'; name one, as in tools.orders:Order",
    ),
    "output_fetched": (
        prompt("output_fetched", "output: {type: object, properties: {a: {$ref: 'http://a.example/b'}}}\n"),
        "prompts/output_fetched.md:4: output: $ref 'http://a.example/b' leads nowhere; one begins with #, as in #/$defs/city",
    ),
    "part_away": (
        prompt("part_away", body="Hello.\n{% include 'parts/nothing.md' %}\n"),
        "prompts/part_away.md:6: template: 'parts/nothing.md': there is no such file below prompts/; write it, as in parts/tone.md",
    ),
    "part_outside": (
        prompt("part_outside", body="{% include '../secret.md' %}\n"),
        "prompts/part_outside.md:5: template: '../secret.md': name the file by its path below prompts/, as in parts/tone.md",
    ),
    "part_agent": (
        prompt("part_agent", body="{% include 'guide.md' %}\n"),
        "prompts/part_agent.md:5: template: 'guide.md': a file in prompts/ itself is an agent; put what agents share into a folder, as in parts/tone.md",
    ),
    "part_computed": (
        prompt("part_computed", body="{% include today ~ '.md' %}\n"),
        "prompts/part_computed.md:5: template: name one file as it is, as in {% include 'parts/tone.md' %}",
    ),
    "part_extended": (
        prompt("part_extended", body="{% extends 'parts/syntax.md' %}\n"),
        "prompts/part_extended.md:5: template: a body extends nothing; include the file, as in {% include 'parts/tone.md' %}",
    ),
    "part_circle": (
        prompt("part_circle", body="{% include 'parts/b_circle.md' %}\n")
        | {"prompts/parts/b_circle.md": "B.\n\n{% include 'parts/b_circle.md' %}\n"},
        "prompts/parts/b_circle.md:3: template: 'parts/b_circle.md' comes back to itself (parts/b_circle.md > parts/b_circle.md); take one of these out",
    ),
    "part_variable": (
        prompt("part_variable", body="{% include 'parts/bad_variable.md' %}\n")
        | {"prompts/parts/bad_variable.md": "Hello\n{{ user }}.\n"},
        "prompts/parts/bad_variable.md:2: template: 'user' is undefined (a body may use profile, today); declare it under `inputs:`",
    ),
    "part_syntax": (
        prompt("part_syntax", body="{% include 'parts/syntax.md' %}\n") | {"prompts/parts/syntax.md": "\n{{ 1 +\n"},
        "prompts/parts/syntax.md:2: template: unexpected 'end of template'",
    ),
    "part_blind": (
        prompt("part_blind", body="{% import 'parts/blind.md' as m %}{{ m.hello() }}\n")
        | {"prompts/parts/blind.md": "{% macro hello() %}\n{{ today }}{% endmacro %}\n"},
        "prompts/parts/blind.md:2: template: 'today' is undefined: a file that is imported sees no variables; import it `with context`",
    ),
    "candidate_of_nobody": (
        raw("suport.v2", "---\nshare: 10\n---\nHelp.\n"),
        "prompts/suport.v2.md: is a candidate of 'suport', and there is no such agent; there is guide",
    ),
    "candidate_without_share": (
        prompt("shareless") | raw("shareless.v2", "---\nname: shareless\n---\nHelp.\n"),
        "prompts/shareless.v2.md:2: share: is missing; shareless.v2.md is a candidate of shareless: write how many percent of new conversations it takes, as in `share: 10`",
    ),
    "candidate_too_many": (
        prompt("crowded")
        | raw("crowded.v2", "---\nshare: 60\n---\nHelp.\n")
        | raw("crowded.v3", "---\nshare: 40.5\n---\nHelp.\n"),
        "prompts/crowded.v3.md:2: share: the candidates of crowded take 100.5 % together, at most 100 is right (prompts/crowded.v2.md 60, prompts/crowded.v3.md 40.5)",
    ),
    "candidate_misnamed": (
        prompt("misnamed") | raw("misnamed.v2", "---\nshare: 5\nversion: v3\n---\nHelp.\n"),
        "prompts/misnamed.v2.md:3: version: is 'v3', the file is misnamed.v2.md; make them the same, or leave it out",
    ),
    "share_of_an_agent": (
        prompt("shared", "share: 10\n"),
        "prompts/shared.md:4: share: is for a candidate, in a file of its own, as in shared.v2.md; take it out here",
    ),
    "template_end": (
        prompt("template_end", body="{% if profile %}Hello.\n"),
        "prompts/template_end.md:5: template: Unexpected end of template. Jinja was looking for the following tags: 'elif' or 'else' or 'endif'. The innermost block that needs to be closed is 'if'.",
    ),
    "bare_tool": (
        tool("bare_tool", "@tool"),
        'tools/bare_tool.py:4: tool bare_tool: needs scope=... and effect=..., as in @tool(scope="tasks:read", effect="read")',
    ),
    "empty_tool": (
        tool("empty_tool", "@tool()"),
        'tools/empty_tool.py:4: tool empty_tool: needs scope=... and effect=..., as in @tool(scope="tasks:read", effect="read")',
    ),
    "no_effect": (
        tool("no_effect", '@tool(scope="things:read")'),
        'tools/no_effect.py:4: tool no_effect: needs effect=..., as in @tool(scope="tasks:read", effect="read")',
    ),
    "option_misspelt": (
        tool("option_misspelt", '@tool(scop="things:read", effect="read")'),
        "tools/option_misspelt.py:4: tool option_misspelt: there is no option scop; did you mean scope?",
    ),
    "positional": (
        tool("positional", '@tool("things:read", "read")'),
        'tools/positional.py:4: tool positional: its options have names, as in @tool(scope="tasks:read", effect="read")',
    ),
    "wrong_option": (
        tool("wrong_option", '@tool(scope="things:read", effect="read", phrases="count")'),
        'tools/wrong_option.py:4: tool wrong_option: phrases must be a list of texts, as in phrases=["add {title}"]',
    ),
    "wrong_scope": (
        tool("wrong_scope", '@tool(scope="things", effect="read")'),
        "tools/wrong_scope.py:4: tool wrong_scope: scope 'things' is not resource:verb, as in tasks:write",
    ),
    "wrong_effect": (
        tool("wrong_effect", '@tool(scope="things:read", effect="reads")'),
        "tools/wrong_effect.py:4: tool wrong_effect: effect 'reads' is not one of read, stored, keyed, once; one that changes nothing is read",
    ),
    "not_async": (
        tool("not_async", head="def not_async(context: ToolContext) -> int:"),
        "tools/not_async.py:4: tool not_async: must be `async def`, as in `async def not_async(context: ToolContext, ...)`",
    ),
    "no_type": (
        tool("no_type", head="async def no_type(context: ToolContext, size) -> int:"),
        "tools/no_type.py:4: tool no_type: size has no type; write one, as in `size: str`",
    ),
    "no_return": (
        tool("no_return", head="async def no_return(context: ToolContext):"),
        "tools/no_return.py:4: tool no_return: needs a return type, as in `-> str`: it becomes the output schema",
    ),
    "no_context": (
        tool("no_context", head="async def no_context(size: int) -> int:"),
        "tools/no_context.py:4: tool no_context: its first parameter must be `context: ToolContext`, as in `async def no_context(context: ToolContext, ...)`",
    ),
    "no_docstring": (
        tool("no_docstring", doc=""),
        'tools/no_docstring.py:4: tool no_docstring: needs a docstring, as in """No docstring.""": models choose a tool by it',
    ),
    "stars": (
        tool("stars", head="async def stars(context: ToolContext, **sizes: int) -> int:"),
        "tools/stars.py:4: tool stars: *args, **kwargs and positional-only parameters have no schema; name each argument",
    ),
    "unknown_type": (
        tool("unknown_type", head='async def unknown_type(context: ToolContext, size: "Sise") -> int:'),
        "tools/unknown_type.py:4: tool unknown_type: its types have no JSON schema: name 'Sise' is not defined",
    ),
    "no_function": (
        {
            "tools/no_function.py": 'from agent_server import tool\n\n\n@tool(scope="things:read", effect="read")\nclass Counter:\n    """Count."""\n'
        },
        "tools/no_function.py:4: tool Counter: is no function; @tool stands above an `async def`",
    ),
    "wrong_phrase": (
        tool("wrong_phrase", '@tool(scope="things:read", effect="read", phrases=["count {size}"])'),
        "tools/wrong_phrase.py:4: tool wrong_phrase: phrase 'count {size}': wrong_phrase has no argument 'size'; it has none",
    ),
    "syntax": ({"tools/syntax.py": "def count(:\n"}, "tools/syntax.py:1: does not import: SyntaxError: invalid syntax"),
    "import": (
        {"tools/missing.py": "import no_such_module\n"},
        "tools/missing.py:1: does not import: ModuleNotFoundError: No module named 'no_such_module'; correct the name, or install the package that has it",
    ),
    "exits": (
        {"tools/exits.py": "import sys\n\nsys.exit(3)\n"},
        "tools/exits.py:3: does not import: SystemExit: 3; a module of tools/ must not end the program",
    ),
    "page_unclosed": (
        page("page_unclosed", "---\ntitle: [a\ntags: [b]\n---\n# A\n\nText.\n"),
        "content/guide/page_unclosed.md:2: front matter is not YAML: the list of `title:` begins here and is not closed; end it with ], as in title: [one, two]",
    ),
    "page_no_end": (
        page("page_no_end", "---\ntitle: A\n\nText.\n"),
        "content/guide/page_no_end.md:1: its front matter does not end: write a line `---` below it",
    ),
    "page_urgent": (
        page("page_urgent", "---\ntitle: A\nurgent: yes\n---\nText.\n"),
        "content/guide/page_urgent.md:3: urgent: must be a list of phrases, as in [unconscious, numb after a dive]",
    ),
    "page_twice": (
        page("page_twice", "---\ntitle: A\nurgent: [fire]\nurgent: [flood]\n---\nText.\n"),
        "content/guide/page_twice.md:4: urgent: is on line 3 too; keep one",
    ),
    "page_empty": (
        page("page_empty", "---\nurgent: [fire]\n---\n"),
        "content/guide/page_empty.md:4: has no text below its front matter",
    ),
    "page_colon": (
        page("page_colon", "---\ntitle: Diving: how to begin\n---\nText.\n"),
        'content/guide/page_colon.md:2: front matter is not YAML: there is a colon in the value; put it in quotation marks, as in title: "Diving: how to begin"',
    ),
}
