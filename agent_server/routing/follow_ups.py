"""Messages that only make sense after another one."""

import re

from agent_server.folding import fold
from agent_server.knowledge.words import COMMON, stem, words

# How such a message begins or ends.
_FOLLOWS = re.compile(
    r"(and|but|or|so|also|then|yes|yeah|yep|no|nope|ok|okay|sure|right|thanks|thank you|please do|go on|go ahead|"
    r"what about|how about|what if|what else|anything else|tell me more|more|why|really|the (first|second|third|last|other))\b"
    r"|.*\b(it|that|this|these|those|them|there|one|ones)\W*$"
)
_MOST_WORDS = 8
# "It" in "is it safe to ..." and "that" in "a card that works" stand for nothing that was said before.
_POINTS_BACK = re.compile(
    r".*\b((do|does|did|will|would|can|could|should|has|have|had|was) (it|they|he|she|this|that|these|those)"
    r"|(is|are|was|were) (it|they|this|that|these|those)(?! \w+ to\b| \w+ (if|when|while)\b)"
    r"|(it|they)('s| is| are| was| has| costs?| takes?| works?)|(of|for|with|from|about|before|after|to|on|in) (it|them|that|those)"
    r"|(that|this|these|those|the same|the other|another) (one|ones|place|time|day|way|thing|option)|there)\b"
)
# What is asked of any subject. A message of these words alone asks it of the one that was spoken of.
_OF_ANY_SUBJECT = frozenset(
    stem(word)
    for word in (  # noqa: SIM905
        "cost costs price prices cheap cheaper expensive pay fee long longer far big bigger small old new "
        "high low fast quick quickly soon early late later open close closed hours time times day days week "
        "weeks month start begin end last work works mean means example examples detail details difference "
        "possible allowed necessary required best better worse worst good bad safe risk hard easy difficult "
        "different another next many much few instead exactly again repeat explain understand sure reason "
        "happen happens else alternative alternatives option options first second third free change cancel "
        "compare recommend summary short shorter simple simpler words wait"
    ).split()
)


def follows(message: str) -> bool:
    """Whether a message only makes sense after another.

    Such a message is short, and it begins or ends like one, points back, or names no subject.
    """
    said = words(message)
    if len(said) > _MOST_WORDS:
        return False
    named = [word for word in said if word not in COMMON and stem(word) not in _OF_ANY_SUBJECT]
    if not named:
        return True
    # Of a message with a subject of its own, "is it ..." may say that in other words.
    folded = fold(message).strip()
    return bool(_FOLLOWS.match(folded)) or (len(named) == 1 and bool(_POINTS_BACK.match(folded)))
