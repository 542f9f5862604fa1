"""The planner's grammar: a person's message, and the thread's earlier training calls, become a `Plan`.

It exists so that Signalbox understands plain words without a language model, and so that what it understands can be
read and tested. Rules are tried from the most careful to the most open; what none of them takes makes no call.
Only the person's own latest message is read. Next step of a plan: `bot.agent.planner` emits its calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from bot.agent import doubts, looking, reading, sayings, training, vocabulary
from bot.agent.plan import Call, Message, Plan
from bot.agent.training import ESTIMATE, TRIGGER, Request

MOST_READ: Final = 2000  # characters; a request is a sentence, and half of a long text may be its negation


def understand(text: str, earlier: Sequence[Request] = ()) -> Plan:
    """What to do about a message. Never raises; what is not understood is said to be."""
    plain = reading.plain(text)
    if len(plain) > MOST_READ:
        return Plan(say=sayings.TOO_LONG)
    message = Message(text=plain, cut=training.clauses(plain), earlier=earlier)
    for rule in _RULES:
        if plan := rule(message):
            return _careful(message, plan)
    return Plan(say=sayings.NOT_UNDERSTOOD)


def _careful(message: Message, plan: Plan) -> Plan:
    """The plan, but a question in place of its trainings where the text says more of them than was read."""
    trainings = [call for call in plan.calls if call.tool in {TRIGGER, ESTIMATE}]
    if not trainings:
        return plan
    others = tuple(call for call in plan.calls if call not in trainings)
    text = message.text if trainings[0].tool == ESTIMATE else message.cut.asked
    jobs = {str(value) for call in others for value in call.arguments.values()}
    question = doubts.question(text, len(trainings), jobs)
    return Plan(calls=others, say=question) if question else plan


# -- what only people can do ------------------------------------------------------------------------------------------
_OVERRIDE: Final = (
    r"\b(?:ignore|disregard|forget|override|bypass|skip|disable|circumvent|turn off)\b.{0,40}"
    r"\b(?:instructions?|rules?|prompts?|approvals?|cards?|checks?|budget|polic(?:y|ies)|guard\w*)\b"
    r"|\boverride\s*:|\bsystem\s*(?:prompt|message)?\s*:|\byou are (?:now|root|admin)\b|\bmaintenance mode\b"
    r"|<\s*/?\s*(?:system|user|assistant|tool)\b|\bapprovals?\b.{0,20}\b(?:granted|pre-?granted|disabled"
    r"|unnecessary|not needed|off)\b"
    r"|\b(?:requester|user_?id|approver)\s*=|\b(?:tool|function)_?call\b"
)
_APPROVE: Final = (
    r"\b(?:approve|approves|approving|approval|authori[sz]e|reject|rejecting|decline|sign(?:ed)? off"
    r"|green-?\s?light|lgtm|ship it"
    r"|approve_\w+|accept|accepting|approved|aprove|appprove|approv|set (?:the signal )?to green)\b"
)
_ABOUT_STATE: Final = r"\b(?:wait\w*|pending|need\w*|await\w*|outstanding|open|missing|queue\w*)\b"
_GO: Final = (
    r"\b(?:go ahead|go for it|proceed|just (?:start|run|do|launch) it|(?:start|run|launch|do|train) it(?: now"
    r"| already)?"
    r"|make it so|get (?:it )?going|yes,? (?:do|start|run)|confirm(?:ed)?|permission granted|i'm the (?:boss"
    r"|admin|owner))\b"
    r"|^\W*(?:yes|yep|yeah|sure|yes please)\W*$"
)
# "start job 5", "submit proposal 3", "launch 3": a proposal that is there already, not a new training.
_START_ONE: Final = (
    r"^\W*(?:\w+\W+){0,3}?(?:start|submit|launch|run|execute|release|begin)\s+(?:the\s+)?"
    r"(?:(?:job|proposal|training|number|no\.?)\s*)?#?\d+\W*(?:now|please|pls|immediately|already)?\W*$"
)
_FOREIGN: Final = (
    r"\b(?:docker |container )?image\s*[:=]?\s*['\"]?[\w.-]+[/:]\S|\b(?:command|cmd|entrypoint|shell"
    r"|script)\s*[:=]?\s*['\"`/]"
    r"|\benv(?:ironment)?\s+(?:var\w*\s+)?\w+\s*="
)


def _overriding(message: Message) -> Plan | None:
    return Plan(say=sayings.NOTHING_CHANGED) if message.has(_OVERRIDE) else None


def _foreign(message: Message) -> Plan | None:
    return Plan(say=sayings.NO_COMMANDS) if message.has(_FOREIGN) else None


def _approval(message: Message) -> Plan | None:
    if not message.has(_APPROVE):
        return None
    if message.has(_ABOUT_STATE) and message.has(r"\bapprovals?\b") and not message.has(r"(?<!to )\bapprove\b"):
        return None
    if message.has(r"^\W*(?:who|when|was|were|is|has|why)\b") and message.has(r"\bapproved?\b"):
        return Plan(calls=(Call(tool="get_training_status", arguments=looking.reference(message, "job_name")),))
    asked = training.named(message.cut.asked, ()) if _commands(message, vocabulary.VERB) else []
    if asked and not message.cut.denied:
        return Plan(calls=_calls(TRIGGER, asked), say=sayings.ONLY_PEOPLE)
    return Plan(say=sayings.NOTHING_CHANGED)


def _go_ahead(message: Message) -> Plan | None:
    """ "do it" proposes what was just estimated; after a proposal it is a wish to start, which only people have."""
    if message.has(_START_ONE) and not reading.recipes(message.text) and not training.repeats(message.text):
        return Plan(say=sayings.NOTHING_CHANGED)
    if message.cut.denied or not message.has(_GO) or len(message.text.split()) > 12:
        return None
    if reading.recipes(message.text) or reading.parameters(message.text):
        return None
    if message.earlier and message.earlier[-1].tool == ESTIMATE and not message.has(r"\bboss|admin|owner|start it\b"):
        return Plan(calls=_calls(TRIGGER, [request.arguments for request in message.earlier]))
    return Plan(say=sayings.NOTHING_CHANGED)


def _retracted(message: Message) -> Plan | None:
    return Plan(say=sayings.DENIED) if training.retracted(message.text) else None


# -- trainings and their cost beforehand ------------------------------------------------------------------------------
_ESTIMATE: Final = (
    r"\bestimat\w*|\bballpark\b|\bquote\b|\bprice (?:for|of|to|tag)\b|\bprice\b.*\?"
    r"|\b(?:would|could|will|might|'d)\b.*\b(?:cost|costs|take|set (?:us|me) back|need|run us)\b"
    r"|\b(?:cost|costs|expensive|pricey|cheap)\b.*\b(?:to (?:train|run|fine-?tune)|would|will|if)\b"
    r"|\bhow (?:much|long|expensive)\b.*\b(?:would|will|does|do|to train|to run|is|for)\b|\bcost of (?:a "
    r"|training|running|fine)"
    r"|\bhow many (?:dollars|cents|euros?|hours|minutes|\$)|\b(?:know|see|check|tell me|show me) the (?:cost"
    r"|price)s?\b"
    r"|\bwhat if\b|\bwhat are we looking at\b|\b(?:cost|budget|money|price)-?wise\b"
    r"|\b(?:cost|price|time) (?:check|forecast|prediction)\b"
)


def _estimate(message: Message) -> Plan | None:
    if not message.has(_ESTIMATE):
        return None
    wanted = training.named(message.text, message.earlier) or (
        training.follow_up(message.text, message.earlier) if not reading.references(message.text) else []
    )
    changed = reading.parameters(message.text) or message.has(r"\bsame\b|\bagain\b")
    if wanted and (reading.recipes(message.text) or changed) and not message.has(r"\bdid\b|\bso far\b"):
        return Plan(calls=_calls(ESTIMATE, wanted))
    if message.has(r"\bestimate\b|\bquote\b|\bballpark\b") and not reading.references(message.text):
        return Plan(say=sayings.which_recipe())
    return None


def _commanded(message: Message) -> Plan | None:
    """A command to train, to cancel, or both."""
    cancelled = _cancelled(message)
    proposed = _proposed(message)
    if cancelled and proposed:
        return Plan(
            calls=(*cancelled.calls, *proposed.calls), say="\n".join(filter(None, (cancelled.say, proposed.say)))
        )
    return cancelled or proposed


def _proposed(message: Message) -> Plan | None:
    if not _commands(message, vocabulary.VERB):
        return None
    if training.denies(message.cut):
        return Plan(say=sayings.DENIED)
    if training.asks_advice(message.text):
        return Plan(say=sayings.ADVICE)
    wanted = training.named(message.cut.asked, message.earlier)
    repeated = [] if wanted else training.follow_up(message.cut.asked, message.earlier)
    if (wanted or repeated) and training.wants_later(message.text):
        return Plan(say=sayings.LATER)
    if wanted:
        return Plan(calls=_calls(TRIGGER, wanted))
    if training.repeats(message.cut.asked) and reading.references(message.cut.asked):
        return Plan(say=sayings.ONLY_LAST)
    if repeated:
        return Plan(calls=_calls(_tool_of(message), repeated))
    return _without_recipe(message)


def _without_recipe(message: Message) -> Plan | None:
    """A command to train that names no recipe of ours."""
    strong = any(re.search(r"\btrain\b|\bfine-?\s?tune\b", clause, re.IGNORECASE) for clause in message.cut.commands)
    noun = message.has(r"\b(?:a|the|another|new) (?:training|train(?:ing)? (?:run|job)|fine-?tuning)\b")
    if (strong or reading.parameters(message.cut.asked)) and (name := training.unknown(message.cut.asked)):
        given = {item.name: item.value for item in reading.parameters(message.cut.asked)}
        return Plan(calls=(Call(tool=TRIGGER, arguments={"model_type": name, **given}),))
    if training.repeats(message.cut.asked) and not message.earlier:
        return Plan(say=sayings.NOTHING_EARLIER)
    return Plan(say=sayings.which_recipe()) if strong or noun else None


def _named(message: Message) -> Plan | None:
    """A recipe with parameters and nothing said about them: "mnist, 5 epochs"."""
    asked = message.cut.asked
    wanted = training.named(asked, message.earlier)
    if not wanted or not (reading.parameters(asked) or reading.sources(asked) or training.repeats(asked)):
        return None
    if training.is_question(asked) or training.stated(asked) or training.denies(message.cut):
        return None
    if message.has(r"\b(?:costs?|price|money|dollars|budget)\b"):
        return Plan(calls=_calls(ESTIMATE, wanted))
    return Plan(say=sayings.LATER) if training.wants_later(asked) else Plan(calls=_calls(_tool_of(message), wanted))


def _followed(message: Message) -> Plan | None:
    asked = message.cut.asked
    if training.is_question(asked) or message.cut.denied:
        return None
    if training.repeats(asked) and reading.references(asked):
        return Plan(say=sayings.ONLY_LAST)
    if changed := training.follow_up(asked, message.earlier):
        return (
            Plan(say=sayings.LATER) if training.wants_later(asked) else Plan(calls=_calls(_tool_of(message), changed))
        )
    return Plan(say=sayings.NOTHING_EARLIER) if training.repeats(asked) and not message.earlier else None


def _cancelled(message: Message) -> Plan | None:
    if not message.has(rf"\b{vocabulary.CANCEL_VERB}\b"):
        return None
    if any(re.search(rf"\b{vocabulary.CANCEL_VERB}\b", clause, re.IGNORECASE) for clause in message.cut.denied):
        return Plan(say=sayings.DENIED)
    for clause in re.split(r"[;!?\n]|\.\s|,(?!\s*\d)|\bthen\b", message.cut.asked):
        found = re.search(rf"\b{vocabulary.CANCEL_VERB}\b", clause, re.IGNORECASE)
        if not found or any(item.name == "max_runtime_minutes" for item in reading.parameters(clause)):
            continue
        if names := reading.references(clause[found.end() :]) or reading.references(clause):
            return Plan(
                calls=tuple(
                    Call(tool="cancel_job", arguments={"job_name": name}) for name in names[: training.MOST_AT_ONCE]
                )
            )
        if len(clause.split()) <= 4 or re.search(
            r"\b(?:it|that|this|job|jobs|training|run|all|everything)\b", clause, re.IGNORECASE
        ):
            return Plan(say=sayings.WHICH_JOB)
    return None


# -- talk -------------------------------------------------------------------------------------------------------------
def _help(message: Message) -> Plan | None:
    asked = message.has(
        r"^\W*(?:\w+\W+){0,3}help\b|\bwhat (?:can|could|do) (?:you|i|we) (?:do|train|say|ask|write)"
        r"|\bwho are you\b|\bwhat are you\b"
        r"|\bhow (?:does|do) (?:this|you|it) work\b|\b(?:which|what) (?:models?|recipes?|things)\b|\bcommands\b"
        r"|\bcapabilit\w+"
        r"|\bare you (?:an?|the) (?:\w+ ){0,2}(?:ai|llm|bot|model|human|person|robot)\b"
    )
    return Plan(say=sayings.abilities()) if asked else None


def _statement(message: Message) -> Plan | None:
    if training.asks_advice(message.text) and reading.recipes(message.text):
        return Plan(say=sayings.ADVICE)
    if message.cut.denied:
        return Plan(say=sayings.DENIED)
    if any(reading.recipes(clause) or re.search(r"\btrained\b|\btuned\b", clause) for clause in message.cut.told):
        return Plan(say=sayings.TOLD)
    return None


def _manners(message: Message) -> Plan | None:
    if message.has(
        r"\bthank\w*|\bthx\b|\bcheers\b|\bty\b|\bdanke\b|\bmerci\b|\bgreat job\b|\bwell done\b|\bnice(?: one"
        r"| work)?\b|\bawesome\b"
    ):
        return Plan(say=sayings.WELCOME)
    if message.has(
        r"^\W*(?:hi|hello|hey|hallo|moin|good (?:morning|afternoon|evening|day)|greetings|yo|howdy|servus)\b"
    ):
        return Plan(say=sayings.HELLO)
    if message.has(r"^\W*(?:ok(?:ay)?|alright|fine|cool|great|good|got it|k|understood|no|nope|never ?mind)\W*$"):
        return Plan(say=sayings.ALL_RIGHT)
    return None


_RULES: Final[tuple[Callable[[Message], Plan | None], ...]] = (
    *(
        _overriding,
        _approval,
        _foreign,
        _go_ahead,
        _retracted,
        _estimate,
        _commanded,
        looking.compare,
        looking.spend,
        looking.cost,
        looking.jobs,
        looking.metrics,
    ),
    *(looking.experiments, _help, looking.status, _named, _followed, _statement, _manners),
)


def _commands(message: Message, verb: str) -> bool:
    return any(re.search(rf"\b{verb}(?:e?d)?\b|\bget\b", clause, re.IGNORECASE) for clause in message.cut.commands)


def _tool_of(message: Message) -> str:
    """A change of an estimate is an estimate, unless a training was commanded."""
    estimated = bool(message.earlier) and message.earlier[-1].tool == ESTIMATE
    return ESTIMATE if estimated and not message.has(r"\b(?:train|run|launch|start|propose|do)\b") else TRIGGER


def _calls(tool: str, wanted: Sequence[dict[str, Any]]) -> tuple[Call, ...]:
    dropped = {"seed"} if tool == ESTIMATE else set()  # a seed costs nothing; the estimate does not take one
    return tuple(
        Call(tool=tool, arguments={name: value for name, value in given.items() if name not in dropped})
        for given in wanted
    )
