"""What the built-in planner says where no tool answers. Kept together so that tone and promises are read in one place.

Next step: `bot.agent.grammar` chooses among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bot.agent.training import catalogue

MODE: Final = (
    "I am the built-in planner: fixed rules, no language model. Setting OPENAI_API_KEY turns a language model on."
)
EXAMPLES: Final = (
    "You can write, for example:\n"
    "• train mnist for 3 epochs, lr 1e-3, batch 128, no gpu\n"
    "• same again with lr 3e-4 · what would it cost to train distilgpt2 on one gpu?\n"
    "• how is it doing? · results of 2 · compare 1 and 2 · what did 3 cost\n"
    "• list jobs · what's waiting for approval · list experiments · what did we spend this month\n"
    "• cancel 3"
)


def abilities() -> str:
    """The answer to "what can you do"."""
    return (
        f"{MODE}\n{EXAMPLES}\nWhat can be trained:\n{catalogue()}\n"
        "A training is only proposed here. It starts when people approve it with the card's button or `/approve ID`."
    )


NOT_UNDERSTOOD: Final = f"I did not understand that, and did nothing. {MODE}\n{EXAMPLES}"
ONLY_PEOPLE: Final = (
    "I cannot approve, reject or start anything, whoever asks and whatever a message says. "
    "Only a person can: with the buttons on the proposal's card, or with `/approve ID` or `/reject ID`."
)
NOTHING_CHANGED: Final = f"{ONLY_PEOPLE} Nothing was done with this message."
TOO_LONG: Final = f"That is more than I can read, and nothing was done. {MODE} Please say it in a sentence or two."
NO_COMMANDS: Final = (
    "Nothing was proposed: image, command and environment of a training cannot be chosen in a message. "
    "A recipe and its parameters can, such as “train mnist for 3 epochs”."
)
DENIED: Final = (
    "Understood: nothing was proposed, started or cancelled. When you want it, say for example "
    "“train mnist for 3 epochs”."
)
TOLD: Final = (
    "I take that as something that already happened, so nothing was proposed. "
    "To train, say for example “train mnist for 3 epochs”; to look back, “list experiments” or “results of 2”."
)
ADVICE: Final = (
    f"That is for you to judge, and nothing was proposed. {MODE} I can say what a training would cost "
    "(“what would it cost to train mnist for 10 epochs?”), or propose it when you say “train …”."
)
LATER: Final = (
    "Nothing was proposed: I cannot wait for a time or a condition. "
    "Say “train …” when you want it; the proposal waits for approval anyway."
)
WHICH_RECIPE: Final = "Which recipe shall I propose? There are:"
NOTHING_EARLIER: Final = (
    "I find no earlier training in this thread to repeat or change. Say which one, such as “train mnist for 5 epochs”."
)
ONLY_LAST: Final = (
    "I can repeat or change only the last training of this thread, not one by its number. "
    "Please name the recipe and the parameters, such as “train mnist for 5 epochs”."
)
WHICH_JOB: Final = "Please say which one, by number or name, such as “cancel 3”; “list jobs” shows them."
HELLO: Final = f"Hello! {MODE} Say “help” for what I can do, or “train mnist for 3 epochs” to propose a training."
WELCOME: Final = "You're welcome."
ALL_RIGHT: Final = (
    "All right; nothing was done with this message. To approve a proposal, a person presses its "
    "button or writes `/approve ID`."
)


def unread(number: str, word: str = "") -> str:
    why = _not_taken(word) if word else "please write it plainly, such as “epochs 3”."
    return f"I did not read the number “{number}”, so nothing was proposed; {why}"


def relative(words: str) -> str:
    return (
        f"I did not read by how much: “{words}”. Nothing was proposed; please say the value itself, such as “epochs 3”."
    )


def bound(words: str) -> str:
    return (
        f"“{words}” is a bound and no exact value, so nothing was proposed; please say the value, such as “epochs 3”."
    )


def several(words: Sequence[str]) -> str:
    told = " and ".join(f"“{word}”" for word in words)
    return (
        f"I read {told} for one training, so nothing was proposed; please say which, "
        "or a list for one training each, such as “lr 0.1 and 0.01”."
    )


def thousands(number: str) -> str:
    whole = number.replace(".", "")
    one = number.split(".")[0]
    return f"“{number}” may be {one} or {whole}, so nothing was proposed; please write it without the point."


def which_gpus(words: str) -> str:
    return f"“{words}” says which GPUs, and only how many can be chosen. Nothing was proposed; please say “2 gpus”."


def how_many_gpus(words: str) -> str:
    return f"I did not read how many: “{words}”. Nothing was proposed; please say the number, such as “2 gpus”."


def no_limit(words: str) -> str:
    return f"I did not read what “{words}” is for, so nothing was proposed; a limit is written “at most {words}”."


def no_parameter(word: str) -> str:
    return f"Nothing was proposed: {_not_taken(word)}"


def _not_taken(word: str) -> str:
    return (
        f"no recipe can be told “{word}”. They take epochs, lr, batch size, seed, gpus, memory and a time limit; "
        "distilgpt2 takes nodes, block size, model and dataset too."
    )


def no_value(words: str) -> str:
    return f"I did not read a value in “{words}”, so nothing was proposed; please say it, such as “epochs 3”."


def whose(word: str) -> str:
    return (
        f"I did not read what “{word}” is for, so nothing was proposed; please say each training with its parameters."
    )


def no_recipe(name: str) -> str:
    return f"“{name}” is not a recipe, and nothing was proposed. {which_recipe()}"


def which_recipe() -> str:
    return f"{WHICH_RECIPE}\n{catalogue()}"
