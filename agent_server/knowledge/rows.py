"""The statements that an ingest writes with. Each is about many rows."""

from sqlalchemy import text

# All rows are one JSON parameter: a batch can have more values than the 32,767 parameters of one statement.
# On a conflict the row is updated and not replaced: a document keeps its id when its text changes.
DOCUMENTS = text("""
    insert into document (owner_id, id, path, collection, title, description, language, urgent, tags, text, sha,
                          created_at, updated_at)
    select :owner_id, r.id, r.path, r.collection, r.title, r.description, r.language, r.urgent, r.tags, r.text, r.sha, now(), now()
    from jsonb_to_recordset(cast(:rows as jsonb)) as r(id uuid, path text, collection text, title text,
         description text, language text, urgent text[], tags text[], text text, sha text)
    on conflict (owner_id, path) do update set collection = excluded.collection, title = excluded.title,
        description = excluded.description, language = excluded.language, urgent = excluded.urgent, tags = excluded.tags, text = excluded.text,
        sha = excluded.sha, updated_at = excluded.updated_at""")

# - A word of `about` counts twice, one of `words` once. `materialized`, or each text would be parsed twice.
# - The spaces are looked up: what a collection is searched by may have changed while the batch was embedded.
# - A passage that has no vector of the space it is searched in is made one by `renew`, which `wanted` asks for.
CHUNKS = text("""
    with r as materialized (
        select * from jsonb_to_recordset(cast(:rows as jsonb)) as r(id uuid, document_id uuid, ordinal int, passage text,
            collection text, heading text, text text, start int, "end" int, config regconfig, about text, words text,
            space int, emb text)),
    read as materialized (
        select r.id, r.collection, setweight(to_tsvector(r.config, r.about), 'A')
                                || setweight(to_tsvector(r.config, r.words), 'D') as tsv from r),
    chunks as (
        insert into chunk (owner_id, id, document_id, ordinal, passage, collection, heading, text, start_offset, end_offset, tsv)
        select :owner_id, r.id, r.document_id, r.ordinal, r.passage, r.collection, r.heading, r.text, r.start, r."end", read.tsv
        from r join read using (id)),
    words as (
        insert into passage_words (owner_id, chunk_id, collection, words, lex)
        select :owner_id, id, collection, lexwords(tsv), lexvec(tsv, cast(:pivot as real)) from read),
    vectors as (
        insert into passage_vector (owner_id, space, chunk_id, collection, emb)
        select s.owner_id, r.space, r.id, r.collection, cast(r.emb as halfvec)
        from r join collection_space s on s.owner_id = :owner_id and s.collection = r.collection
            and r.space in (s.space, s.wanted))
    update collection_space s set wanted = s.space, wanted_weight = s.weight
    where s.owner_id = :owner_id and s.wanted is null
      and exists (select from r where r.collection = s.collection and r.space is distinct from s.space)""")

# `materialized`, because the rows are read twice.
_COUNT = """
    with counted as materialized (
        select tsv from chunk where owner_id = :owner_id and document_id = any(cast(:ids as uuid[]))),
    sized as (
        insert into corpus (owner_id, n_chunks, pivot)
        select cast(:owner_id as uuid), {sign} count(*), :pivot from counted
        on conflict (owner_id) do update set n_chunks = corpus.n_chunks + excluded.n_chunks, stale = true)
    insert into term (owner_id, lexeme, n)
    select cast(:owner_id as uuid), lexeme, {sign} count(*)
    from counted cross join unnest(tsvector_to_array(tsv)) lexeme group by lexeme
    on conflict (owner_id, lexeme) do update set n = term.n + excluded.n"""
COUNT_IN, COUNT_OUT = text(_COUNT.format(sign="+")), text(_COUNT.format(sign="-"))

FORGET_CHUNKS = text("""
    with gone as (
        delete from chunk where owner_id = :owner_id and document_id = any(cast(:ids as uuid[]))
        returning collection, id),
    words as (
        delete from passage_words where owner_id = :owner_id and chunk_id in (select id from gone))
    delete from passage_vector v using gone where v.owner_id = :owner_id and v.space = any(cast(:spaces as int[]))
        and v.collection = gone.collection and v.chunk_id = gone.id""")
FORGET_TERMS = text("delete from term where owner_id = :owner_id and n = 0")
FORGET_DOCUMENTS = text("delete from document where owner_id = :owner_id and id = any(cast(:ids as uuid[]))")
