"""prompts/*.md -> AgentPrompt: an agent is one Markdown file, front matter and a Jinja2 body.

templates   the sandbox in which bodies are rendered
parts       the files that bodies include
inputs      the variables that a body declares
output      the shape of an answer that is data
front       the keys of the front matter, and what is wrong with them
agent       an agent as its file declares it, and which of its versions takes a conversation
loading     the folder -> agents and mistakes
"""

from agent_server.prompts.agent import AgentPrompt
from agent_server.prompts.front import FrontMatter
from agent_server.prompts.loading import list_agents, load_prompts, read_prompt
from agent_server.prompts.templates import VARIABLES, quote

__all__ = ["VARIABLES", "AgentPrompt", "FrontMatter", "list_agents", "load_prompts", "quote", "read_prompt"]
