"""What people say to an assistant beside their questions: greetings, thanks, insults, and questions about itself.

A message is small talk when all of it is. "Hi, how long before flying?" is a question, of which `find_question` leaves
out the greeting. Spelling is read as it is meant: held keys, chat shorthand, and one wrong letter in a word of four or
more that no English word has.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice, product, takewhile
from typing import Literal

from agent_server.folding import WORD, drop_accents, fold
from agent_server.knowledge.urgent import compile_phrases, differ_by_one

Kind = Literal["about", "robot", "insult", "wellbeing", "greeting", "farewell", "thanks", "agreement"]

ABOUT_THE_ASSISTANT: tuple[Kind, ...] = ("about", "robot", "greeting")
"""The kinds that the agent answers which a conversation begins with, whoever has answered before."""
_MOST_WORDS, _LONGEST_READ = 16, 400
"""Words and characters of the longest message that is looked at."""
_SHORTEST_MISSPELT = 4
_MOST_MISSPELT = 2
_MOST_WAYS = 32
"""Ways in which one message is read."""

# In these patterns a space is one space between two words; apostrophes and accents are gone.
_ADDRESS = "there|again|all|everybody|everyone|everyone there|you|bot|robot|assistant|friend|my friend|mate|dude|folks|guys|team|sir|madam"
_GREETINGS = (
    r"hello|hi|hey|hiya|heya|howdy|yo|greetings|aloha|welcome|hallo|hola|bonjour|ciao|salut|servus|moin|"
    r"(a )?(very )?good (morning|afternoon|evening|day)|morning|nice to meet you|pleased to meet you"
)
_THANKS = (
    r"(ok |okay |great |perfect |cool |nice |awesome |many |a lot of |big |and )*"
    r"(thanks|thank you|thankyou|thank u|cheers|much appreciated|i appreciate it|appreciate it|that is very kind|very kind)"
    r"( (you|so much|very much|a lot|a bunch|a million|a ton|indeed|again|anyway|already|then|"
    r"for (all )?(your |the |this |that )?(help|answer|answers|info|information|support|time|advice|reply|explanation|tip|tips|everything|all|helping( me)?)))*"
    r"|(that|this|it) (was|is) (all|it|very helpful|helpful|really helpful|so helpful|useful|very useful)( for (now|today))?"
    r"|(that|this) (helped|helps|answers my question|answered my question)( me)?( a lot)?"
    r"|you (are|were|have been) (very |so |really )?(helpful|great|awesome|amazing|the best|kind|nice)"
    r"|(very )?(good|great|nice) (bot|job|work|answer)|well done|nothing else|no more questions"
)
_AGREEMENTS = (
    r"ok|okay|okey|k|kk|alright|all right|fine|great|cool|perfect|nice|awesome|excellent|wonderful|amazing|super|good|"
    r"very good|got it|i see|understood|i understand|makes sense|that makes sense|sounds good|good to know|wow|lol|haha|hahaha|(i am )?(so |very )?sorry|my bad|never mind|nevermind|no problem|no worries|forget it"
)
_FAREWELLS = (
    r"bye|bye bye|byebye|goodbye|good bye|good night|farewell|cya|ciao|adios|take care|have a (nice|good|great|lovely) (day|evening|weekend|night|one|time)|"
    r"see you( (later|soon|around|tomorrow|next time))?|(talk|speak) to you (later|soon)|until next time|i am (off|done|leaving)|i have to go|gotta go"
)
_WELLBEING = (
    r"how (are|is) (you|it|things|everything|life)( (doing|going|feeling))?( (today|now|these days|there))?|how do you (do|feel)( today)?|"
    r"(what is|whats) (up|new|going on)|how goes it|how have you been|are you (ok|okay|well|fine|happy|alright)|you (ok|okay|alright)|"
    r"(is )?(anybody|anyone|somebody|someone) (here|there|home|at home)|are you (there|here|awake|online|still there)|test|testing|just testing|this is a test"
)
_ROBOT = (
    r"(are|is) (you|this|there) (just |really |actually |only )?"
    r"(an? |the |any )?(real |live |actual |human |chat )?(robot|bot|chatbot|human|human being|person|machine|computer|program|ai|"
    r"artificial intelligence|language model|llm|assistant|agent|woman|man|real|alive|human person|somebody|someone|chatgpt|gpt|openai|claude|gemini|siri|alexa)"
    r"( (here|there|behind this|or (just |rather )?(an? |the )?(real |live )?(robot|bot|chatbot|human|human being|person|machine|computer|program|ai|what|not)))*"
    r"|(am i|are we) (talking|speaking|chatting|writing|texting) (to|with) (an? |the )?(real |live |actual |human )?(robot|bot|chatbot|human|human being|person|machine|computer|program|ai|someone|somebody)"
    r"( or (to |with |just )*(an? |the )?(real |live )?(robot|bot|chatbot|human|human being|person|machine|computer|program|ai))?"
    r"|(which|what) (language )?(model|ai|llm) (are you|is this|do you use|are you using|is behind this|are you based on|answers( me)?)"
    r"|do you (use|have) (ai|feelings|a soul|emotions|a name|chatgpt)|do you (sleep|eat|dream)|can i (talk|speak) to a (real )?(human|person)( here)?"
    r"|how old are you|where (are you from|do you (live|come from))|are you (married|single|male|female|a boy|a girl)|i (love|like) you( (so much|too|all))?|do you (love|like) me"
)
_NOUNS = "things|topics|subjects|questions|stuff|kind of questions|kinds of questions|sort of questions|sorts of questions|kind of things|kinds of things|sort of things|kind of stuff|sort of stuff|languages"
_ABOUT = (
    r"(and )?(who|what) (the hell |on earth |exactly )?(are|r) (you|this)( (exactly|really|then|anyway|for|called|about|here for|good (at|for)|able to do|capable of))*"
    r"|who (is|am i talking to|am i speaking to|am i chatting with)( (this|there|here|that))?( exactly)?|who (made|built|created|wrote|programmed|runs|owns|trained|developed) (you|this)"
    r"|what is (your (name|job|purpose|role|function)|this( (chat|site|page|bot|thing|assistant|place|about|for|all about))*|it you do|that you do)"
    r"|(do you have|have you got) a name|what (should|can|do) i call you|tell me (more |something |a bit |a little )?about (you|yourself|this (bot|chat|assistant|site))"
    r"|(please )?(introduce|explain|describe) yourself"
    rf"|(and |so |ok |well )*what (else )?(({_NOUNS}) )?(can|do|could|will|would) (you|this|it) (all )?(do|help|know|offer|answer|cover|support|speak|handle|talk about|help with|help me with|do for me|do for us|know about|actually do|tell me)"
    r"( (for me|for us|me|us|with|here|about|exactly|then|today))*"
    rf"|what (else )?(({_NOUNS}) )?(can|could|may|should|do|shall) (i|we|one) (ask|do|say|type|write|talk|try|find|learn)( (you|here|about|with you|to you|with this|in here|first|now|on this (site|page)))*"
    r"|what (are you|is this) (able to do|capable of|made for|useful for|good (for|at))|(do|can) you (speak|understand|talk) (english|german|french|spanish|italian|dutch|portuguese|other languages|my language)|what are your (skills|abilities|features|capabilities|functions|options)"
    r"|(how )?(can|could|would|will) (you|u) (please )?(help|assist)( (me|us))?( (out|please|today|here|then))*|how do you work( exactly)?"
    r"|how (does|do) (this|it|the|you) ?(chat|bot|thing|assistant|page|site)? ?work|how (do|can|should) i (use|work with|talk to|start with|begin with) (this|you|it)( (chat|bot|thing|assistant|page|site))?"
    r"|how (do|can|should|does) (i|we|this|it) (start|begin)|where (do|should|can) i (start|begin)|what now|i (do not|dont) know what to (ask|say|do)"
    r"|(please )?help( me)?( please)?|menu|options|commands|start|info|i (have|had|got) (a|another|some|one|one more) questions?|(can|may|could) i ask (you )?(something|a question|you something|questions)( here)?"
    r"|(i )?need (some )?help|(i )?(need|want|would like) (your )?help|i am new( here)?|first time here"
)
# "It is bad" may be said of a pain, and "it is broken" of a thing: only what is said of the assistant is rude.
_RUDE = (
    "stupid|dumb|useless|worthless|idiotic|moronic|pathetic|rubbish|garbage|trash|crap|crappy|shit|shitty|bullshit|lame|"
    "ridiculous|annoying|retarded|nonsense|no help|not helpful|unhelpful|no use"
)
_RUDE_OF_YOU = (
    f"{_RUDE}|terrible|horrible|awful|bad|boring|ugly|silly|fucking|bloody|damn|stinking|the worst|a joke|insane|crazy|mad|"
    "clueless|incompetent|hopeless|disappointing|broken|wrong about everything"
)
_VERY = "(so |really |very |just |absolutely |totally |completely |fucking |bloody |a |an |the |complete |total )*"
_SWEARWORDS = (
    "idiot|moron|fool|loser|asshole|bastard|bitch|dick|prick|jerk|twat|wanker|dumbass|imbecile|cretin|clown|pig|"
    "piece of (shit|crap|junk|garbage)"
)
_INSULTS = (
    rf"(you|your) (are |were )?{_VERY}(({_RUDE_OF_YOU})( ({_RUDE_OF_YOU}))*( ({_SWEARWORDS}|bot|robot|machine|thing|program|assistant))?|{_SWEARWORDS})( (you|ever|bot|robot))*"
    rf"|(you |oh |what )?((this|that) (is|was) )?{_VERY}(({_RUDE})( ({_RUDE}))*( ({_SWEARWORDS}|bot|robot|machine|thing|program|assistant|answer))?|{_SWEARWORDS})( (you|ever|bot|robot))*"
    rf"|(this|that) (bot|robot|thing|program|assistant|chat|answer) (is|was) {_VERY}(({_RUDE_OF_YOU})( ({_RUDE_OF_YOU}))*)"
    r"|(you |this )(suck|sucks|stink|stinks)( (a lot|so much|big time))?|(just )?(fuck|screw|damn|curse)( (you|off|this|that|yourself|it|u))*"
    r"|(oh )?(shut|fuck) (up|off)( (you )?(bot|idiot))?|get lost|go away|go to hell|drop dead|piss off|i hate (you|this|this bot|this chat)( so much)?"
    r"|wtf|what the (hell|fuck|heck)( (is this|was that))?|are you (stupid|dumb|an idiot|kidding( me)?|serious|retarded|deaf|blind)"
    r"|you (know|understand) nothing|you (do not|dont) (know|understand) anything|you are no help( at all)?|this does not help|(stfu|ffs|kys)"
)

# The kind that says the most about what somebody wants comes first.
_KINDS: dict[Kind, str] = {
    "about": _ABOUT,
    "robot": _ROBOT,
    "insult": _INSULTS,
    "wellbeing": _WELLBEING,
    "thanks": _THANKS,
    "farewell": _FAREWELLS,
    "greeting": rf"({_GREETINGS})( ({_ADDRESS}))?",
    "agreement": _AGREEMENTS,
}
_PATTERNS = {kind: re.compile(pattern) for kind, pattern in _KINDS.items()}
_OPENINGS = re.compile(rf"({_GREETINGS}|{_THANKS}|ok|okay)")
_OPENINGS_WITH_ADDRESS = re.compile(rf"({_GREETINGS})( ({_ADDRESS}))?|{_THANKS}|{_AGREEMENTS}")
_WORDS = re.compile(WORD)
_OPENING_WORDS = frozenset(re.findall(r"[a-z]+", f"{_GREETINGS} {_ADDRESS} {_THANKS} {_AGREEMENTS}"))
_VOCABULARY = frozenset(re.findall(r"[a-z]+", " ".join(_KINDS.values())))
_SHORT = {
    "u": "you", "ya": "you", "r": "are", "ur": "you are", "youre": "you are", "whats": "what is", "wats": "what is",
    "wat": "what", "whos": "who is", "hows": "how is", "thats": "that is", "its": "it is", "im": "i am", "ive": "i have",
    "thx": "thanks", "tnx": "thanks", "thnx": "thanks", "thanx": "thanks", "ty": "thanks", "tysm": "thanks", "pls": "please",
    "plz": "please", "helo": "hello", "hii": "hi", "hy": "hi", "hai": "hi", "gm": "good morning", "goodmorning": "good morning",
    "yuo": "you", "oyu": "you", "yu": "you", "hwo": "how", "teh": "the", "aer": "are", "whta": "what", "hlep": "help",
    "goodevening": "good evening", "goodafternoon": "good afternoon", "goodnight": "good night", "sup": "what is up", "wassup": "what is up",
    "cu": "see you", "ttyl": "talk to you later", "gud": "good", "gr8": "great", "abt": "about", "cn": "can",
    "isnt": "is not", "doesnt": "does not", "cant": "can not", "hw": "how", "wht": "what",
}  # fmt: skip


@dataclass(frozen=True)
class ReadMessage:
    """A message as it is meant: what it asks, and what kind of small talk it is, if all of it is."""

    question: str
    small_talk: Kind | None


def read_message(message: str) -> ReadMessage:
    """Read a message. The first one with a wrong letter takes half a second, in which a dictionary is read."""
    kind = find_small_talk(message)
    # "Ok" may be the answer to what a model has asked, and goes on with the subject.
    return ReadMessage(find_question(message), None if kind == "agreement" else kind)


def choose_agent(kind: Kind | None, entry: str, last: str | None) -> str | None:
    """Who answers small talk: the agent that a conversation begins with, or who had the last word. None: it is none.

    No specialist is asked for it: "thanks" says nothing of a subject.
    """
    if kind is None:
        return None
    return entry if last is None or kind in ABOUT_THE_ASSISTANT else last


def find_small_talk(message: str) -> Kind | None:
    """What kind of small talk a message is, if all of it is."""
    kinds = next(filter(None, map(_find_kinds, _read(message))), frozenset[Kind]())
    return next((kind for kind in _PATTERNS if kind in kinds), None)


def _find_kinds(said: Sequence[str]) -> frozenset[Kind]:
    """The kinds of the parts that the words are made of. Without a way through all of the words there are none."""
    reached: dict[int, frozenset[Kind]] = {0: frozenset()}
    for start in range(len(said)):
        if start not in reached:
            continue
        for end in range(len(said), start, -1):
            part = " ".join(said[start:end])
            kind = next((kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(part)), None)
            if kind is not None and end not in reached:
                reached[end] = reached[start] | {kind}
    return reached.get(len(said), frozenset())


def find_question(message: str) -> str:
    """The message without a greeting or thanks before what it asks. Small talk alone stays as it is."""
    places = list(_WORDS.finditer(message))
    # Nearly every message ends here, by its first word.
    leading = len(list(takewhile(_opens, (place[0] for place in places[:_MOST_WORDS]))))
    if not leading or find_small_talk(message) is not None:
        return message
    for count in range(min(leading, len(places) - 1), 0, -1):
        openings = [" ".join(said) for said in _read(message[: places[count - 1].end()])]
        between = message[places[count - 1].end() : places[count].start()]
        # Without a sign between them the words of an address may be those of the question: "hi all divers must ..."
        pattern = _OPENINGS_WITH_ADDRESS if between.strip() else _OPENINGS
        if any(pattern.fullmatch(opening) for opening in openings):
            return message[places[count].start() :]
    return message


def _opens(word: str) -> bool:
    return any(set(said) <= _OPENING_WORDS for said in _read(word))


def _read(message: str) -> list[tuple[str, ...]]:
    """The words of a message as the patterns have them, in each way that a misspelt one may be meant."""
    found = [word.replace("'", "") for word in _WORDS.findall(drop_accents(fold(message[:_LONGEST_READ])))]
    meant = [_unhold(word) for word in found]
    wrong = sum(not meanings for meanings in meant)
    if not found or len(message) > _LONGEST_READ or len(found) > _MOST_WORDS or wrong > _MOST_MISSPELT:
        return []
    ways = product(*(meanings or _correct(word) for word, meanings in zip(found, meant, strict=True)))
    return [tuple(" ".join(said).split()) for said in islice(ways, _MOST_WAYS)]


def _unhold(word: str) -> Sequence[str]:
    """What a word may mean, less what a held key adds: `hellooo` is `hello`, `heyyy` is `hey`, `tooo` is `too` or `to`."""
    fewer = (re.sub(r"(.)\1{2,}", r"\1\1", word), re.sub(r"(.)\1{2,}", r"\1", word), re.sub(r"(.)\1+", r"\1", word))
    known = [_SHORT.get(one, one) for one in (word, *fewer) if one in _SHORT or one in _VOCABULARY]
    return known[:1] if word in (*_SHORT, *_VOCABULARY) else list(dict.fromkeys(known))


def _correct(word: str) -> Sequence[str]:
    """The words of the patterns that may be meant by a misspelt one."""
    if len(word) < _SHORTEST_MISSPELT:
        return [word]
    near = [other for other in _long_words() if abs(len(other) - len(word)) < 2 and differ_by_one(word, other)]
    return near if near and word not in _ordinary_words() else [word]


@cache
def _long_words() -> Sequence[str]:
    return sorted(word for word in _VOCABULARY if len(word) >= _SHORTEST_MISSPELT)


def _ordinary_words() -> frozenset[str]:
    """English words that are a letter away from one of the patterns': `tanks` is not `thanks`."""
    return compile_phrases(tuple(_long_words())).ordinary
