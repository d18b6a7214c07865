"""What of a question is looked for by its words, as the beginning of a statement.

The question's lexemes come from the configuration of its language, where the content has pages in it, else of the one
that most pages are in. Beside each lexeme stand its kin: compounds that have it as a part, the parts of a compound, and,
for a word that the content lacks, those with one letter less, more, other or swapped. So do everyday words that stand for
an asked one, and its forms, for a word that the content lacks.
"""

from agent_server.folding import fold
from agent_server.knowledge.languages import CONFIGS, spread_unspaced
from agent_server.knowledge.synonyms import spellings, synonyms
from agent_server.knowledge.words import FUNCTION_WORDS, content_words, forms_of, language_of, words

KIN_SHARE = 0.5
"""What a word of the kin counts for, of what the asked word does."""
HEAD_SHARE = TYPO_SHARE = 0.8
"""Where the content lacks the asked word: a compound that begins or ends with it, and the word that was perhaps meant."""
SYNONYM, INFLECTED, SPELLED = 0.5, 0.9, 1.0
"""A word that stands for an asked one, a form of it whose ending the index does not take off, and the same word spelled
otherwise. This last is looked for also where the content has the asked one: equalize has the stem of equal."""
MOST_KIN = 20
SHORTEST, LONGEST, MOST_WORDS = 5, 30, 40
"""Words that may be misspelt: their letters, and how many of a question are looked at."""
_ALPHABET = "abcdefghijklmnopqrstuvwxyzäöüßáéíóúñàâçèêëîïôûùąćęłńśźżåæø"
_PUNCTUATION = ".,;:!?¿¡()[]\"'«»„“”"

DICTIONARIES = "replace(config || '_stem', 'simple_stem', 'simple')"
"""SQL of the dictionary that the words of a configuration are stemmed with."""

