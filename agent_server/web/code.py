"""Source code -> HTML with the class names of Pygments.

Most of its lexers take quadratic time on some texts (11 s for 14 kB of Java), and what stands in an answer may have
been chosen to be slow. These know strings, comments, numbers and keywords, and look at each character once: every
pattern is possessive, and an end that it asks for may be missing.
"""

import re
from collections.abc import Sequence

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer, RegexLexer
from pygments.token import Comment, Generic, Keyword, Name, Number, Operator, String, Text

LONGEST = 20_000
"""Most characters that are highlighted. Longer code is shown plain."""

_Rules = list[tuple[str, object]]

_FORMATTER: HtmlFormatter[str] = HtmlFormatter(nowrap=True)
_HASH, _SLASH, _DASH = r"#[^\n]*+", r"//[^\n]*+", r"--[^\n]*+"
_BLOCK, _MARKUP = r"/\*.*?(?:\*/|\Z)", r"<!--.*?(?:-->|\Z)"
_DOUBLE, _SINGLE = r'"(?:[^"\\\n]++|\\.)*+"?', r"'(?:[^'\\\n]++|\\.)*+'?"
_TRIPLE = r'""".*?(?:"""|\Z)|' + r"'''.*?(?:'''|\Z)"
_TEMPLATE = r"`(?:[^`\\]++|\\.)*+`?"
# A lifetime of Rust's (`'a`) opens no text.
_CHARACTER = r"'(?:[^'\\\n]|\\.)'"

_COMMON = "break case catch class const continue default do else enum false for if import in new return switch this throw true try while"
_PYTHON = (
    "and as assert async await break class continue def del elif else except finally for from global if import in is "
    "lambda match None nonlocal not or pass raise return True try False while with yield"
)
_SHELL = "case do done elif else esac export fi for function if in local return set then until while"
_C = f"{_COMMON} auto bool char double extern float goto int long namespace private protected public short signed sizeof static struct template typedef union unsigned using virtual void"
_JAVA = f"{_COMMON} abstract boolean byte char double extends final finally float implements instanceof int interface long package private protected public static super synchronized throws var void"
_SCRIPT = f"{_COMMON} async await delete export extends finally from function interface let null of static super type typeof undefined var void yield"
_OTHERS = f"{_COMMON} as fn func fun go impl let match mod mut nil null package pub range select self static struct trait type use val var when where"
_SQL = (
    "add all alter and as asc begin between by case commit create cross delete desc distinct drop else end exists from "
    "full group having in index inner insert into is join left like limit not null offset on or order outer primary "
    "references returning right select set table then union unique update using values view when where with"
)
_RUBY = "and begin case class def do else elsif end ensure false for if in module nil not or require rescue return self super then true unless until when while yield"
_DOCKER = "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL RUN SHELL USER VOLUME WORKDIR"


def _lexer(comments: Sequence[str], strings: Sequence[str], keywords: str = "", *, flags: int = 0) -> Lexer:
    """A lexer of a language that has these comments, texts and keywords."""
    rules: _Rules = [(r"\s++", Text)]
    rules += [(comment, Comment) for comment in comments]
    rules += [(string, String.Single if string[0] == "'" else String.Double) for string in strings]
    rules += [(rf"(?:{keywords.replace(' ', '|')})(?!\w)", Keyword)] if keywords else []
    rules += [
        (r"\d[\w.]*+", Number),
        (r"[^\W\d]\w*+", Name),
        (r"[-+*/%=<>!&|^~?:]++", Operator),
        (r".", Text),
    ]
    return _create(rules, flags)


def _create(rules: _Rules, flags: int = 0) -> Lexer:
    lexer = type("Code", (RegexLexer,), {"tokens": {"root": rules}, "flags": re.DOTALL | flags})
    created: Lexer = lexer(stripnl=False, ensurenl=False)
    return created


_TEXTS = (_DOUBLE, _SINGLE)
_C_LIKE = (_SLASH, _BLOCK)
_DIFF: _Rules = [
    (r"\+[^\n]*+\n?", Generic.Inserted),
    (r"-[^\n]*+\n?", Generic.Deleted),
    (r"@[^\n]*+\n?", Generic.Subheading),
    (r"[^\n]*+\n|[^\n]++", Text),
]
_TAGS: _Rules = [
    (_MARKUP, Comment),
    (r"</?[\w:.-]++|/?>", Name.Tag),
    (r"[^\W\d][\w:.-]*+(?==)", Name.Attribute),
    (r'"[^"<]*+"?', String.Double),
    (r"[^<>\"\w]++|\w[\w:.-]*+|.", Text),
]
_BY_NAMES: Sequence[tuple[str, Lexer]] = (
    ("py python", _lexer([_HASH], [_TRIPLE, *_TEXTS], _PYTHON)),
    ("bash sh shell console", _lexer([_HASH], _TEXTS, _SHELL)),
    ("ruby", _lexer([_HASH], _TEXTS, _RUBY)),
    ("toml yaml yml json", _lexer([_HASH], _TEXTS, "true false null")),
    ("ini", _lexer([_HASH, r";[^\n]*+"], _TEXTS)),
    ("dockerfile", _lexer([_HASH], _TEXTS, _DOCKER)),
    ("c cpp", _lexer(_C_LIKE, _TEXTS, _C)),
    ("java csharp", _lexer(_C_LIKE, _TEXTS, _JAVA)),
    ("js javascript ts typescript", _lexer(_C_LIKE, [*_TEXTS, _TEMPLATE], _SCRIPT)),
    ("go kotlin swift", _lexer(_C_LIKE, [*_TEXTS, _TEMPLATE], _OTHERS)),
    ("rust", _lexer(_C_LIKE, [_DOUBLE, _CHARACTER], _OTHERS)),
    ("php", _lexer([*_C_LIKE, _HASH], _TEXTS, f"{_SCRIPT} echo foreach namespace public private use")),
    ("css", _lexer([_BLOCK], _TEXTS)),
    ("sql", _lexer([_DASH, _BLOCK], _TEXTS, _SQL, flags=re.IGNORECASE)),
    ("html xml", _create(_TAGS)),
    ("diff", _create(_DIFF)),
)
_LEXERS = {name: lexer for names, lexer in _BY_NAMES for name in names.split()}


def highlight_code(code: str, language: str) -> str | None:
    """`code` as HTML. It is None where it is shown plain: too long, or in a language that is not known here."""
    if len(code) > LONGEST or language not in _LEXERS:
        return None
    html: str = highlight(code, _LEXERS[language], _FORMATTER)
    return html
