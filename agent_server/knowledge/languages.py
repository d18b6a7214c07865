"""The languages of content: how Postgres stems each, which script it has, and words without spaces between them.

Chinese, Japanese, Korean   what stands between spaces is cut into pairs of neighbouring characters, which overlap,
                            in the index and in a question alike
other languages             words, stemmed by Postgres' configuration of the language
"""

import re
from collections.abc import Iterator, Mapping

CONFIGS: Mapping[str, str] = {
    "en": "english",
    "de": "german",
    "es": "spanish",
    "fr": "french",
    "it": "italian",
    "pt": "portuguese",
    "nl": "dutch",
    "da": "danish",
    "sv": "swedish",
    "no": "norwegian",
    "fi": "finnish",
    "hu": "hungarian",
    "ro": "romanian",
    "tr": "turkish",
    "ru": "russian",
    "el": "greek",
    "ar": "arabic",
    "zh": "simple",
    "ja": "simple",
    "ko": "simple",
}
"""Languages by their codes, with their text-search configurations in Postgres."""
WITH_COMPOUNDS = ("german", "dutch", "danish", "swedish", "norwegian")

_HAN, _KANA, _HANGUL = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3005", "\u3040-\u30ff", "\uac00-\ud7af"
_SCRIPTS = {
    language: re.compile(f"[{characters}]")
    for language, characters in {
        "ja": _KANA,
        "ko": _HANGUL,
        "zh": _HAN,
        "ru": "\u0400-\u04ff",
        "el": "\u0370-\u03ff",
        "ar": "\u0600-\u06ff",
    }.items()
}
_UNSPACED = re.compile(f"[{_HAN}{_KANA}{_HANGUL}]+")
_LONE_HAN = re.compile(f"(?<![{_HAN}])[{_HAN}](?![{_HAN}])")
_HIRAGANA = re.compile("[\u3041-\u309f]+")
# Particles stand at the end of a word, which has two syllables before them: 다이빙을 is 다이빙.
_KOREAN_ENDING = re.compile(
    "(?<=[\uac00-\ud7af]{2})(?:에서는|에서|에게|으로|까지|부터|은|는|이|가|을|를|에|의|로|와|과|도|만)$"
)
_ASKING = {
    "zh": re.compile(
        "什么时候|为什么|怎么样|怎么办|多长时间|是不是|能不能|可不可以|什么|怎么|怎样|如何|为何|多少|多久|哪里|哪儿|哪个|哪些|哪种|是否|可以|应该|需要|"
        "请问|我们|你们|他们|[吗呢吧啊了的是在我你他她它有要会能和与或就都也很从对把被谁几]"
    ),
    "ko": re.compile(
        r"(?:무엇|언제|어디|얼마|누가|누구|어떻게|어떤|어느|왜|몇)\S{0,3}|(?<=\s)(?:수|것|게|때|할|해야|하나요|있나요|있습니까|하려면|됩니까|되나요)(?=[\s?.]|$)"
    ),
}


def language_of_script(text: str) -> str | None:
    """The language that the characters of a text are of. None where they are Latin, or too few."""
    if text.isascii():
        return None
    counts = {language: len(script.findall(text)) for language, script in _SCRIPTS.items()}
    if counts["ja"] * 20 > counts["zh"]:
        counts["ja"] += counts["zh"]  # Japanese has Chinese characters between its own
    most = max(counts, key=lambda language: counts[language])
    # A character of these says as much as a few letters do.
    letters = sum(character.isalpha() for character in text)
    return most if counts[most] * 4 > letters and counts[most] > 1 else None


def has_unspaced(text: str) -> bool:
    """Whether a text has words of a script that puts no spaces between them."""
    return _UNSPACED.search(text) is not None


def cut_unspaced(text: str) -> Iterator[str]:
    """A word in overlapping pairs where its script has no spaces, and the rest of it as it is."""
    done = 0
    for run in _UNSPACED.finditer(text):
        if run.start() > done:
            yield text[done : run.start()]
        yield from _pairs(_KOREAN_ENDING.sub("", run[0]))
        done = run.end()
    if done < len(text):
        yield text[done:]


def _pairs(run: str) -> Iterator[str]:
    if len(run) < 2:
        yield run
        return
    yield from (run[at : at + 2] for at in range(len(run) - 1))
    # The stem of a Japanese verb is one character before its ending: 飛ぶ, 飛んで.
    if _HIRAGANA.search(run):
        yield from _LONE_HAN.findall(run)


def spread_unspaced(text: str) -> str:
    """A text as the index takes it: what has no spaces is cut into pairs, with spaces between them."""
    return _UNSPACED.sub(lambda run: f" {' '.join(_pairs(_KOREAN_ENDING.sub('', run[0])))} ", text)


def drop_asking(text: str, language: str) -> str:
    """A question without what only asks, where no spaces part it from the rest."""
    if language == "ja":
        # Particles, endings and words that ask are of hiragana; a question of them alone stays as it is.
        shown = _HIRAGANA.sub(lambda found: f" {found[0]} ", text)
        left = " ".join(part for part in shown.split() if not _HIRAGANA.fullmatch(part))
        return left if any(map(str.isalnum, left)) else text
    if language in _ASKING:
        left = _ASKING[language].sub(" ", text)
        # A character that is left alone stands in pairs in the index.
        without = _LONE_HAN.sub(" ", left) if language == "zh" else left
        left = without if any(map(str.isalnum, without)) else left
        return left if any(map(str.isalnum, left)) else text
    return text