# - `kin` adds nothing to the bound: with a word that the content lacks, a passage cannot have all of the score.
# - 536870911 cuts the hash to 29 bits, so that it fits into the dimensions of `lex`, as `lexvec` does when it stores.
# - 2.2 is k1 + 1, the most that a word can count for in BM25; `bound` is therefore the highest score that is possible.
# - `limit 1`, with which each of some hundred words is looked up by the primary key: joined, all terms would be read for each.
# - All terms are looked through only for a word that the content lacks, in a language that writes compounds as one word.
# - The first letter of a misspelt word is taken as right: this halves what is looked up, and it hardly ever is not.
ASKED = f"""
    x as materialized (
        select n_chunks, config, {DICTIONARIES} as dictionary from (
            select n_chunks, case when :config = any(configs) then :config else configs[1] end as config
            from corpus where owner_id = :owner_id) c),
    p as materialized (
        select v.lexeme, coalesce(t.n, 0) as df, cardinality(v.positions) as qtf,
               ln(1 + (x.n_chunks - coalesce(t.n, 0) + 0.5) / (coalesce(t.n, 0) + 0.5)) as idf
        from x cross join unnest(to_tsvector(cast(x.config as regconfig), :query)) v
        left join term t on t.owner_id = :owner_id and t.lexeme = v.lexeme),
    kin as materialized (
        select k.lexeme, k.n as df, p.qtf,
               k.share * least(p.idf, ln(1 + (x.n_chunks - k.n + 0.5) / (k.n + 0.5))) as idf
        from x cross join p cross join lateral (
            (select t.lexeme, t.n, {KIN_SHARE} as share from compound c
             join term t on t.owner_id = c.owner_id and t.lexeme = c.lexeme
             where c.owner_id = :owner_id and c.part = p.lexeme order by t.n desc, t.lexeme limit {MOST_KIN})
            union all
            (select distinct t.lexeme, t.n, {KIN_SHARE}
             from generate_series(4, length(p.lexeme) - 4) i
             cross join lateral (
                 select lexeme, n from term where owner_id = :owner_id and lexeme = substr(p.lexeme, i + 1) and n > 0 limit 1) r
             cross join lateral (
                 select lexeme, n from term where owner_id = :owner_id and n > 0
                    and lexeme = (ts_lexize(cast(x.dictionary as regdictionary), left(p.lexeme, i)))[1] limit 1) l
             cross join lateral (values (l.lexeme, l.n), (r.lexeme, r.n)) t(lexeme, n)
             where x.config = any(cast(:compounding as text[])))
            union all
            (select t.lexeme, t.n, {HEAD_SHARE} from term t
             where p.df = 0 and x.config = any(cast(:compounding as text[])) and length(p.lexeme) >= 4
               and t.owner_id = :owner_id and t.n > 0 and length(t.lexeme) >= length(p.lexeme) + 3
               and (right(t.lexeme, length(p.lexeme)) = p.lexeme
                    or length(p.lexeme) > 4 and left(t.lexeme, length(p.lexeme)) = p.lexeme)
             order by t.n desc, t.lexeme limit {MOST_KIN})
            union all
            (select t.lexeme, t.n, {TYPO_SHARE} from (
                 select distinct (ts_lexize(cast(x.dictionary as regdictionary), e.written))[1] as lexeme
                 from unnest(cast(:words as text[])) said cross join generate_series(2, length(said) + 1) i
                 cross join lateral (
                     select left(said, i - 1) || substr(said, i + 1) as written
                     union all select left(said, i - 1) || substr(said, i + 1, 1) || substr(said, i, 1) || substr(said, i + 2)
                     union all select left(said, i - 1) || a || substr(said, i + 1)
                               from unnest(string_to_array('{_ALPHABET}', null)) a
                     union all select left(said, i - 1) || a || substr(said, i)
                               from unnest(string_to_array('{_ALPHABET}', null)) a) e
                 where p.df = 0 and (ts_lexize(cast(x.dictionary as regdictionary), said))[1] = p.lexeme) e
             cross join lateral (
                 select lexeme, n from term where owner_id = :owner_id and lexeme = e.lexeme and n > 0 limit 1) t
             order by t.n desc, t.lexeme limit 3)
            union all
            (select t.lexeme, t.n, o.sure
             from (select distinct coalesce((ts_lexize(cast(x.dictionary as regdictionary), u.other))[1], u.other) as lexeme, u.sure
                   from unnest(cast(:asked as text[]), cast(:others as text[]), cast(:sure as float8[])) u(asked, other, sure)
                   where (p.df = 0 or u.sure >= {SPELLED}) and coalesce((ts_lexize(cast(x.dictionary as regdictionary), u.asked))[1], u.asked) = p.lexeme) o
             cross join lateral (
                 select lexeme, n from term where owner_id = :owner_id and lexeme = o.lexeme and n > 0 limit 1) t)) k
        where k.lexeme not in (select lexeme from p)),
    q as materialized (
        select ('{{' || string_agg(h || ':' || w, ',') || '}}/1000000000')::sparsevec as sv,
               (select sum((idf * qtf)::real) * 2.2 from p) as bound
        from (select (hashtextextended(lexeme, 0) & 536870911) + 1 as h, sum(idf * qtf)::real as w
              from (select lexeme, idf, qtf from p union all select lexeme, max(idf), max(qtf) from kin group by lexeme) w
              group by 1) h),
    found as materialized (
        select lexeme, df from p where df > 0 union select lexeme, max(df) from kin group by lexeme)"""  # noqa: S608  # constants of ours
"""CTEs `q` (the question's vector, and the highest score there can be) and `found` (what is looked for in the index)."""


def list_words(query: str) -> list[str]:
    """The words of a question that may be misspelt: a short one is another word as soon as a letter is wrong."""
    said = (word for word in words(query) if SHORTEST <= len(word) <= LONGEST and word.isalpha())
    return list(dict.fromkeys(said))[:MOST_WORDS]


def list_other_words(query: str) -> dict[str, list[str] | list[float]]:
    """What a passage may say in place of the words of a question, and how surely it means the same."""
    language = language_of(query)
    asked = content_words(query, language)[:MOST_WORDS]
    found = [(word, form, INFLECTED) for word in asked for form in forms_of(word, language)]
    found += [(word, other, SPELLED) for word in asked for other in spellings(word, language)]
    found += [(word, other, SYNONYM) for word in asked for other in synonyms(word, language)]
    return {
        "asked": [word for word, _, _ in found],
        "others": [other for _, other, _ in found],
        "sure": [sure for _, _, sure in found],
    }


def name_config(query: str) -> str:
    """The text-search configuration of a question's language."""
    return CONFIGS[language_of(query)]


def lexical(query: str) -> str:
    """What of a question is looked for by its words.

    The configuration drops the function words of its language. Where the content is in another one, those of the
    question would count as rare words; English ones are left to it.
    """
    language = language_of(query)
    if CONFIGS[language] == "simple":
        return " ".join(content_words(query, language))
    if language == "en":
        return spread_unspaced(fold(query))
    # Between spaces, because a path or an address must stay whole: the index knows it as one word.
    kept = [word for word in fold(query).split() if word.strip(_PUNCTUATION) not in FUNCTION_WORDS[language]]
    return spread_unspaced(" ".join(kept) or fold(query))
