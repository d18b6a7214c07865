"""Everyday words that stand for one another: people ask in other words than a page is written in.

The groups are of general language. A subject's own terms do not belong here.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from agent_server.knowledge.words import stem_in

MOST = 12
"""So many other words are looked for at most for one that is asked."""

_GROUPS = {
    "en": """
        holiday vacation leave; wage salary pay income earnings; pay paid compensation compensate remunerate;
        pay reimburse refund reimbursement; earn wage salary pay; kid child children son daughter;
        baby child newborn birth; boss manager lead supervisor superior; staff employee worker personnel;
        colleague coworker teammate; job work employment position; quit resign leave notice terminate;
        fire dismiss terminate dismissal; hire recruit employ recruiting recruitment;
        sick ill illness sickness unwell disease; flu ill sick cold; doctor physician medical;
        doctor appointment dentist; hurt injured injury wound accident; hurt pain ache; certificate note attest;
        pregnant pregnancy expectant maternity; father parent dad; mother parent mum mom;
        wife husband spouse partner; girlfriend boyfriend partner couple; phone telephone mobile;
        laptop notebook computer; computer machine device pc; wifi wlan wireless network; password passphrase pin;
        login signin log sign authentication authenticate; account profile; mail email message;
        website site webpage; page document; article post; address url link; picture image photo photograph;
        film movie video; sound noise audio; folder directory; file document; symlink symbolic link;
        setting option configuration parameter; set configure adjust; settings preferences configuration config;
        change alter modify edit; change replace exchange swap; rename name; delete remove erase clear discard;
        uninstall remove delete; undo revert restore; restore recover recovery; install setup set;
        start begin launch run; stop end halt cancel abort; abort interrupt cancel; pause suspend break;
        restart reload reboot; reload refresh; repeat again retry; retry attempt; crash fail failure error;
        fail failure wrong error; broken defective damaged corrupt; fix repair solve mend; problem issue trouble;
        error exception failure; warn warning alert; check verify test validate; test try trial; find locate search;
        search look lookup; show display view list; see show display view; preview dry; hide invisible conceal;
        show shown visible; copy duplicate; move transfer relocate; send submit transmit post; send deliver ship;
        get receive obtain fetch; download fetch; upload send; publish release post; share together;
        save store keep; store storage keep; split divide separate; join combine merge connect; connect link attach;
        add insert append include; put place insert; create make build generate; write compose author; draw sketch;
        speed fast quick rapid; quick fast rapid; slow limit throttle; limit restrict maximum cap; limit threshold;
        least minimum smallest; most maximum highest largest; highest maximum most; smallest minimum shortest;
        shortest minimum smallest; big large size; size dimension measurement; small little tiny;
        long length duration; deep depth; high height; wide width; thick thickness; heavy weight; far distance;
        hot heat temperature warm; cold temperature cool; cost price fee charge; expensive cost price;
        cheap discount price; free gratis charge; buy purchase order; sell sale sold commercial;
        rent hire lease rental; borrow lend loan; money cash fund; gift present; bill invoice receipt; tax taxation;
        allow permit permission may; allowed permitted permission; forbidden prohibited banned not;
        forbid prohibit ban; rule regulation policy; law legal statute; must required mandatory obligatory;
        need require necessary requirement; mandatory required compulsory; optional voluntary; volunteer voluntary;
        apply application request; request ask apply; answer reply respond response; ask question;
        complain complaint; anonymous anonymously name; disagree objection appeal; agree consent agreement;
        contract agreement; sign signature; meet meeting gather; meeting appointment;
        talk conversation speak interview; tell inform notify report; inform notify notification;
        announce notify tell; deadline until due; date day; daily day; weekly week; monthly month;
        yearly annual year; annual yearly year; early before; late delay; delay wait postpone;
        schedule plan timetable; plan planning; travel trip journey; trip travel journey; fly flight plane;
        plane aeroplane airplane flight; car vehicle drive; bike bicycle cycle; train railway rail; home house;
        abroad foreign country; guest visitor; participant attendee people; customer client; user visitor;
        person people; newcomer beginner new; beginner novice start; old age; age years; young child;
        retire retirement pension; dog animal pet; pet animal; food meal eat; eat food meal; drink beverage;
        lunch meal; beer alcohol wine; cook prepare; bake oven; mix stir combine; cut chop slice;
        clothes garment clothing; fabric cloth material; material fabric; stitch sew sewing; glue stick paste;
        piece part; tool equipment instrument; gear equipment; equipment supplies; ingredient supplies;
        need needs supplies; lamp light torch; battery charge power; power electricity; burn fire;
        danger hazard risk; danger dangerous unsafe; safe safety secure; secure security safe;
        protect protection guard; protective protection; steal stolen theft; lose lost loss; lost missing;
        forget forgot forgotten; emergency urgent; rescue save help; help support assistance;
        guide instruction tutorial; teach training instruct; learn training course; course training class;
        lesson course class; skill ability; exam examination test; review evaluation feedback; feedback comment;
        opinion view; benefit perk advantage; advantage benefit pro; drawback disadvantage;
        difference differ distinguish; same equal identical; similar like alike; best recommended optimal;
        recommend advise recommendation; should recommended; choose select pick; pick select choose; kind type sort;
        type kind; way method manner; method technique; step stage phase; procedure process step; idea suggestion;
        goal aim objective; reason cause why; happen occur; work function operate; use apply employ;
        disable off deactivate; enable on activate turn; switch turn; wrap around; several multiple many;
        multiple several many; every each all; whole complete entire all; complete finish; done finished complete;
        finished ready complete; empty blank; full complete; inside within; outside beyond; top upper; bottom lower;
        front forward; back rear; left side; shared common joint; own personal private; private personal;
        secret confidential; encryption encrypt cipher; encode encrypt; variable environment;
        argument parameter flag; flag option switch; command instruction; program software application;
        app application program; version release; update upgrade; upgrade update version; new latest; newest latest;
        default standard; normal usual standard; example sample; language locale translation; translate translation;
        database db; backup copy; history log; log record journal; entry record item; row line;
        table spreadsheet csv; spreadsheet table csv; list items; group team; team group department;
        company business organization; organization company institution; government federal public; town city;
        street road; building house premises; office workplace; room space; desk table; disk drive storage;
        space room storage; reward bonus prize; bonus reward; extra additional; additional extra more;
        replace substitute; substitute replace instead; alternative instead; avoid prevent; prevent avoid stop;
        reduce lower decrease; increase raise grow; raise increase; grow increase; shrink reduce smaller;
        count number; number amount; amount quantity; half two; double twice; once one; lawyer attorney counsel;
        owner own belong; belong own; probation trial; harass insult harassment; reach contact; contact reach;
        guarantee warranty; valid validity; expire expiry valid; cancel cancellation revoke; return back;
        wear clothing; dress clothing clothes; weekend saturday sunday; timeout time; slash character;
        sign character symbol; newspaper news; shop store; shopping needs buy; mobile phone; headline heading title;
        title name; call name; dark night; night dark evening; consist contain include comprise; contain include consist;
        symptom sign; sign symptom indication; learn teach taught; teach learn; tread step; step tread; trod step stepped;
        travel reach journey trip; journey trip travel; rise ascend climb; ascend rise climb; descend sink lower;
        forbidden prohibited banned; ban forbid prohibit; permitted allowed; hazard danger risk; danger hazard risk;
        benefit advantage perk; perk benefit; reward bonus; bonus reward; borrow loan lend; lend loan borrow; rent hire lease;
        purchase buy; sell sale; arrive arrival; depart departure; begin beginning; finish end complete; empty clear
    """,
    "de": """
        urlaub ferien; lohn gehalt vergütung verdienst; kind kinder; chef vorgesetzter leitung;
        mitarbeiter beschäftigte arbeitnehmer angestellte; kündigen kündigung; kündigungsfrist frist;
        krank krankheit arbeitsunfähig; arzt ärztlich; handy telefon mobiltelefon smartphone; rechner computer;
        auto fahrzeug kraftfahrzeug wagen; wohnung wohnraum mietwohnung; miete mietzins; mieter mietvertrag;
        vermieter mietvertrag; passwort kennwort; bild foto; apps app anwendung; webseite website internetseite;
        adresse anschrift url; ordner verzeichnis; löschen entfernen; ändern anpassen; anfangen beginnen starten;
        aufhören beenden; zeigen anzeigen; kaufen erwerben kauf; verkaufen verkauf; kosten preis gebühr;
        teuer preis kosten; gratis kostenlos kostenfrei umsonst; nichts kostenlos kostenfrei; geld betrag zahlung;
        bezahlen zahlen zahlung; erlaubt zulässig dürfen; verboten unzulässig untersagt; verbot verboten untersagt;
        pflicht verpflichtet müssen; recht anspruch; anspruch recht; brauchen benötigen erforderlich;
        notwendig erforderlich nötig; schaden schadensersatz; strafe bußgeld freiheitsstrafe; vertrag vereinbarung;
        brief schreiben schriftlich; schriftlich schriftform; antrag beantragen; zurückgeben rückgabe zurück;
        kaputt defekt mangel; fehler mangel; garantie gewährleistung; jung minderjährig jugendliche;
        minderjährig jugendliche; heiraten ehe; scheidung ehe; erben erbe nachlass; testament erbe;
        frist dauer zeitraum; dauer lang länge; groß größe; zimmer raum; prüfen testen kontrollieren;
        aufnehmen aufnahme; bearbeiten bearbeitung; schritt arbeitsschritt ablauf; gleichzeitig parallel;
        unterschied unterscheiden; fliegen flug flugzeug; tauchen tauchgang; essen mahlzeit; kochen garen;
        bauen baute errichten errichtet gebaut erbaut; gründen gründung gegründet; erfinden erfunden erfinder entwickeln;
        geld bezahlen; bezahlen preis kosten; kosten zahlen bezahlen; kredit darlehen leihen lieh; leihen ausleihe verleih;
        erstatten erstattung zurück rückzahlung; rückzahlung erstatten zurück; verspätung spät verspätet; spät verspätung;
        strafe gebühr zahlen; bekommen erhalten kriegen; erhalten bekommen; besorgen kaufen holen; behalten aufbewahren;
        gewinnen sieg gewonnen siegen; siegen gewinnen gewann sieger; verlieren verlust; fressen essen verbrauchen;
        trinken getränk; schlafen übernachten; wohnen leben unterkunft; sterben tod gestorben starb; geburt geboren;
        retten rettung gerettet; gefahr gefährlich risiko; schützen schutz; warnen warnung; erlauben erlaubnis;
        messen gemessen misst messung; wiegen gewicht schwer; hitze heiß temperatur grad; kälte kalt temperatur grad;
        wärme warm temperatur grad; temperatur grad heiß kalt; tiefe tief; höhe hoch; länge lang; breite breit; dicke dick;
        alter alt jahre; größe groß; entfernung weit reichweite; schnell geschwindigkeit tempo; langsam geschwindigkeit;
        häufig oft; täglich tag; wöchentlich woche; monatlich monat; jährlich jahr; morgen früh; abend nacht;
        vortag tag davor; gestern vortag; uhrzeit uhr zeit öffnungszeit; offen öffnen geöffnet; geschlossen schließen zu;
        schließen geschlossen beenden; mitnehmen mitbringen mitnahme; reise fahrt reisen; fahren fahrt fahrzeug;
        boot schiff fähre; schiff boot fähre; zug bahn eisenbahn; bahn zug; ankunft ankommen; abfahrt abfahren start;
        tür eingang; eingang tür zugang; gebäude haus bau; haus gebäude; raum zimmer saal; dorf ort gemeinde; stadt ort;
        tier haustier hund; haustier tier hund katze; mensch person leute; gast besucher; besucher gast;
        kunde käufer; käufer kunde; verkäufer händler; händler kaufmann verkäufer; lehrer trainer; schüler kinder;
        erwachsene große; herstellen erzeugen produzieren; erzeugen herstellen liefern produzieren; liefern lieferung senden;
        senden schicken versenden; schicken senden; anmelden anmeldung registrieren; abmelden abmeldung;
        reparieren reparatur beheben; ersetzen austauschen ersatz; nutzen benutzen verwenden; verwenden nutzen benutzen;
        suchen finden suche; sehen sichtbar; hören geräusch ton; lesen lesung; sprechen reden; fragen frage;
        antworten antwort; beschweren beschwerde; helfen hilfe; lernen kurs unterricht; kurs schulung unterricht;
        werkzeug gerät; gerät werkzeug maschine; anleitung anweisung; beginn anfang start; ende schluss;
        grund ursache; ursache grund; ergebnis folge; folge ergebnis; vorteil nutzen; nachteil schaden;
        überschwemmung überfluten hochwasser; feuer brand; brand feuer; regen niederschlag; sturm wind; kleidung anziehen
    """,
    "es": """
        borrar eliminar quitar; cambiar modificar; crear hacer; mostrar ver; archivo fichero; carpeta directorio;
        contraseña clave; página sitio; correo email; error fallo excepción; ejecutar correr lanzar;
        empezar iniciar comenzar; parar detener; enviar mandar; recibir obtener; guardar almacenar;
        probar prueba test; comprobar verificar validar; obligatorio requerido necesario; opcional voluntario;
        precio coste costo; rápido velocidad; lista listado; ordenador computadora; usuario cliente;
        respuesta contestación; pregunta consulta; añadir agregar; permitir permitido; ajuste configuración opción;
        construir construyó construido edificar levantar levantó; fundar fundación; inventar inventor desarrollar;
        proyectar diseñar constructor; diseñar proyectar; dinero pago; pagar pago precio; pago pagar; cuesta precio pagar costo;
        costar precio pagar; vale cuesta precio; caro precio; barato precio económico; gratis gratuito; gratuito gratis;
        préstamo prestar crédito; prestar préstamo; devolver devolución reembolso; reembolso devolver devolución;
        importe dinero cantidad; multa sanción pagar; sanción multa; retraso tarde retrasar; tarde retraso; llevar transportar;
        comprar compra adquirir; vender venta; ganar vencer victoria; vencer ganar; perder pérdida; comer comida alimento;
        beber bebida; dormir alojamiento; vivir vida vive; morir muerte murió; nacer nacimiento; salvar rescate rescatar;
        rescatar salvar rescate; peligro riesgo; riesgo peligro; proteger protección; avisar aviso advertir; advertir avisar;
        medir medida; pesar peso; calor caliente temperatura grados; frío temperatura hielo; temperatura calor frío grados;
        profundidad profundo; altura alto altitud; longitud largo kilómetros metros; anchura ancho; grosor espesor grueso;
        espesor grosor; edad años; tamaño grande; distancia lejos alcance; velocidad rápido; a menudo frecuencia; diario día;
        semanal semana; mensual mes; anual año; víspera anterior día; anterior víspera; horario hora; abierto abrir;
        cerrado cerrar; cerrar cerrado; viaje viajar trayecto; viajar viaje; coche automóvil vehículo; automóvil coche vehículo;
        barco buque nave; buque barco; tren ferrocarril; llegada llegar; salida salir; puerta entrada; entrada puerta acceso;
        edificio casa; casa vivienda; vivienda casa piso; sala habitación; habitación cuarto sala; pueblo aldea; aldea pueblo;
        ciudad municipio; animal mascota perro; mascota animal perro gato; visitante huésped; huésped visitante; cliente comprador;
        vendedor comerciante; comerciante vendedor; profesor maestro; alumno estudiante; adulto mayor; mayor adulto; niño menor;
        producir productor fabricar; fabricar producir; entregar entrega; inscribirse inscripción registrar; registrar registro;
        reparar reparación arreglar; arreglar reparar; sustituir reemplazar; reemplazar sustituir; usar utilizar uso;
        utilizar usar uso; buscar encontrar; oír sonido; leer lectura; hablar conversación; ayuda ayudar; aprender curso clase;
        curso clase formación; herramienta aparato; aparato máquina; comienzo inicio; fin final; causa motivo; motivo causa razón;
        razón motivo; resultado consecuencia; inundación inundar; fuego incendio; incendio fuego; lluvia precipitación;
        tormenta temporal viento; ropa vestir; vacaciones permiso; salario sueldo paga; sueldo salario; hijo niño; jefe superior;
        empleado trabajador; trabajador empleado; trabajo empleo; despedir despido; enfermo enfermedad baja; médico doctor;
        teléfono móvil; permitido puede autorizado; prohibido no; prohibir prohibido; necesitar necesario; contrato acuerdo;
        distinto diferente; diferente distinto; foto imagen; imagen foto; adulto mayores
    """,
    "fr": """
        supprimer effacer enlever; changer modifier; créer faire; afficher montrer voir; fichier document;
        dossier répertoire; erreur échec; lancer exécuter démarrer; arrêter stopper; envoyer transmettre;
        enregistrer sauvegarder; vérifier tester valider; obligatoire requis nécessaire; prix coût tarif;
        vacances congé; salaire paie rémunération; malade maladie; voiture véhicule; ordinateur machine;
        ajouter insérer; permis autorisé; réglage configuration option;
        construire construit bâtir bâti constructeur; bâtir construire; fonder fondation; inventer inventeur; concevoir constructeur;
        argent paiement somme; payer paiement prix; coûte prix payer; coûter prix payer; cher prix; gratuit gratuitement;
        gratuitement gratuit; prêt prêter prêté emprunt crédit; emprunter prêt garder; rembourser remboursé remboursement récupérer;
        remboursement rembourser récupérer; amende payer sanction; sanction amende; retard tard; tard retard; transport transporter;
        acheter achat; vendre vente; gagner gagné emporter victoire; vaincre gagner; perdre perte; manger nourriture repas consommer;
        boire boisson; dormir hébergement; vivre vie; mourir mort; naître naissance; sauver sauvé secours évacuer; secours sauver;
        danger risque; risque danger; protéger protection; avertir alerte prévenir; prévenir avertir; mesurer mesure; peser poids;
        chaleur chaud température degrés; froid gel température degrés hiver; température degrés chaud froid; profondeur profond;
        hauteur haut altitude; longueur long kilomètres mètres; largeur large; épaisseur épais; âge ans; taille grand;
        distance loin portée; vitesse rapide; souvent fréquence; quotidien jour; hebdomadaire semaine; mensuel mois; annuel an année;
        veille jour avant; horaire heure; ouvert ouvrir; fermé fermer; fermer fermé; voyage trajet voyager; trajet voyage;
        auto voiture véhicule; véhicule voiture; bateau navire bac; navire bateau; train chemin; arrivée arriver; départ partir;
        partir départ voyage; porte entrée; entrée porte accès; bâtiment maison immeuble; maison bâtiment logement; salle pièce;
        village commune; ville commune; animal chien chat; chien animal; visiteur hôte; client acheteur; vendeur marchand;
        marchand vendeur; professeur maître; élève étudiant; adulte grand; enfant mineur; produire producteur fabriquer;
        fabriquer produire; livrer livraison; inscrire inscription; réparer réparation; remplacer échanger; utiliser usage servir;
        chercher trouver; entendre bruit sonner; lire lecture; parler conversation; aide aider; apprendre cours formation;
        cours formation; outil appareil; appareil machine; début commencement; fin terme; cause raison; raison cause motif;
        résultat conséquence; inondation inonder; feu incendie; incendie feu; pluie précipitations; tempête vent; vêtement habits;
        douce doux; doux douce; employé travailleur; travail emploi; licencier licenciement; médecin docteur; téléphone portable;
        interdit interdire; permis peut; nécessaire falloir besoin; contrat accord; différent autre ressemble; photo image;
        image photo; mot mots terme; adresse url; page site; site page
    """,
}


@lru_cache(maxsize=8)
def _groups(language: str) -> dict[str, tuple[str, ...]]:
    """For each stem of a language the words that stand for it."""
    found: dict[str, dict[str, None]] = {}
    for group in _lines(language):
        for word in group:
            others = [other for other in group if other != word]
            found.setdefault(stem_in(word, language), {}).update(dict.fromkeys(others))
    return {stem: tuple(others)[:MOST] for stem, others in found.items()}


def _lines(language: str) -> Iterator[Sequence[str]]:
    return (group.split() for group in _GROUPS.get(language, "").split(";"))


# American and British, each way. What comes out may be no word: it is looked for in the content and not found.
_SPELLINGS = tuple(
    (re.compile(pattern), other)
    for pattern, other in (
        (r"iz(?=(?:e[drs]?|ers|ing|able|ations?)$)", "is"),
        (r"is(?=(?:e[drs]?|ers|ing|able|ations?)$)", "iz"),
        (r"yz(?=(?:e[drs]?|ers|ing)$)", "ys"),
        (r"ys(?=(?:e[drs]?|ers|ing)$)", "yz"),
        (r"our(?=(?:s|ed|ing|ful|less|able|hood|ite|al)?$)", "or"),
        (r"or(?=(?:s|ed|ing|ful|less|able|hood|ite|al)?$)", "our"),
        (r"(?<=[bt])re(?=s?$)", "er"),
        (r"(?<=[bt])er(?=s?$)", "re"),
        (r"(?<=en)c(?=es?$)", "s"),
        (r"(?<=en)s(?=es?$)", "c"),
        (r"ogue(?=s?$)", "og"),
        (r"og(?=s?$)", "ogue"),
        (r"ll(?=(?:ed|ing|ers?)$)", "l"),
        (r"(?<!l)l(?=(?:ed|ing|ers?)$)", "ll"),
        (r"mme(?=s?$)", "m"),
        (r"(?<=gra)m(?=s?$)", "mme"),
    )
)
_SHORTEST_SPELLED = 5


def spellings(word: str, language: str) -> Sequence[str]:
    """How else an English word is spelled across the Atlantic: equalize, equalise."""
    if language != "en" or len(word) < _SHORTEST_SPELLED or not word.isalpha():
        return ()
    return [pattern.sub(other, word) for pattern, other in _SPELLINGS if pattern.search(word)]


def synonyms(word: str, language: str) -> Sequence[str]:
    """The words that may stand for a word, none where there are none."""
    return _groups(language).get(stem_in(word, language), ())
