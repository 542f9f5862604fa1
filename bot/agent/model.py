"""The language model behind the agent: OpenAI's, or any server that speaks its protocol.

It exists so that time-outs, retries and the choice of API are decided in one place. Imports are lazy: a bot without a
key never loads the client. Next step: `bot.agent.assistant` takes it, with the planner as its fallback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from pydantic import SecretStr

RETRIES: Final = 2  # of 429, 5xx and broken connections, with the server's Retry-After; then the planner answers


def chat_model(api_key: SecretStr, base_url: str | None, model: str, timeout_s: float) -> BaseChatModel:
    """A streaming chat model. `timeout_s` is for connecting and for each wait for the next bytes."""
    from bot.agent.strict import StrictChatOpenAI

    # Compatible servers have /v1/chat/completions and rarely /v1/responses; for OpenAI's own the library chooses.
    responses = False if base_url else None
    return StrictChatOpenAI(
        api_key=api_key,
        base_url=base_url,
        model=model,
        timeout=timeout_s,
        max_retries=RETRIES,
        streaming=True,
        use_responses_api=responses,
    )
