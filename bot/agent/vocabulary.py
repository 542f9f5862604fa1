"""The words of training requests: verbs, lead-ins, denials, tellings, follow-ups. Patterns only, all case-blind.

It exists so that a missing word is one entry here, with an utterance in `tests/data/utterances.yaml` beside it.
Next step: `bot.agent.training` reads a message with them.
"""

from __future__ import annotations

import re
from typing import Final

VERB: Final = (
    r"(?:(?:re-?)?train|fine-?\s?tune|(?:re-?)?run|(?:re-?)?launch|(?:re-?)?start|kick(?:\s+\w+)?\s+off|fire up"
    r"|spin up|try"
    r"|begin|schedule|(?:en)?queue|submit|propose|execute|do|redo|repeat|make|give|teach|have a go at)"
)
STRONG: Final = re.compile(r"\b(?:re-?)?train\b|\bfine-?\s?tune\b", re.IGNORECASE)
CANCEL_VERB: Final = (
    r"(?:cancel|kill|abort|terminate|stop|halt|withdraw|pull the plug|shut (?:it )?down|take back|scrap|ditch"
    r"|drop|get rid of"
    r"|remove|delete|(?:can|could|should|must|has to|needs to) be (?:stopped|cancell?ed|killed|aborted"
    r"|withdrawn|terminated))"
)
# Words that may stand before the verb of a request and change nothing. Each only once: two ways to read the same word
# would double the work of a pattern that repeats them, for every word.
LEAD: Final = (
    r"(?:(?:please|pls|plz|kindly|hey|hi|hello|yo|dear|ok(?:ay)?|alright|so|now|then|and|also|but|plus|just"
    r"|maybe|quick(?:ly)?"
    r"|well|hm+|um+|yes|yeah|yep|great|cool|thanks|thank|thx|first|next|right|team|bot|signalbox|can|could"
    r"|would|will|you|u|we"
    r"|i|it|shall|i'd|i'll|we'd|want|wanna|need|like|love|to|that|me|let|lets|let's|us|go|be|kind|as|gonna|help"
    r"|time|for me|why"
    r"|don't|dont|not|simply|again|good|morning|afternoon|evening|everyone|all|folks|it's|possible|is it"
    r"|once more)\b\W*)"
)
COMMAND: Final = re.compile(
    rf"^\W*{LEAD}*?(?<!\bnot )(?<!\bdon't )(?<!\bdont )(?:{VERB}\b|get\s+(?:\S+\s+){{1,6}}?(?:going|started"
    rf"|running)\b)",
    re.IGNORECASE,
)
WHY_NOT: Final = re.compile(
    rf"\bwhy (?:don'?t (?:we|you)|not)\s+(?:just\s+)?{VERB}\b"
    rf"|\b(?:can't|won't|couldn't) you\s+(?:just\s+|please\s+)?{VERB}\b",
    re.IGNORECASE,
)
ING: Final = r"(?:train|fine-?\s?tun|runn?|launch|start|tr(?:y|i)|schedul|queu|submit|propos|execut|kick|repeat|us)"
DONE: Final = (
    r"(?:re)?trained|fine-?\s?tuned|ran|launched|started|kicked off|tried|submitted|did|used|gave|took|reached|got"
)
NEGATED: Final = re.compile(
    rf"\b(?:do not|do nothing|don'?t|dont|never|not to|need not|no need to|shouldn'?t|should not|must not"
    rf"|mustn'?t|won'?t|wouldn'?t"
    rf"|can'?t|cannot|avoid|refrain from|rather not|hold off(?: on)?|instead of|nobody should)\s+"
    rf"(?!forget|hesitate)(?:\w+\s+){{0,3}}?(?:{VERB}|{CANCEL_VERB}|{ING}(?:ing|e)?)\b"
    rf"|\bno (?:more |further |new |need for )?(?:\w+\s+)?(?:trainings?|runs?|jobs?|fine-?tun\w+)\b"
    rf"|\b(?:never|nobody)\b(?! ?mind| (?:\w+ )?(?:{DONE}))"
    r"|\b(?:nicht|nein|keine?|pas|не|нет|no (?:entren|lanc|inici|ejecut)\w+)\b|不要",
    re.IGNORECASE,
)
# What takes a request back when it is the end of the message.
RETRACTED: Final = re.compile(
    r"(?:\b(?:cancel|scratch|forget|undo|drop) (?:that|it|this)|\b(?:just )?(?:kidding|joking)|\bnever ?mind"
    r"|(?:^|[.,;!?\n]|\s-)\s*(?:(?:actually|wait|please)\b\W*)*(?:don'?t|do not|no|nope|nah)"
    r"(?: thanks?| thank you| way)?)"
    r"\W*$",
    re.IGNORECASE,
)
POLITE_NOT: Final = re.compile(r"\b(?:don'?t|not|no)\s+(?:use\s+)?(?:the\s+|any\s+|a\s+)?gpus?\b", re.IGNORECASE)
PAST: Final = re.compile(rf"\b(?:{DONE})\b", re.IGNORECASE)
WANTED_DONE: Final = re.compile(
    r"\b(?:need|want|get|have|like|love|see)\b(?!\s+(?:already|just|never|also|been|once|only))(?:\s+\S+){1,6}?\s+"
    r"(?:(?:re)?trained|fine-?\s?tuned|run|started|launched)\b",
    re.IGNORECASE,
)
STATING: Final = re.compile(r"\b(?:is|isn't|was|were|are|had|has|looks?|seems?|does|why)\b", re.IGNORECASE)
ASKING: Final = re.compile(
    rf"^\W*{LEAD}*?(?:what|how|hows|how's|what's|whats|which|why|when|is|are|was|were|did|does|has|have|had|who"
    rf"|where|show|list|tell"
    r"|should|shall|any|do (?:you|we|i|they))\b",
    re.IGNORECASE,
)
WHAT_ABOUT: Final = re.compile(r"^\W*(?:and\s+)?(?:what|how) about\b", re.IGNORECASE)
ADVICE: Final = re.compile(r"\b(?:should|shall) (?:i|we)\b|\bhow (?:do|can|would|to)\b|\bdo you think\b", re.IGNORECASE)
IRREALIS: Final = re.compile(r"\bwhat if\b|\bif (?:we|i)\b", re.IGNORECASE)
LATER: Final = re.compile(
    r"\b(?:if|once|when|after|as soon as|unless)\b(?:\s+\S+){0,5}?\s+(?:is|are|was|has|have|finishe[sd]|done"
    r"|succeeds?|fails?|completes?|ends?)\b"
    r"|\b(?:tomorrow|tonight|every (?:day|night|week|morning|month)|daily|nightly|weekly)\b"
    r"|\bat \d{1,2}(?::\d\d|\s?[ap]\.?m\b|\s?o'clock)",
    re.IGNORECASE,
)
BREAK: Final = re.compile(
    rf"[;!?\n]+|,(?!\d)|\.(?=\s|$)|\s-\s|\b(?:and|then|but)\b(?=\s+(?:{LEAD})*?(?:{VERB}|{CANCEL_VERB})\b)",
    re.IGNORECASE,
)
ON_TOP: Final = re.compile(r"(?:\s+(?!and\b|then\b|also\b|plus\b)[a-z]+){0,2}\s+on\s+(?:the\s+)?", re.IGNORECASE)
BETWEEN: Final = re.compile(r"\b(?:and|then|plus|also|as well as)\b|[;,&\n+]|\.\s", re.IGNORECASE)

