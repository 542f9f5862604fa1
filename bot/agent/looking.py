"""The planner's rules for looking: comparison, spend, cost, lists, metrics, experiments, status. None changes anything.

They exist apart from the rules that propose or cancel, because a wrong look costs a glance, a wrong proposal people's
time. Each takes a message and gives a plan, or None when it is about something else. Next step: `bot.agent.grammar`.
"""

from __future__ import annotations

from typing import Any, Final

from bot.agent import reading, training
from bot.agent.plan import Call, Message, Plan

_BEST: Final = (
    r"\b(?:yesterday'?s|last week'?s|the|our|previous) best\b|\bbest (?:one|run|so far|of yesterday|from yesterday)\b"
)


def compare(message: Message) -> Plan | None:
    references = reading.references(message.text)
    cue = message.has(
        r"\bcompar\w*|\bvs\.?\b|\bversus\b|\bside by side\b|\bdifferences? between\b|\bstacks? up\b|\bagainst\b"
        r"|\b(?:better|worse|faster|cheaper) than\b"
        r"|\bwhich (?:\w+ )?(?:is|was|did|does|of|one)\b.*\b(?:better|best|faster|cheaper)\b"
    )
    if not cue or not (references or message.has(r"\bcompar\w*|\bside by side\b")):
        return None
    if not references and message.has(_BEST):
        best = "yesterday's best" if message.has(r"\byesterday") else "best"
        return Plan(calls=(Call(tool="compare_runs", arguments={"runs": ["latest", best]}),))
    if len(references) == 1:
        references = ["latest", *references] if not message.has(_BEST) else [*references, "best"]
    return Plan(calls=(Call(tool="compare_runs", arguments={"runs": references} if references else {}),))


def spend(message: Message) -> Plan | None:
    money = message.has(
        r"\bspen[dt]\b|\bspending\b|\bbudget\b|\bexpenses?\b|\bburn\w*\b.*\b(?:money|dollars?|budget|month|week)\b"
    )
    money = money or message.has(
        r"\b(?:money|dollars?|bill|invoice|budget)\b.*\b(?:burn\w*|used?|left|gone|month|week|today|yesterday)\b"
    )
    span = reading.period(message.text)
    if not _wonders(message):
        return None
    if not money and not (span not in (None, "all") and message.has(r"\bcosts?\b|\bcosted\b|\bpa(?:y|id)\b")):
        return None
    if references := reading.references(message.text):
        return Plan(calls=(Call(tool="calculate_training_cost", arguments={"job_name": references[0]}),))
    return Plan(calls=(Call(tool="get_spend", arguments={"period": span or "month"}),))


def cost(message: Message) -> Plan | None:
    if not _wonders(message) or not message.has(
        r"\bcosts?\b|\bcosted\b|\bexpensive\b|\bprice\b|\bbill\b|\bcharged?\b|\bhow much\b.*\b(?:money|pay"
        r"|paid)\b|\bhow much (?:was|is) (?:it|that|\d)"
    ):
        return None
    return Plan(calls=(Call(tool="calculate_training_cost", arguments=reference(message, "job_name")),))


def jobs(message: Message) -> Plan | None:
    listing = message.has(
        r"\b(?:list|show|which|what|what's|whats|who|any|anything|all|give me|see|display|how many|are there)\b"
    )
    nouns = message.has(r"\b(?:jobs|queue|queued|trainings|proposals|approvals?)\b")
    waiting = message.has(
        r"\bpending\b|\b(?:wait\w*|need\w*|await\w*|outstanding|open)\b.*\bapprov\w*|\bapprovals?\b.*\b(?:wait"
        r"|open|pending)"
    )
    if not (
        nouns
        or waiting
        or message.has(
            r"\b(?:what|what's|whats|anything|something|nothing) (?:is |still )?(?:running|queued|waiting|pending)\b"
        )
    ) or reading.references(message.text):
        return None
    if not (
        listing
        or message.has(r"^\W*(?:please\s+)?(?:my |the |our )?(?:jobs|queue|proposals|trainings|pending)\b")
        or waiting
    ):
        return None
    phases = (
        (r"\bapprov\w*|\bpending\b|\bproposals\b.*\bopen\b|\bopen proposals\b", "pending"),
        (r"\bqueued?\b", "queued"),
        (r"\brunning\b|\bin progress\b|\bactive\b", "running"),
        (r"\bfail\w*\b|\bcrash\w*\b", "failed"),
        (r"\bsucceeded\b|\bfinished\b|\bdone\b|\bcompleted\b", "succeeded"),
        (r"\bcancell?ed\b", "cancelled"),
    )
    phase = next((name for pattern, name in phases if message.has(pattern)), None)
    return Plan(calls=(Call(tool="list_jobs", arguments={"phase": phase} if phase else {}),))


def metrics(message: Message) -> Plan | None:
    if not message.has(
        r"\baccurac\w*|\bacc\b|\bloss(?:es)?\b|\bperplexity\b|\bppl\b|\bmetrics?\b|\bresults?\b|\bscores?\b"
        r"|\bcurves?\b|\bplots?\b"
        r"|\bhow (?:good|well)\b|\boutcome\b"
    ) or not (
        training.is_question(message.text) or message.has(r"\b(?:of|for|from)\b|\?") or len(message.text.split()) <= 3
    ):
        return None
    return Plan(calls=(Call(tool="get_experiment_metrics", arguments=reference(message, "run_id")),))


def experiments(message: Message) -> Plan | None:
    runs = message.has(r"\bruns\b") and training.is_question(message.text)
    if not (message.has(r"\bexperiments?\b|\bmlflow\b") or runs) or message.cut.denied:
        return None
    found = reading.recipes(message.text)
    return Plan(
        calls=(Call(tool="list_mlflow_experiments", arguments={"experiment_name": found[0].value} if found else {}),)
    )


def status(message: Message) -> Plan | None:
    if not message.has(
        r"\bstatus\b|\bstate of\b|\boutput of\b|\blogs?\b|\bprogress\b|\beta\b|\bupdates?\b"
        r"|\b(?:any )?news (?:on|of|about|from)\b|\bhow far\b"
        r"|\bhow(?:'s|s| is| are| was| does| did)\b.*\b(?:it|that|going|doing|run|job|training|look\w*|\d+)\b"
        r"|\b(?:is|are|has|did|was|when|why|how long)\b.*\b(?:done|finish\w*|running|ready|fail\w*|crash\w*"
        r"|started|complete\w*|stuck|over"
        r"|cancell?ed|succeed\w*)\b|\bstill (?:running|going|training)\b|\bdone yet\b"
        r"|\bwhat(?:'?s| is) (?:going on|happening|up) with\b|\bwhat happened (?:to|with)\b"
    ):
        return None
    about = message.has(
        r"\b(?:it|that|this|job|run|training|proposal|we|number|status|logs?|progress|eta|updates?|mine)\b"
    )
    asked = reference(message, "job_name")
    if not _wonders(message) or not (about or asked or reading.recipes(message.text)):
        return None
    return Plan(calls=(Call(tool="get_training_status", arguments=asked),))


def _wonders(message: Message) -> bool:
    """Whether a message wants to know something. "it is too expensive" does not."""
    brief = len(message.text.split()) <= 5 or bool(reading.references(message.text))
    asked = training.is_question(message.text) or message.has(
        r"\?|\b(?:show|tell|give) (?:me|us)\b|\bi(?:'d| would)? (?:want|like) to know\b"
    )
    return (brief and not message.cut.told) or asked


def reference(message: Message, argument: str) -> dict[str, Any]:
    found = reading.references(message.text)
    return {argument: found[0]} if found else {}
