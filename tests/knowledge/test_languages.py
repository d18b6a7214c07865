"""Content of any of these languages is found and quoted, whatever words a question has for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from sqlalchemy import text

from agent_server.db import Database
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.parse import read_folder
from agent_server.knowledge.passages import CitedPassage, Passage
from agent_server.knowledge.rarity import count_words
from agent_server.knowledge.search import search
from agent_server.knowledge.words import content_words, language_of
from agent_server.offline.quote import select
from tests.conftest import everything
from tests.knowledge.conftest import Write

GERMAN = {
    "anzug.md": "# Trockenanzug\n\nEin Trockenanzug hält das Wasser draußen. Spüle ihn nach jedem Tauchgang mit Süßwasser "
    "und hänge ihn im Schatten auf.",
    "fliegen.md": "# Fliegen nach dem Tauchen\n\nWarte nach einem Tauchgang zwölf Stunden, bevor du in ein Flugzeug steigst. "
    "Nach mehreren Tauchgängen sind es achtzehn Stunden.",
    "flasche.md": "# Pressluftflasche\n\nDie Flasche wird alle zweieinhalb Jahre geprüft. Das Flaschenventil wird dabei zerlegt "
    "und gereinigt.",
    "stopp.md": "# Sicherheitsstopp\n\nBleibe am Ende drei Minuten auf fünf Metern Tiefe. Dabei gibt der Körper Stickstoff ab.",
    "maske.md": "# Maske\n\nEine neue Maske beschlägt, bis ihr Glas mit Zahnpasta geputzt ist. Danach genügt etwas Spucke.",
}
SPANISH = {
    "volar.md": "# Volar después de bucear\n\nEspera doce horas después de una inmersión antes de subir a un avión. Después de "
    "varias inmersiones son dieciocho horas.",
    "mascara.md": "# Máscara\n\nUna máscara nueva se empaña hasta que se limpia el cristal con pasta de dientes.",
    "botella.md": "# Botella\n\nLa botella se revisa cada cinco años. La válvula se desmonta y se limpia.",
    "traje.md": "# Traje seco\n\nEl traje seco mantiene el agua fuera. Enjuágalo con agua dulce y cuélgalo a la sombra.",
    "parada.md": "# Parada de seguridad\n\nQuédate tres minutos a cinco metros antes de salir a la superficie.",
}
FRENCH = {
    "avion.md": "# Prendre l'avion après une plongée\n\nAttendez douze heures après une plongée avant de monter dans un avion. "
    "Après plusieurs plongées, il faut dix-huit heures.",
    "masque.md": "# Masque\n\nUn masque neuf s'embue tant que son verre n'est pas nettoyé avec du dentifrice.",
    "bouteille.md": "# Bouteille\n\nLa bouteille est contrôlée tous les cinq ans. Le robinet est démonté et nettoyé.",
    "combinaison.md": "# Combinaison étanche\n\nLa combinaison étanche garde l'eau dehors. Rincez-la à l'eau douce et "
    "suspendez-la à l'ombre.",
    "palier.md": "# Palier de sécurité\n\nRestez trois minutes à cinq mètres avant de remonter à la surface.",
}
CHINESE = {
    "fly.md": "# 潜水后乘飞机\n\n单次潜水后至少等待十二小时才能乘坐飞机。多次潜水后需要等待十八小时。",
    "mask.md": "# 面镜\n\n新面镜容易起雾,先用牙膏清洁镜片。之后下水前涂一点唾液就够了。",
    "tank.md": "# 气瓶\n\n气瓶每五年检查一次。检查时会拆开并清洗阀门。",
    "suit.md": "# 干式潜水服\n\n干衣可以把水挡在外面。每次使用后用淡水冲洗,挂在阴凉处晾干。",
    "stop.md": "# 安全停留\n\n上升到水面之前,在五米深处停留三分钟。",
}
JAPANESE = {
    "fly.md": "# 潜水後の飛行機\n\n一回の潜水の後は、飛行機に乗るまで十二時間待ちます。繰り返し潜水の後は十八時間です。",
    "mask.md": "# マスク\n\n新しいマスクは曇りやすいので、歯磨き粉でガラスを洗います。",
    "tank.md": "# タンク\n\nタンクは五年ごとに検査します。検査ではバルブを分解して洗浄します。",
    "suit.md": "# ドライスーツ\n\nドライスーツは水の侵入を防ぎます。使用後は真水ですすぎ、日陰に干します。",
    "stop.md": "# 安全停止\n\n浮上する前に、水深五メートルで三分間停止します。",
}
KOREAN = {
    "fly.md": "# 다이빙 후 비행\n\n다이빙을 한 번 한 뒤에는 비행기를 타기 전에 열두 시간을 기다립니다. 여러 번 한 뒤에는 열여덟 시간입니다.",
    "mask.md": "# 마스크\n\n새 마스크는 김이 잘 서리므로 치약으로 유리를 닦습니다.",
    "tank.md": "# 공기통\n\n공기통은 오 년마다 검사합니다. 검사할 때 밸브를 분해하고 청소합니다.",
    "suit.md": "# 드라이슈트\n\n드라이슈트는 물을 막아 줍니다. 사용한 뒤에는 민물로 헹구고 그늘에 말립니다.",
    "stop.md": "# 안전 정지\n\n수면으로 올라가기 전에 수심 오 미터에서 삼 분 동안 멈춥니다.",
}
# The words of each question are not in the order of the page, and most are in another form or another word.
ASKED: Sequence[tuple[str, Mapping[str, str], Sequence[tuple[str, str, str]]]] = [
    (
        "de",
        GERMAN,
        [
            ("Wann darf ich nach dem Tauchgang ins Flugzeug?", "fliegen.md", "zwölf Stunden"),
            ("Womit spüle ich den Anzug?", "anzug.md", "Süßwasser"),
            ("Wie oft muss man Flaschen prüfen?", "flasche.md", "alle zweieinhalb Jahre"),
            ("Wie viele Minuten dauert der Stopp?", "stopp.md", "drei Minuten"),
            ("Warum beschlagen neue Masken?", "maske.md", "Zahnpasta"),
        ],
    ),
    (
        "es",
        SPANISH,
        [
            ("¿Cuántas horas debo esperar para tomar un avión tras una inmersión?", "volar.md", "doce horas"),
            ("¿Por qué se empañan las máscaras nuevas?", "mascara.md", "pasta de dientes"),
            ("¿Cada cuántos años revisan las botellas?", "botella.md", "cinco años"),
            ("¿Cómo enjuago mi traje seco?", "traje.md", "agua dulce"),
            ("¿Cuántos minutos dura la parada de seguridad?", "parada.md", "tres minutos"),
        ],
    ),
    (
        "fr",
        FRENCH,
        [
            ("Combien d'heures attendre avant de prendre l'avion ?", "avion.md", "douze heures"),
            ("Pourquoi mes masques neufs s'embuent-ils ?", "masque.md", "dentifrice"),
            ("Quand contrôle-t-on les bouteilles ?", "bouteille.md", "cinq ans"),
            ("Comment rincer ma combinaison étanche ?", "combinaison.md", "eau douce"),
            ("Combien de minutes dure le palier de sécurité ?", "palier.md", "trois minutes"),
        ],
    ),
    (
        "zh",
        CHINESE,
        [
            ("潜水之后多久可以坐飞机?", "fly.md", "十二小时"),
            ("为什么我的新面镜会起雾?", "mask.md", "牙膏"),
            ("气瓶多长时间需要检查?", "tank.md", "五年"),
            ("干衣怎么洗?", "suit.md", "淡水"),
            ("安全停留是几分钟?", "stop.md", "三分钟"),
        ],
    ),
    (
        "ja",
        JAPANESE,
        [
            ("潜水したら飛行機に何時間乗れませんか?", "fly.md", "十二時間"),
            ("新しいマスクが曇るのはなぜですか?", "mask.md", "歯磨き粉"),
            ("タンクの検査はいつですか?", "tank.md", "五年ごと"),
            ("ドライスーツの手入れはどうすればいいですか?", "suit.md", "真水"),
            ("安全停止は何分ですか?", "stop.md", "三分間"),
        ],
    ),
    (
        "ko",
        KOREAN,
        [
            ("다이빙 후 비행기는 몇 시간 뒤에 탈 수 있나요?", "fly.md", "열두 시간"),
            ("새 마스크에 왜 김이 서리나요?", "mask.md", "치약"),
            ("공기통 검사는 언제 하나요?", "tank.md", "오 년마다"),
            ("드라이슈트를 어떻게 헹구나요?", "suit.md", "민물"),
            ("안전 정지는 몇 분 동안 하나요?", "stop.md", "삼 분"),
        ],
    ),
]


async def find(database: Database, embedder: Embedder, question: str, min_score: float = 0.0) -> list[Passage]:
    async with everything(database) as session:
        return await search(session, embedder, question, min_score=min_score)


async def answer(database: Database, embedder: Embedder, question: str) -> str:
    """What is quoted of the passages that a server with its default threshold is given."""
    found = await find(database, embedder, question, 0.25)
    async with everything(database) as session:
        rarity = await count_words(session, content_words(question, language_of(question)), language_of(question))
    cited = [CitedPassage(n, passage) for n, passage in enumerate(found, 1)]
    quoted = await select(question, cited, embedder, rarity=rarity)
    return quoted.text if quoted else ""


@pytest.mark.parametrize(("language", "pages", "asked"), [pytest.param(*row, id=row[0]) for row in ASKED])
async def test_the_right_page_comes_first_and_is_quoted(
    write: Write,
    content: Path,
    database: Database,
    embedder: Embedder,
    language: str,
    pages: Mapping[str, str],
    asked: Sequence[tuple[str, str, str]],
) -> None:
    for path, page in pages.items():
        write(path, page)
    await ingest(database, embedder, content)
    assert {page.language for page in read_folder(content).pages} == {language}
    first = {question: (await find(database, embedder, question))[0].document for question, _, _ in asked}
    assert first == {question: page for question, page, _ in asked}
    quoted = {question: fact in await answer(database, embedder, question) for question, _, fact in asked}
    assert quoted == {question: True for question, _, _ in asked}


async def test_a_compound_is_found_by_its_parts_and_by_a_compound_that_has_one_of_them(
    write: Write, content: Path, database: Database, embedder: Embedder
) -> None:
    for path, page in GERMAN.items():
        write(path, page)
    write(
        "ventil.md",
        "# Ventil\n\nDas Ventil schließt im Uhrzeigersinn. Anzug und Flasche liegen daneben, alles ist trocken.",
    )
    await ingest(database, embedder, content)

    async def first(question: str) -> list[str]:
        return [hit.document for hit in await find(database, embedder, question)][:2]

    assert "flasche.md" in await first("Ventil gereinigt?")
    assert (await first("Anzüge spülen"))[0] == "anzug.md"
    assert (await first("Stoppzeit am Ende"))[0] == "stopp.md"
    async with everything(database) as session:
        parts = await session.execute(text("select lexeme, part from compound order by 1, 2"))
        found = {tuple(row) for row in parts}
    assert {("flaschenventil", "flasch"), ("flaschenventil", "ventil"), ("trockenanzug", "anzug")} <= found


async def test_the_language_of_front_matter_wins_over_that_of_the_collection_over_that_of_the_text(
    write: Write, content: Path
) -> None:
    write("law/collection.yaml", "language: de-AT\n")
    write("law/a.md", "# One\n\nThe rule of the house is that it is quiet.")
    write("law/b.md", "---\nlanguage: fr\n---\n# Two\n\nThe rule of the house.")
    write("other/c.md", "# Three\n\nThe rule of the house.")
    assert {page.path: page.language for page in read_folder(content).pages} == {
        "law/a.md": "de",
        "law/b.md": "fr",
        "other/c.md": "en",
    }


async def test_a_language_that_there_is_not_is_a_mistake(write: Write, content: Path) -> None:
    write("a.md", "---\nlanguage: tlh\n---\n# A\n\nText.")
    write("law/collection.yaml", "language: xx\nname: Law\n")
    write("law/b.md", "# B\n\nThe text is here.")
    reading = read_folder(content)
    assert [str(mistake).partition(";")[0] for mistake in reading.mistakes] == [
        "content/law/collection.yaml: name: is no key of a collection",
        "content/law/collection.yaml: language: there is no language 'xx'",
        "content/a.md:2: language: there is no language 'tlh'",
    ]
    assert [page.path for page in reading.pages] == ["law/b.md"]


async def test_a_page_is_stemmed_anew_when_its_collection_changes_its_language(
    write: Write, content: Path, database: Database, embedder: Embedder
) -> None:
    write("law/a.md", "# Regeln\n\nFahrten, Häuser.")

    async def lexemes() -> set[str]:
        await ingest(database, embedder, content)
        async with everything(database) as session:
            return set((await session.execute(text("select lexeme from term"))).scalars())

    assert "fahrt" not in await lexemes()
    write("law/collection.yaml", "language: de\n")
    assert {"fahrt", "haus"} <= await lexemes()


async def test_names_in_code_are_found_by_their_parts_and_names_in_prose_are_not(
    write: Write, content: Path, database: Database, embedder: Embedder
) -> None:
    write("a.md", "# Settings\n\n```python\nmaxLoanDays = 20\nHTTPServer2.start()\n```\n")
    write("b.md", "# Brands\n\nThe company YouTube is American.")
    await ingest(database, embedder, content)
    async with everything(database) as session:
        found = set((await session.execute(text("select lexeme from term"))).scalars())
    assert {"maxloanday", "loan", "day", "http", "server"} <= found
    assert "youtub" in found and "tube" not in found


@pytest.mark.parametrize(
    "question", ["regulater servicing", "reglator servicing", "regualtor servicing", "regullator servicing"]
)
async def test_one_wrong_letter_does_not_lose_the_page(
    write: Write, content: Path, database: Database, embedder: Embedder, question: str
) -> None:
    write("a.md", "# Regulator\n\nA regulator is taken apart once a year.")
    write("b.md", "# Servicing a computer\n\nServicing takes a week; servicing costs ten euros.")
    write("c.md", "# Masks\n\nA mask needs no servicing.")
    await ingest(database, embedder, content)
    best = {hit.document: hit.score for hit in await find(database, embedder, question)}
    plain = {hit.document: hit.score for hit in await find(database, embedder, "zzzzzzz servicing")}
    assert best["a.md"] > plain["a.md"] + 0.3