# What other trainers can be told, and no recipe of ours.
NO_PARAMETER: Final = re.compile(
    r"\b(?:(?:max[\s_-]*)?steps(?![\s_-]*size)|iter(?:ation)?s|drop-?out|momentum|weight[\s_-]*decay|warm-?\s?up(?:[\s_-]*steps)?|patience"
    r"|early[\s_-]*stopp?\w*|grad(?:ient)?[\s_-]*(?:accum\w*|clip\w*|checkpoint\w*)|optimi[sz]ers?|adam\w?|sgd|rmsprop|lamb"
    r"|(?:lr[\s_-]*)?schedulers?|cosine|(?:b?fp?|tf|int)(?:8|16|32)|amp|(?:mixed|half|full)[\s_-]*precision"
    r"|(?:data[\s_-]*)?augment\w*|q?lora|hidden[\s_-]*(?:size|units)|layers|(?:num[\s_-]*)?workers|deepspeed|fsdp|ddp"
    r"|(?:\d+\s*x\s*)?(?:[abhv]\d{2,3}s?|[tl]4s?|l40s?|gh?200|rtx\s*\w+|tpus?)|per[\s-](?:gpu|device|node)"
    r"|until\s+\w+|as\s+long\s+as|convergence|spot|preemptible"
    r"|(?:few|several|some|many)\s+(?:minutes|hours|days)|for\s+(?:a\s+while|minutes|hours|days))\b",
    re.IGNORECASE,
)

AGAIN: Final = re.compile(
    r"\b(?:same|again|repeat|re-?run|redo|once more|one more time|another (?:one|run|go|round)|one more"
    r"|like (?:before|last time)"
    r"|make (?:it|that|this)|change|bump|raise|lower|increase|decrease|reduce|switch|set|instead|try (?:it|that"
    r"|this)|do (?:it|that|this)"
    r"|run (?:it|that|this)|train (?:it|that|this)|but (?:with|on|for)|now (?:with|on)|whole thing|go for"
    r"|(?:what|how) about)\b",
    re.IGNORECASE,
)
FRESH: Final = re.compile(r"\b(?:from scratch|fresh|default|defaults)\b", re.IGNORECASE)
COMMON_WORDS: Final = (
    "a an the it that this these those one with w for and but or to of on in at by as is be me us we i you u "
    "please pls plz "
    "thanks thank just only now then so ok okay hey hmm hm let's lets let do run train try go again same "
    "settings setting parameters "
    "params config before like last time previous first more once another different other instead use using set "
    "change make bump up "
    "down raise lower increase decrease reduce switch put keep rest everything else all would could can will "
    "want need model training "
    "job proposal value also still maybe both cost costs much what how about over its from into than long take "
    "price yes no not "
    "thing things request repeat round go's 's s smaller bigger larger smaller higher lower better fewer say "
    "whole too short long slow fast if we gave gives given"
)
COMMON: Final = frozenset(COMMON_WORDS.split())
OBJECT: Final = re.compile(
    rf"\b{VERB}\s+(?:(?:me|us|on|a|an|the|some|our|my|new|another|with|small|big|quick|up|of|training|run|job)\s+)*"
    r"(?P<object>[a-z][\w./-]+)",
    re.IGNORECASE,
)
OTHER_WORDS: Final = (
    "model models something anything nothing everything your yourself hard off epochs epoch lr batch gpu gpus "
    "cpu seed "
    "when while after soon today tomorrow there here really harder faster better him her them bot network net "
    "nn ai to"
)
NO_OBJECTS: Final = COMMON | frozenset(OTHER_WORDS.split())
