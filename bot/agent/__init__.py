"""The agent's room: turns plain words into calls of the toolkit, with a language model or the built-in planner.

Importing the package alone is cheap; `bot.agent.assistant` brings LangChain with it. Next step: `assistant.Assistant`.
"""

import os

# Read once by langgraph, when it is first imported. Checkpoints come back from a database: only known types may be
# built from them. (`checkpoints.py` sets it on the savers as well, for whoever imported langgraph before.)
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
# People's words go to no tracing service unless an operator says so.
os.environ.setdefault("LANGSMITH_TRACING", "false")
