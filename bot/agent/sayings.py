"""What the built-in planner says where no tool answers. Kept together so that tone and promises are read in one place.

Next step: `bot.agent.grammar` chooses among them.
"""

from __future__ import annotations

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


def unread(number: str) -> str:
    return (
        f"I did not read the number “{number}”, so nothing was proposed; please write it plainly, such as “epochs 3”."
    )


def relative(words: str) -> str:
    return (
        f"I did not read by how much: “{words}”. Nothing was proposed; please say the value itself, such as “epochs 3”."
    )


def no_recipe(name: str) -> str:
    return f"“{name}” is not a recipe, and nothing was proposed. {which_recipe()}"


def which_recipe() -> str:
    return f"{WHICH_RECIPE}\n{catalogue()}"
