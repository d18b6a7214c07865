"""Words and their stems, of English and, for questions and answers, of German, Spanish and French.

Some words say nothing of what a text is about. `stem` and `COMMON` are for English. What Chinese, Japanese and Korean
write without spaces comes in pairs of characters (`languages`).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from agent_server.folding import WORD, fold
from agent_server.knowledge.languages import CONFIGS, cut_unspaced, drop_asking, has_unspaced, language_of_script

# Numbers with separators (1.5, 10:30) and words with an apostrophe are one word each.
_NUMBER = r"\d+(?:[.,:]\d+)+"
_WORD = re.compile(rf"{_NUMBER}|{WORD}")
# The same for plain text, in a third of the time: most messages have no other letters.
_PLAIN_WORD = re.compile(rf"{_NUMBER}|[a-z0-9]+(?:['`][a-z0-9]+)*")
# Longer endings stand before the shorter ones they end with: the first that fits is taken.
_ENDINGS = ("ations", "ation", "ments", "ment", "ings", "ing", "edly", "ers", "ies", "er", "ed", "es", "ly", "s", "e")
COMMON = frozenset(
    "a about after again all also am an and any are as at be because been before being but by can could did do does "  # noqa: SIM905  # a list would be a page
    "doing don't each else for from further give go got had has have having he her here hers him his how i i'd i'll "
    "i'm i've if in into is isn't it it's its just know let like make many may me might mine more most much must my near "
    "need no nor not now of off ok okay on once one only or other our ours out over own please put really same say shall "
    "she should so some something such take tell than thank thanks that that's the their them then there these they "
    "thing things this those through to too under until up us use very want was we were what what's when where which "
    "while who whom whose why will with without would yes you your yours".split()
)


def words(text: str) -> list[str]:
    """The words and numbers of a text, folded."""
    folded = fold(text)
    if folded.isascii():
        return _PLAIN_WORD.findall(folded)
    found = _WORD.findall(folded)
    return [part for word in found for part in cut_unspaced(word)] if has_unspaced(folded) else found


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """A word without its English ending. `diver`, `dives` and `diving` are one."""
    word = word.removesuffix("'s")
    if len(word) < 3 or not word.isalpha():
        return word
    for ending in _ENDINGS:
        # "us", "ss" and "is" end words that are no plurals: bus, glass, axis.
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith(("us", "ss", "is")):
            word = word[: -len(ending)]
            break
    # "easy" becomes what is left of "easily"; in the line below "swimm", left of "swimming", becomes "swim".
    word = word[:-1] + "i" if word.endswith("y") else word
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiou" else word


FUNCTION_WORDS = {
    "en": COMMON,
    "de": frozenset(
        "aber alle allem allen aller alles als also am an andere anderen auch auf aus bei beim bin bis bist brauche braucht "  # noqa: SIM905  # a list would be a page
        "da dabei dafür dagegen damit dann daran darf darauf daraus das dass davon dazu dein deine dem den denn der des "
        "dich die dies diese diesem diesen dieser dieses dir doch dort du durch ein eine einem einen einer eines einfach "
        "er es etwas euch euer für gegen geht gibt genau habe haben hat hatte hier hin hinter ich ihm ihn ihnen ihr ihre im "
        "immer in ins ist ja jede jedem jeden jeder jedes kann kannst kein keine keinen können könnte lasse lassen lässt "
        "machen mache macht man manche mehr mein meine meinem meinen meiner meines mich mir mit möchte muss musst müssen "
        "nach nicht nichts noch nun nur ob oder oft ohne schon sehr sein seine seinem seinen seiner seit sich sie sind so soll "
        "sollen sollte sollten sondern sowie tun über um und uns unser unsere unter viel viele vielen vom von vor wann "
        "war warum was weil welche welchem welchen welcher welches wem wen wenn wer werde werden wessen wie wieder will "
        "wir wird wirklich wo woher wohin womit worauf wurde wurden zu zum zur zwischen dürfen durfte konnte konnten musste "
        "mussten sollst wann weshalb wieso wieviel wodurch wofür wogegen woran worin worüber wovon wozu".split()
    ),
    "es": frozenset(
        "a al algo algún alguna algunas alguno algunos ante antes aquí así aunque cada como cómo con contra cual cuál "  # noqa: SIM905  # a list would be a page
        "cuales cuáles cualquier cuando cuándo cuanta cuánta cuantas cuántas cuanto cuánto cuantos cuántos de debe debo "
        "deben del desde donde dónde durante e el él ella ellas ellos en entre era eres es esa ese eso esta está están "
        "estas este esto estos estoy fue ha hace hacer hago han hasta hay he la las le les lo los más me mi mis mismo "
        "mucho muy nada ni no nos nosotros o otra otras otro otros para pero poco por porque puede pueden puedo pues que "
        "qué quien quién quiero se sea según ser si sí sin sobre son soy su sus también tan tanto te tengo tiene tienen "
        "todas todo todos tu tus u un una unas uno unos usar y ya yo adónde debemos había hubo podemos podía quiénes".split()
    ),
    "it": frozenset(
        "a ad agli ai al alla alle anche c che chi ci come con cosa cui da dagli dai dal dalla dalle degli dei del della delle "  # noqa: SIM905  # a list would be a page
        "di dopo dove e è ed essere fare gli ha hanno ho i il in io l la le lei loro ma mi mia mio molto nei nel nella nelle "
        "non o ogni per perché più poi posso può qual quale quali quando quanto quanti questa queste questi questo se senza si "
        "sia sono su sua sul sulla suo tra tu tutti tutto un una uno".split()
    ),
    "pt": frozenset(
        "a ao aos as até com como da das de depois do dos e é ela ele eles em entre era essa esse esta está este eu foi há "  # noqa: SIM905  # a list would be a page
        "isso isto já lhe mais mas me meu minha muito na nas não nem no nos nós o onde os ou para pela pelas pelo pelos por "
        "porque posso pode qual quais quando quanto quantos que quem se sem ser seu seus são só sua suas também tem ter um uma "
        "umas uns você".split()
    ),
    "nl": frozenset(
        "aan al als ben bij dan dat de den der deze die dit doen door dus een en er geen haar had heb hebben heeft hem het hier "  # noqa: SIM905  # a list would be a page
        "hij hoe hoeveel ik in is je kan kun kunnen maar me meer met mijn moet moeten na naar niet nog of om onder ons ook op "
        "over te tot u uit uw van veel voor waar waarom wanneer wat we wel welke werd wie wij worden wordt zal ze zich zijn zo "
        "zonder".split()
    ),
    "fr": frozenset(
        "a ai alors après au aucun aussi autre autres aux avant avec avoir c'est car ce cela ces cet cette ceux chaque chez "  # noqa: SIM905  # a list would be a page
        "ci combien comme comment d dans de depuis des dois doit donc dont du elle elles en entre est et était être eu "
        "faire fais fait faut il ils j j'ai je l la le les leur leurs lui ma mais me mes moi mon même n ne ni nos notre "
        "nous on ont ou où par parce pas peu peut peux plus pour pourquoi puis qu quand que quel quelle quelles quels qui "
        "quoi s sa sans se sera ses si son sont sous suis sur t ta te tes ton tous tout toute toutes très tu un une vers "
        "veux vos votre vous y contre devez devons doivent lequel laquelle lesquels lesquelles peuvent pouvez pouvons "
        "puis veut voulez".split()
    ),
}
"""Words of a language that say nothing of what a text is about."""
_ELIDED = {
    "fr": frozenset(("c", "d", "j", "jusqu", "l", "lorsqu", "m", "n", "puisqu", "qu", "quoiqu", "s", "t")),
    "it": frozenset(("all", "c", "coll", "d", "dall", "dell", "l", "nell", "quest", "sull", "un")),
}
_DETECTED = tuple(FUNCTION_WORDS)
_LEAST_SHARE = 8
FUNCTION_WORDS |= {language: frozenset() for language in CONFIGS if language not in FUNCTION_WORDS}
_ENDINGS_OF = {
    "de": ("ungen", "erin", "innen", "ung", "ern", "est", "em", "en", "er", "es", "e", "n", "s"),
    "es": (
        "aciones",
        "amiento",
        "imiento",
        "ación",
        "mente",
        "ando",
        "iendo",
        "ados",
        "adas",
        "idos",
        "idas",
        "ado",
        "ada",
        "ido",
        "ida",
        "ar",
        "er",
        "ir",
        "an",
        "en",
        "es",
        "os",
        "as",
        "o",
        "a",
        "e",
        "s",
    ),
    "fr": (
        "ations",
        "ation",
        "ements",
        "ement",
        "euses",
        "euse",
        "eurs",
        "eur",
        "antes",
        "ants",
        "ante",
        "ant",
        "ées",
        "és",
        "ée",
        "é",
        "er",
        "ez",
        "ent",
        "ons",
        "es",
        "e",
        "s",
    ),
}

EVERYDAY = {
    "en": frozenset(
        "able actually add allow allowed already always anybody anyone anything anyway ask away back bad become begin best "  # noqa: SIM905  # a list would be a page
        "better bit bring came certain change come correct describe different easy end enough even ever every everybody everyone "
        "everything exactly explain far find first fit found full getting given goes going gone good great happen happened happens "
        "help ignore instead itself keep kind last least leave left less list little long longer look looking lot made making maybe mean "
        "myself never new next nobody none nothing number often old ought part people perhaps person place possible probably "
        "quite rather ready real right run same see seem seen set several show side simply single someone somebody sometimes "
        "somewhere soon sort start started still stop straight sure supposed themselves thing think till time today together told took "
        "tried try turn two type usual usually wanted wants way ways well went whether whole work works write wrong yet "
        "yourself".split()
    ),
    "de": frozenset(
        "allein anfang anfangs art beste besten besser bekomme bekommen bekommt bisschen bleiben bleibt brauchen bringe "  # noqa: SIM905  # a list would be a page
        "bringen einmal ende erst erste ersten fertig finde finden findet folgende ganz gehe gehen gehört genug gerade gern "
        "gleich gleichzeitig groß große größer gut gute guten helfen hilft jemand kommen kommt lange leute liegen liegt "
        "mal mitten möglich nehme nehmen nimmt niemand richtig sagen sagt schnell selber selbst später stehen steht stelle "
        "überhaupt ungefähr weiter wichtig wirklich wissen zeit ziemlich".split()
    ),
    "es": frozenset(
        "ahora alguien antes bien bueno buena cierto cosa cosas cualquiera dar diferente dónde encontrar forma gente "  # noqa: SIM905  # a list would be a page
        "grande hecho igual ir luego lugar manera mejor menos mientras mismo misma momento necesito necesita nadie nuevo "
        "nueva parte persona poner posible primera primero quiere saber solo sólo tener tiempo todavía vez veces ver "
        "voy".split()
    ),
    "fr": frozenset(
        "aller ainsi assez autrement beaucoup besoin bien bon bonne chose choses déjà dire encore endroit ensemble façon "  # noqa: SIM905  # a list would be a page
        "gens jamais longtemps lorsque maintenant manière meilleur mettre mieux moins moment nouveau nouvelle partie "
        "personne possible premier première prendre presque quelqu'un rien savoir seul souvent temps toujours trouver "
        "utiliser va vraiment".split()
    ),
}
"""Words of a language that may be meant in particular, but mostly are not."""
EVERYDAY |= {language: frozenset() for language in CONFIGS if language not in EVERYDAY}


def language_of(text: str) -> str:
    """The language of a text by its script, else by most of its function words. English where none is ahead."""
    if (language := language_of_script(text)) is not None:
        return language
    said = words(text)
    said_of = Counter(said)
    counts = {
        language: sum(said_of[word] for word in said_of.keys() & FUNCTION_WORDS[language]) for language in _DETECTED
    }
    most = max(counts, key=lambda language: counts[language])
    # A third of a text is function words. Where hardly any are, as in tables and code, a single one says nothing.
    return most if counts[most] * _LEAST_SHARE >= len(said) else "en"


def content_words(text: str, language: str) -> list[str]:
    """The words of a text that say what it is about, each once."""
    known = FUNCTION_WORDS[language]
    said = (without_elision(word, language) for word in words(drop_asking(text, language)))
    return list(dict.fromkeys(word for word in said if word not in known))


def without_elision(word: str, language: str) -> str:
    """A word without the article or pronoun that French and Italian write before it: l'acarien is acarien."""
    if language not in _ELIDED or "'" not in word:
        return word
    before, _, after = word.partition("'")
    return after if after and before in _ELIDED[language] else word


@lru_cache(maxsize=65_536)
def stem_in(word: str, language: str) -> str:
    """A word of a language without its ending."""
    word = without_elision(word, language)
    if language not in _ENDINGS_OF:
        return stem(word)
    if len(word) < 4 or not word.isalpha():
        return word
    word = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
    if language == "de" and len(word) > 6 and word.startswith("ge") and word.endswith(("t", "en")):
        word = word.removeprefix("ge").removesuffix("t")  # geprüft is of prüfen
    ending = next((e for e in _ENDINGS_OF[language] if word.endswith(e) and len(word) - len(e) >= 3), "")
    return word.removesuffix(ending)


def forms_of(word: str, language: str) -> Sequence[str]:
    """Forms that a word may have in a content whose index knows the endings of English only."""
    if language not in _ENDINGS_OF or not word.isalpha() or len(word) < 4:
        return (word,)
    base = next(
        (word.removesuffix(e) for e in _ENDINGS_OF[language] if word.endswith(e) and len(word) - len(e) >= 3), word
    )
    return tuple(dict.fromkeys((word, base, *(base + ending for ending in _ENDINGS_OF[language]))))
