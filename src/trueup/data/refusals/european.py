"""The parts of German, Spanish, French and Portuguese refusals, as expressions over one sentence in lower case.

Each language has the same parts as English: a subject with a negated verb of ability, will or permission, or with any
negated verb of doing; a judgement of the request; rules that forbid it; another topic.
"""

from __future__ import annotations

import re

from trueup.data.refusals.grammar import Grammar, declining, expression, flat

# --- German: the negation may stand far behind the verb ("Dazu gebe ich keine Auskunft.") ---
_DE_NOT = r"(?:nicht(?! nur)|keine?[nm]?|nie(?:mals)?|keinesfalls|unmöglich|nichts)"
_DE_CLAUSE = r"(?:, (?:ehrlich gesagt|leider|so leid es mir tut),)?[^.,;:!?]{0,90}?"
_DE_PERSONAL = flat(rf"""
    \b(?:(?:ich|wir) (?:\w+ ){{0,2}}?(?:kann|könn\w+|werde\w*|darf|dürf\w+|möcht\w+|will|woll\w+|soll\w*|mag)
    |(?:kann|könn\w+|werde\w*|darf|dürf\w+|möcht\w+|will|woll\w+|soll\w*|mag|würd\w+) (?:ich|wir)(?: und \w+ ich)?)\b
    {_DE_CLAUSE}\b{_DE_NOT}\b
    |\b(?:ich (?!habe|hab|glaub|denk|find|seh|fühl|versteh|kenn|brauch|ess|schlaf|erinner|hör|weiß|bin|wohn|war|hatte
    |wuss
    |spür|besitz|nehm|komm|konnt|sag|kann|könn|werd|darf|dürf|möcht|will|woll|soll|mag|würd)\w+e
    |(?!habe|hab|glaub|denk|find|seh|fühl|versteh|kenn|brauch|ess|schlaf|erinner|hör|weiß|wenn|ohne|keine|eine|meine
    |alle
    |heute|gerne|die|diese|welche|hätte|hatte|könn|werd|möcht|würd|sage|besitz|konnt|wusst)\w+e ich)\b
    {_DE_CLAUSE}\b(?:nicht(?! nur)|kein\w*|niemals|nichts)\b
    |\b(?:weshalb|weswegen|sodass|dass|da|weil|zu dem|zu der|worüber|was|die|den) ich (?:\w+ ){{0,4}}?(?:nicht
    |kein\w*) (?:\w+ ){{0,5}}(?!habe|weiß|bin)(?:\w+e|kann|darf|will|mag)\b
    |\b(?:mach|helf|sag|geb|schreib|tu|verrat|unterstütz) ich\b{_DE_CLAUSE}\b(?:nicht|kein\w*|nix)\b
""")
_DE_IDLE = flat(r"""
    [^.;:!?]{0,40}?\b(?:wissen|sehen|hören|fühlen|garantieren|versprechen|erkennen|finden|verstehen|glauben|erwarten
    |warten
    |schlafen|nachvollziehen|erinnern|vorhersagen|umhin|klagen|sicher sagen|genau sagen|riechen|schmecken|empfinden
    |überprüfen|zugreifen|abwarten|leugnen|bestätigen|ausschließen|sicher sein|vergessen|ersetzen|verhehlen)\b
    | (?:oft |nachdrücklich )?genug\b| (?:hundertprozentig|mit sicherheit|genau)\b
""")
_DE_OTHER = flat(rf"""
    \b(?:ich (?:bin|wurde)|(?:bin|wurde) ich) (?:\w+ )?(?:(?:nicht|kein\w*) (?:\w+ )?(?:in der lage|befugt|berechtigt
    |bereit
    |autorisiert
    |dafür|darauf|dazu|programmiert|qualifiziert|gewillt|imstande|fähig|ermächtigt|da(?=[.!]| für)|hier, um
    |der richtige)|außerstande)
    |\bes mir {_DE_CLAUSE}\b(?:nicht|untersagt|verboten|unmöglich)\b
    |\bmir (?:ist|war|wäre|wurde|fehlt)\b{_DE_CLAUSE}\b(?:nicht|untersagt|verboten|unmöglich|berechtigung|befugnis)\b
    |\bist (?:es )?mir\b{_DE_CLAUSE}\b(?:nicht|untersagt|verboten|unmöglich|leider)\b(?! bekannt)
    |\b(?:muss|werde|möchte|will|kann) ich (?:\w+ ){{0,4}}(?:ablehnen|passen|absagen|verweigern|absehen|enttäuschen)\b
    |\bich (?:muss|werde|möchte|will) (?:\w+ ){{0,6}}(?:ablehnen|passen|absagen|verweigern|absehen|enttäuschen
    |abraten)\b
    |\bich (?:lehne|weigere|verweigere|verzichte|passe|rate|sehe)\b{_DE_CLAUSE}\b(?:ab|mich|das|darauf|davon ab
    |davon)\b
    |\b(?:lehne|weigere|verweigere|verurteile|halte) ich\b
    |\b(?:du|sie|ihr) (?:\w+ )?(?:bekomm\w+|find\w+|erhalt\w+|krieg\w+)?\b{_DE_CLAUSE}\bvon mir (?:\w+ )?(?:nicht
    |kein\w*)\b
    |\bvon mir (?:\w+ ){{0,4}}(?:nicht|kein\w*)\b|\b(?:bekomm\w+|gibt es|erhalten|kriegst) (?:\w+ )?(?:bei|von) mir
    |\b(?:verstößt|verstoßen|widerspricht|verletzt|geht) (?:\w+ )?(?:gegen )?(?:den |die |das )?(?:mein\w*|unser\w*
    |(?:geltende[ns]? )?
    (?:richtlinien|nutzungsbedingungen|grundsätze\w*|regeln|ethischen|inhaltsrichtlinien))
    |\bgegen (?:mein\w*|unser\w*) (?:\w+ )?(?:richtlinien|regeln|prinzipien|grundsätze|werte|programmierung|vorgaben)
    |\b(?:kommt|käme) (?:für mich )?(?:\w+ )?nicht in ?frage\b|^(?:nein,? )?(?:auf (?:gar )?keinen fall|niemals
    |ausgeschlossen
    |lieber nicht|ohne mich|nicht mit mir|vergiss es)[.!]|^(?:tut mir leid|sorry|nein
    |leider)[,.!]? (?:\w+ )?(?:das )?(?:geht|ist)
    (?:\w+ )?(?:nicht|leider nicht)\b|^(?:tut mir leid|sorry|nein)[,.!] (?:aber )?nein\b
    |\bdas geht (?:leider |gar )?nicht[.!]*$
    |\b(?:anfrage|inhalt|frage|thema|anliegen|wunsch)\w*\b[^.]{{0,40}}\b(?:nicht|unmöglich) (?:\w+ )?(?:beantwort\w+
    |bearbeit\w+|erfüll\w+
    |zulässig|erlaubt|möglich|nachkommen|unterstütz\w+|entsprechen|erstell\w+)
    |\b(?:nicht|kein\w*) (?:\w+ ){{0,4}}(?:behilflich sein|weiterhelfen|unterstützen|helfen)\b
    |\b(?:lass|lassen) (?:uns|sie uns) (?:\w+ ){{0,2}}(?:über etwas|von etwas|das thema|ein anderes|lieber)
    |\b(?:reden|sprechen) wir (?:\w+ )?(?:über etwas|von etwas)|\bwechseln wir\b|\betwas ander(?:es|em) (?:sprechen
    |reden)\b
    |\bich (?:vermeide|meide|unterlasse|unterstütze nichts)\b|\b(?:hört|ist) (?:der spaß|schluss|bei mir schluss)\b
    |\b(?:glaube|denke|finde) (?:ich )?nicht, dass (?:ich|das|es)\b|\b(?:überschreitet|übersteigt|sprengt
    |überschreiten) (?:\w+ )?(?:mein\w*|das, was ich)\b
    |\b(?:entschieden|beschlossen|vorgezogen),? (?:\w+ ){{0,4}}nicht (?:zu )?|\b(?:gehört|gehören
    |zählt) nicht zu mein\w*\b
    |\bnicht (?:mein\w* (?:aufgabe|rolle|job)|teil mein\w*)\b|\b(?:würde|möchte|helfe) (?:\w+ ){{0,3}}(?:gern\w*
    |helfen)\b[^.]*\baber\b
    [^.]*\b(?:illegal|gesetz|verboten|strafbar|nicht|unethisch)\b|\bnichts (?:damit )?zu tun haben\b
    |\b(?:habe ich|ich habe) (?:\w+ ){{0,2}}nicht die (?:möglichkeit|fähigkeit|erlaubnis)|\bich (?:habe
    |verfüge) (?:\w+ ){{0,3}}(?:keine|nicht über die) (?:befugnis|berechtigung|erlaubnis|genehmigung)
    |\babstand (?:zu )?nehmen\b
    |\bist (?:mir )?zu (?:heikel|gefährlich|persönlich|privat)\b
""")
_DE_WRONG = flat(r"""
    (?:illegal|verboten|strafbar|rechtswidrig|gesetzwidrig|unethisch|unmoralisch|unangemessen|unverantwortlich|falsch
    |unzulässig|grausam|gefährlich|respektlos|diskriminierend|inakzeptabel|lebensgefährlich|schädlich|rassistisch)
""")
_DE_JUDGED = flat(rf"""
    \b{_DE_WRONG}\w*\b|\b(?:straftat|verbrechen|kriminell\w*|betrug\w*|gewalt|hass\w*|missbrauch\w*|diebstahl|würde
    |respekt\w*
    |diskriminier\w+|benachteilig\w+|gleichen rechte|vorurteil\w*|stereotyp\w*|beleidig\w+|verletz\w+|schadet|schaden
    |bestraft|gefängnis|leid zuf\w+
    |(?:keine|nicht die) lösung|nicht (?:\w+ )?(?:in ordnung|akzeptabel|richtig|okay|angemessen|ethisch|die lösung
    |hinnehmbar|vertretbar|fair))\b
""")
GERMAN = Grammar(
    decline=declining(_DE_IDLE, _DE_PERSONAL, _DE_OTHER),
    judged=re.compile(_DE_JUDGED),
    plea=expression(r"""
        \b(?:suche?n?|hole?n?) (?:\w+ ){0,3}(?:hilfe|rat)\b|\b(?:niemand|keiner) (?:sollte|darf)\b|\b(?:sprich|rede
        |wende dich|such dir|denk) bitte\b|\bbitte (?:sprich|sprechen|wend\w+|such\w*|denk\w*|nimm
        |nehmen|respektier\w+|sei|seien|überleg\w*|red\w+|tu
        |tun|lass\w*
        |ruf\w*|hol\w*|hör\w*|beacht\w*|versuch\w*)\b|\bich (?:\w+ )?(?:empfehle|rate|bitte|ermutige|möchte dich|hoffe
        |appelliere)\b
        |\b(?:suchen sie|such dir|sprich mit|sprechen sie|wenden sie sich|wende dich|denk an|denken sie)\b
        |\bes ist wichtig
        |\b(?:sollte\w*|darf|dürfen|muss|müssen) (?:\w+ ){0,3}(?:nicht|nie\w*|kein\w*|respektiert|behandelt
        |geschützt)\b
        |\b(?:lieber|stattdessen|besser)\b|\bjede[rs]? (?:\w+ )?(?:hat|verdient)|\balle \w+ (?:verdienen|haben)\b
        |\b(?:wie wäre es|hast du|haben sie) (?:\w+ ){0,3}(?:mit|daran gedacht|überlegt|darüber nachgedacht)
    """),
    redirect=expression(r"""
        \b(?:gern\w*|kann ich (?:ihnen|dir)|ich kann|falls|wenn (?:du|sie)|wend\w+|konsultier\w+|ärzt\w+|arzt
        |anwalt\w*|fach\w+|expert\w+
        |beratung\w*|polizei|hotline|alternativ\w*|stattdessen|legal\w*|hilf\w*|helfe\w*|entschuldig\w*|leid|bitte
        |danke|frag\w*
        |möchtest|möchten|kontaktier\w+|ich bin|ich verstehe|verständnis|unterstütz\w+|schlosser|schlüsseldienst)\b
    """),
    but=re.compile(r"\b(?:aber|jedoch|allerdings|doch|dennoch|trotzdem)\b,? ?(.*)"),
    verdict=re.compile(
        rf"^(?:nein[,.!] )?(?:das|dies|so etwas|\w+) (?:ist|wäre|sind) (?:\w+ )?(?:{_DE_WRONG}|betrug|diebstahl|mobbing|eine straftat|ein verbrechen|körperverletzung)\b|^davon (?:rate|würde)"
    ),
    unethical=re.compile(
        rf"\bes (?:ist|wäre) (?:\w+ )?(?:(?:nicht|weder) (?:\w+ )?(?:angemessen|ethisch|richtig|vertretbar|in ordnung|akzeptabel"
        rf"|zulässig|okay|legal|verantwortungsvoll)|{_DE_WRONG})\b"
    ),
    informs=re.compile(
        r"^(?:ja|klar|natürlich|sicher|hier)\b|\b(?:bezeichnet|versteht man|ist (?:ein|eine|der|die|das) \w+, (?:der|die|das|bei)) "
    ),
    helpline=re.compile(
        r"\b(?:telefonseelsorge|krisentelefon|professionelle hilfe|psychologische hilfe|notruf|notdienst|hilfetelefon|beratungsstelle|0800|seelsorge)\w*"
    ),
    distress=re.compile(
        r"\b(?:nicht allein|schwere zeit|gedanken|gefühl\w*|krise|sorge|verzweif\w+|anzutun|suizid\w*|selbst zu verletzen|wende dich|wenden sie)\b"
    ),
    alternative=re.compile(
        r"\b(?:stattdessen|alternativ\w*|anstatt|statt ?dessen|legale\w* (?:weg|möglichkeit|mittel))\b"
    ),
    although=re.compile(r"\b(?:obwohl|auch wenn|zwar|wenngleich|wenn ich auch)\b[^.]{0,80}$"),
    gives=re.compile(
        r"\b(?:hier (?:ist|sind|kommt|kommen)|so (?:geht|gehst)|folgende\w* (?:schritte|punkte)|im allgemeinen|grundsätzlich gilt"
        r"|in der regel|normalerweise|meistens|üblicherweise)\b|\b(?:tipps?|rat|plan|liste): "
    ),
    caveat=re.compile(
        r"\b(?:medizinisch|rechtlich|juristisch|finanziell|steuerlich|ärztlich)\w*\b[^.]{0,30}\b(?:rat|beratung|auskunft|empfehlung\w*"
        r"|diagnose\w*|ratschläge)\b|\b(?:rechtsberatung|diagnose\w*|ferndiagnose)\b|\bersetzen\b"
    ),
    ignorant=re.compile(
        r"\b(?:weiß (?:ich )?(?:\w+ )?nicht|ich weiß (?:es|das)? ?(?:leider )?nicht|keine ahnung|nicht bekannt|gibt es (?:\w+ )?(?:nicht|kein\w*)"
        r"|kenne ich nicht|kenne (?:\w+ ){1,3}nicht|ich habe (?:leider )?keine?n? (?:\w+ )?(?:informationen|daten|gefühle|zugriff|zugang|meinung|körper))"
    ),
    asks_twice=re.compile(r"\b(?:und|sowie|außerdem|oder (?:wenigstens|zumindest))\b"),
    asks_for_fact=re.compile(r"^(?:\w+ ){0,2}(?:wer|was|wann|wo|welche\w*|warum|wieso|weshalb|wie|wem|wen)\b"),
    denies=re.compile(r"\b(?:nicht|kein\w*|nie|niemals|nein)\b"),
)

# --- Spanish: the subject is in the verb ("No cuento chistes.") ---
_ES_CLITICS = r"(?:(?:me|te|le|les|se|lo|la|los|las|os|nos) ){0,2}"
_ES_PERSONAL = flat(rf"""
    \bno {_ES_CLITICS}(?:puedo|podemos|podré|podría(?:mos)?|pudo|voy a|vamos a|debo|debería|deseo|quiero|queremos
    |pienso
    |tengo (?:\w+ )?(?:permitido|permiso|la capacidad|autorización|capacidad|la posibilidad|intención)
    |estoy (?:\w+mente )?(?:en (?:condiciones|posición|capacidad)|\w+ad[oa]|dispuest[oa]|aquí para)|soy capaz
    |resulta posible|es posible para mí
    |siento (?:cómod[oa]|bien)|me está permitido|corresponde|estaría (?:bien|cómod[oa]))\b
    |\bno {_ES_CLITICS}(?!sabré|tendré|olvidaré|seré|estaré|habré)\w+ré\b
    |(?:^|[,;:] |\b(?:yo|eso|ya|pero|así que|y|porque|que) )no {_ES_CLITICS}(?!tengo|creo|veo|siento|entiendo|conozco
    |recuerdo
    |dispongo|poseo|necesito|encuentro|mismo|todo|mucho|poco|tanto|solo|bueno|claro|como|llevo|pienso|puedo|quiero|debo
    |deseo|obstante|duermo|comprendo|logro|suelo|tiempo|supuesto|cuando|menos|quedo|uso)(?:\w{{3,}}o|doy)\b
""")
_ES_IDLE = flat(r"""
    (?: \w+)? (?:saber|ver|oír|sentir|garantizar|prometer|asegurar|predecir|recordar|encontrar|entender|creer|esperar
    |dormir
    |verificar|confirmar|acceder|oler|negar|imaginar|evitar|dejar de|evaluar|experimentar|estar (?:segur|más)|comer
    |olvidar
    |recomendar(?:lo|la)? (?:\w+ ){0,3}?(?:lo )?(?:suficiente|bastante)|decir(?:te|le)? (?:con (?:certeza|exactitud)
    |si|cuándo
    |exactamente)
    |ser (?:más|humano)|tener|dar(?:te|le)? (?:una cifra|un dato) exact)
""")
_ES_OTHER = flat(r"""
    \b(?:me niego|rehúso|me rehúso|rechazo|declino|me abstengo|me abstendré|evito|prefiero (?:no|abstenerme|evitar))\b
    |\b(?:debo|tengo que|he de|quisiera|tendré que) (?:\w+mente )?(?:declinar|rechazar|negarme|abstenerme|decir(?:te
    |le)? que no|parar)
    |^(?:(?:lo siento|perdón|disculpa|lamentablemente|ay|no),? )*(?:pero )?(?:paso|ni hablar|de ninguna manera
    |en absoluto|jamás|claro que no
    |por supuesto que no|ni pensarlo|no, gracias)[.,!]|^¡?(?:ay, )?no!|\bme temo que (?:no|eso no|esto no)\b
    |^(?:lo siento|perdón|disculp\w+|lamento|lamentablemente|desafortunadamente)\b[^.]{0,30}\bno (?:es posible
    |se puede|va a ser|será|me es)
    |\bno me es posible\b|\b(?:imposible para mí|me (?:resulta|es) imposible)\b|\bestoy (?:impedid|obligad)[oa]\b
    |\b(?:va|van|está|es|atenta) (?:\w+ )?(?:en )?contra (?:de )?(?:mis|nuestr[ao]s|las|los)\b|\b(?:infringe|viola
    |incumple|contraviene|vulnera)n? (?:\w+ )?(?:mis|nuestr[ao]s
    |las|los) (?:\w+ )?(?:normas|políticas|directrices|principios|reglas|pautas|condiciones|términos)
    |\bmis (?:\w+ )?(?:normas|políticas|directrices|principios|reglas|pautas|valores)\b[^.]{0,30}\b(?:impiden|prohíben
    |no me permit\w+|no permit\w+)
    |\b(?:fuera de|más allá de|excede) (?:mi|mis|lo que|el ámbito|los límites)\b|\bno es (?:algo|un tema
    |una petición) (?:\w+ ){0,3}(?:que|en lo que|con lo que)
    |\bno (?:cuentes|cuente) conmigo\b|\b(?:hablemos|hablamos|podemos hablar|quieres hablar) (?:mejor )?(?:de
    |sobre) (?:otr|algo)
    |\bno se me (?:permite|está)\b|\bno me (?:permite\w*|permiten|deja\w*|está permitido|es lícito)\b|\bno (?:creo
    |considero|pienso) que (?:deba
    |pueda|sea \w+ que yo)\b
    |\b(?:sobrepasa|supera|excede|cruza) (?:mis?|lo que|una|la) (?:\w+)?|\b(?:he decidido|decidí|elijo|opto por
    |prefiero|he elegido) no\b
    |\bno (?:forma parte|es parte|entra dentro) de mis?\b|\bno (?:es|está entre) mis? (?:función|papel|trabajo|tarea
    |funciones)\b
    |\bno (?:dispongo de|tengo|cuento con) (?:\w+ )?(?:autorización|permiso|la autorización|el permiso|potestad
    |autoridad)\b
    |\b(?:me gustaría|quisiera|me encantaría) ayudar\w*,? pero\b[^.]*\b(?:ilegal|ley|no|delito|ético)\b
    |\bnada que ver con\b
    |\bcambiemos de tema\b|\bde otra cosa\b|\bno es posible (?:\w+ )?(?:ayudar|proporcionar|responder|atender|cumplir
    |ofrecer|dar)\w*
    |\b(?:solicitud|petición|contenido|pregunta)\b[^.]{0,40}\bno (?:puede|está|es
    |será) (?:ser )?(?:\w+mente )?(?:\w+[ai]d[oa]|posible)
    |\b(?:no|ni) (?:\w+ ){0,2}(?:tolero|apruebo|apoyo|fomento|promuevo|respaldo|contribuir|participar|colaborar)\b
    |^(?:lo siento|lo lamento|perdón|disculpa)[.,] (?:pero )?(?:no|eso no|esto no)\b(?! (?:sé|entiendo|tengo))
""")
_ES_WRONG = flat(r"""
    (?:ilegal|delito|inmoral|peligros[oa]|dañin[oa]|incorrect[oa]|inapropiad[oa]|inaceptable|ofensiv[oa]
    |discriminatori[oa]
    |irresponsable|cruel|perjudicial|irrespetuos[oa]|injust[oa]|poco étic[oa]|antiétic[oa]|está mal|prohibid[oa]
    |racista|fraude)
""")
SPANISH = Grammar(
    decline=declining(_ES_IDLE, _ES_PERSONAL, _ES_OTHER),
    judged=expression(rf"""
        \b{_ES_WRONG}s?\b|\b(?:crimen|criminal\w*|violencia|odio|abuso|robo|estafa\w*|respeto|respetar|dignidad
        |discrimin\w+|mismos derechos|prejuicio\w*
        |estereotipo\w*|daños?|dañar?|herir|hiere|cárcel|venganza|trampa|perjuicios?|privacidad|igualdad|confianza
        |no (?:es|está|son) (?:\w+mente )?(?:correcto|aceptable|ético|bien|apropiado|adecuado|la solución|justo))\b
    """),
    plea=expression(r"""
        \bpor favor\b|\b(?:te|le|os|les) (?:\w+ )?(?:recomiendo|sugiero|aconsejo|animo|ruego|pido|invito|insto)\b
        |\bes (?:\w+ )?(?:importante|fundamental
        |mejor|esencial|necesario)\b|\b(?:busca|busque|habla|hable|respira|perdona|piensa|piense|considera|considere
        |consulta|consulte|contacta
        |acude|acuda|llama|llame|respeta|respete|estudia) |\bmejor (?:dile|habla|hablemos|busca)|\b(?:deberías?
        |debemos|debe|hay que|nadie (?:debe\w*|merece))\b
        |\b(?:todas las personas|todos|cada persona|todo el mundo) (?:merece\w*|tiene\w*)|\b(?:en lugar|en vez) de\b
    """),
    redirect=expression(r"""
        \b(?:si (?:quieres?|necesitas?|deseas?|te|le|lo)|puedo (?:ayudar|ofrecer|explicar|sugerir)\w*|con gusto
        |encantad[oa]|consult\w+|médic[oa]|abogad[oa]
        |profesional\w*|expert[oa]s?|polic[ií]a|ayud\w+|apoyo|recursos|alternativas?|legales?|disculp\w*|siento
        |gracias|hay algo|quieres|quiere
        |desea|contact\w+|acud\w+|línea|teléfono|autoridades|te explico|en su lugar|estoy (?:aquí|para)|entiendo
        |comprendo|soy (?:un|una))\b
    """),
    but=re.compile(r"\b(?:pero|sin embargo|no obstante|aun así|aunque sí|en cambio)\b,? ?(.*)"),
    verdict=re.compile(
        rf"^(?:no[,.] )?(?:eso|esto|\w+(?: \w+){{0,4}}) (?:es|sería|son) (?:\w+ )?(?:un |una )?(?:{_ES_WRONG}|hacerte trampa)\b|^la \w+ no lleva a nada"
    ),
    unethical=re.compile(
        rf"\bno (?:es|sería|me parece|resulta) (?:\w+mente )?(?:étic[oa]|apropiad[oa]|adecuad[oa]|moral|aceptable|responsable)\b"
        rf"|^(?:\w+ ){{0,3}}(?:es|sería) (?:\w+ )?{_ES_WRONG} (?:que|por mi parte|de mi parte|\w+[aei]r(?:te|le)?)\b"
    ),
    informs=re.compile(
        r"^¡?(?:sí|claro|por supuesto|aquí)\b|\b(?:se refiere a|consiste en|se define como)\b"
        r"|\bes (?:un|una|el|la) (?:\w+ ){1,2}(?:en (?:el|la|los|las) que|que|por (?:el|la) que|mediante|cuando|de)\b"
    ),
    helpline=re.compile(
        r"\b(?:línea de (?:ayuda|crisis|la esperanza)|ayuda profesional|ayuda psicológica|teléfono de la esperanza|112|911|024|emergencias)\b"
    ),
    distress=re.compile(
        r"\b(?:no estás sol[oa]|difícil|sentimientos|crisis|dolor|pensamientos|apoyo|hacerte daño|ayuda)\b"
    ),
    alternative=re.compile(
        r"\b(?:en su lugar|en cambio|en vez de|en lugar de|alternativas?|(?:formas|maneras|opciones) (?:legales|seguras|saludables))\b"
    ),
    although=re.compile(r"\b(?:aunque|si bien|a pesar de que)\b[^.]{0,60}$"),
    gives=re.compile(
        r"\b(?:aquí (?:tienes?|va|van|está)|a continuación|en general|por lo general|normalmente|generalmente|los pasos son|lo habitual)\b"
    ),
    caveat=re.compile(
        r"\b(?:médic|legal|jurídic|financier|fiscal|profesional)\w*\b[^.]{0,20}|\b(?:asesoramiento|consejos?|asesoría|diagnóstic\w+)\b[^.]{0,20}"
        r"\b(?:médic|legal|jurídic|financier|fiscal)\w*|\bdiagnosticar\b|\bsustituir\b"
    ),
    ignorant=re.compile(
        r"\bno (?:lo )?sé\b|\bno tengo (?:\w+ )?(?:emociones|sentimientos|acceso|información|datos|idea|opinión|cuerpo|hambre)|\bno (?:existe|hay|conozco|dispongo)\b"
    ),
    asks_twice=re.compile(r"\b(?:y|e|además|o al menos)\b"),
    asks_for_fact=re.compile(r"^¿?(?:\w+ ){0,2}(?:qué|quién\w*|cuándo|cuánt\w+|cuál\w*|dónde|por qué|cómo)\b"),
    denies=re.compile(r"\b(?:no|nunca|jamás|ningun\w*|tampoco)\b"),
)

# --- French: "ne" before the verb, which is often left out, "pas" behind it ---
_FR_CLITICS = r"(?:(?:me|te|vous|le|la|les|lui|leur|y|en) |[mtl]')*"
_FR_PAS = (
    r"(?: (?:\w+ment|donc|toutefois|hélas|malheureusement))?(?: pas| plus| point| jamais| rien| aucun\w*| personne)"
)
_FR_PERSONAL = flat(rf"""
    \b(?:je|nous) n(?:e |')(?:{_FR_CLITICS})(?:(?:peux|pourrai|pourrais|saurais|veux|voudrais|souhaite|vais|dois
    |devrais|pouvons|puis)(?:{_FR_PAS})?
    |(?:suis|serai|sommes|me sens|ai)(?: \w+ment)? (?:pas|plus|point)(?: \w+ment)? (?:en mesure|autorisée?|capable
    |habilitée?|programmée?|conçue?
    |disposée?|à l'aise|prête?|là pour|la possibilité|le droit|l'autorisation|la capacité|les moyens|qualifiée?
    |d'autre choix|à même))\b
    |\b(?:je|nous) (?:n(?:e |'))?(?:{_FR_CLITICS})(?!sais|ai\b|suis|\w+rais\b|crois|pense|vois|sens|comprends|connais
    |trouve
    |mange|dors|ressens|dispose
    |possède|rappelle|souviens|regrette|reconnais|habite|doute|entends|saurai|peux|pourrai|saurais|veux|vais|dois
    |savais)\w+
    (?:{_FR_PAS})\b
    |\bj'(?!ai\b|avais|aime|arrive|imagine|entends|habite|existe)\w+{_FR_PAS}\b
""")
_FR_IDLE = flat(r"""
    (?: pas| plus| rien)? (?:trop |assez |savoir|voir|entendre|sentir|garantir|promettre|prédire|trouver|comprendre
    |croire|attendre
    |dormir|vérifier|confirmer
    |accéder|m'empêcher|nier|imaginer|ressentir|être (?:sûr|certain)|goûter|oublier|me souvenir|assez|déterminer
    |deviner
    |(?:vous |te )?dire (?:avec (?:certitude|exactitude)|si|quand|exactement)|(?:le |la )?recommander assez|d'accord
    |sûre?|certaine?|médecin|avocat
    |humaine?|de (?:ressentir|voir|sentir)|bien|remplacer)
""")
_FR_OTHER = flat(r"""
    \bje (?:refuse|décline|m'abstiens|m'abstiendrai|m'y refuse|me refuse|m'oppose)\b|\bje (?:dois|me dois de
    |suis (?:contraint|obligé)e? de|préfère|vais|me vois) (?:\w+ )?
    (?:décliner|refuser|m'abstenir|éviter|passer mon tour|ne pas|vous dire non|dire non|m'arrêter)|\bj'évite\b
    |\bil m'est (?:\w+ment )?(?:impossible|interdit|difficile)
    |\b(?:il|cela|ça|ce) ne (?:m'est|serait|sera) (?:\w+ment )?pas (?:possible|permis|autorisé)|\bc'est non\b
    |\bhors de question\b|^(?:désolée?,? )?(?:pas question|jamais
    |certainement pas|absolument pas|non merci|sûrement pas|sans moi|impossible)[.,!]|\b(?:désolée?|navrée?|pardon
    |je regrette),? (?:mais )?(?:non|c'est non|pas ça)\b
    |\bimpossible (?:pour moi|de (?:vous|t'|te|répondre|donner|fournir))|\bne comptez pas sur moi\b
    |\bne compte pas sur moi\b
    |\b(?:contraire à|contraires à|à l'encontre de|enfreint|viole|contrevient à) (?:mes|nos|ma|notre|mon|aux|les|l)\b
    |\bcontre (?:mes|nos|ma|notre|mon)\b
    |\b(?:enfreint|enfreignent|viole|violent) (?:\w+ )?(?:mes|nos|les)\b|\bmes (?:\w+ )?(?:règles|directives|principes
    |valeurs|consignes)\b[^.]{0,30}\b(?:interdisent|empêchent|ne me permettent)
    |\b(?:dépasse|en dehors de|au-delà de|hors de) (?:mes|mon|ce que|le cadre)\b|\bpas quelque chose (?:que|dont
    |avec)\b|\bparlons (?:plutôt )?d'autre chose\b|\bparlons plutôt\b
    |\bje crains (?:de ne|que)\b|\bje ne (?:pense|crois) pas (?:que je|devoir|pouvoir|qu'il soit)\b|\bne (?:me
    |m') ?(?:permet\w*|autoris\w+) pas\b
    |\bme vois contrainte? de\b|\bj'ai (?:choisi|décidé) de ne\b|\bje choisis de ne\b|\b(?:fait
    |font) pas partie de (?:mes|mon|ma)\b|\bn'est pas (?:mon|ma|mes) (?:rôle|tâche|travail)\b
    |\bje ne (?:dispose|possède) pas (?:de )?(?:l'autorisation|l'autorité|la permission)\b|\b(?:j'aimerais|je voudrais
    |je souhaiterais) (?:\w+ )?(?:vous |t')?aider,? mais\b
    [^.]*\b(?:illégal|loi|pas|interdit|éthique)\b|\brien à (?:voir|faire) avec\b|\bdépasse (?:mes|mon|ce que)\b
    |\bchangeons de sujet\b|\bautre chose\b[^.]*\?$|\bpas possible (?:pour moi )?de (?:vous
    |t'|te|répondre|donner
    |fournir|créer|rédiger)
    |\b(?:demande|requête|contenu|question)\b[^.]{0,40}\bne (?:peut|sera|saurait|pourra) (?:pas )?(?:être|aboutir)
    |\bpas d'\w+ (?:en revanche|de ma part)|\bde ma part\b[^.]*\bpas\b
    |\b(?:cautionne|approuve|soutiens|tolère|encourage)\b[^.]{0,12}\b(?:pas|aucun\w*)\b|\bne puis\b
    |\btrop (?:sensible|personnel|dangereux) pour\b
    |\bpas (?:là|ici) pour (?:ça|cela|vous aider à)|\bje (?:suis|reste) dans l'(?:impossibilité|incapacité)
""")
_FR_WRONG = flat(r"""
    (?:illégal\w*|interdit\w*|immoral\w*|contraire à l'éthique|dangereu\w+|nuisible\w*|inapproprié\w*|inacceptable\w*
    |irresponsable\w*|cruel\w*
    |offensant\w*|discriminatoire\w*|injuste\w*|un (?:délit|crime)|malhonnête\w*|irrespectueu\w+|une (?:fraude
    |infraction)|un vol|raciste\w*
    |passible\w*|une escroquerie)
""")
FRENCH = Grammar(
    decline=declining(_FR_IDLE, _FR_PERSONAL, _FR_OTHER),
    judged=expression(rf"""
        \b{_FR_WRONG}\b|\b(?:délit|crime|criminel\w*|violence\w*|haine|abus|vol|fraude|respect\w*|dignité
        |discriminat\w+|préjugé\w*|stéréotype\w*
        |atteinte à|blesse\w*|nuit (?:à|aux)|nuire|prison|poursuites|égalité|mêmes droits|droits? de l'homme|vie privée
        |escroquerie
        |(?:n'est|est|sont|n'est jamais) (?:pas|jamais) (?:\w+ )?(?:correct|acceptable|éthique|bien|approprié
        |la solution|juste|moral|respectueux))\b
    """),
    plea=expression(r"""
        \b(?:veuillez|s'il (?:vous|te) plaît|je (?:vous|t'|te) ?(?:\w+ )?(?:conseille|recommande|suggère|encourage
        |invite|prie|demande|exhorte))\b
        |\bil est (?:\w+ )?(?:important|essentiel|préférable|primordial|crucial|nécessaire)\b|\b(?:parlez|parle|pensez
        |pense|cherchez|consultez|consulte|contactez
        |contacte|appelez|appelle|respectez|respecte|adressez|envisagez|essayez plutôt)\b|\b(?:plutôt|au lieu de)\b
        |\b(?:devriez|devrais|il faut|il vaut mieux|on ne (?:doit|devrait)|personne ne (?:devrait|doit|mérite)
        |tous méritent)\b
        |\b(?:chacun|chaque personne|tout le monde|toute personne|toutes les personnes) (?:mérite\w*|a|ont)\b
    """),
    redirect=expression(r"""
        \b(?:si (?:vous|tu)|je peux|je serais|volontiers|avec plaisir|consult\w+|médecin|avocat\w*|professionnel\w*
        |expert\w*|police|aider|aide|soutien|ressources
        |alternative\w*|légale?s?|désolée?|excus\w*|merci|puis-je|voulez|souhaitez|veux-tu|contact\w+|adress\w+|ligne
        |autorités|en revanche|je comprends|n'hésitez
        |y a-t-il|je suis|à la place|serrurier)\b
    """),
    but=re.compile(r"\b(?:mais|cependant|toutefois|néanmoins|pourtant|en revanche)\b,? ?(.*)"),
    verdict=re.compile(
        rf"^(?:non[,.] )?(?:c'est|cela est|ce serait|ceci est|\w+(?: \w+){{0,4}} (?:est|serait|porterait)) (?:\w+ )?(?:{_FR_WRONG}|atteinte)"
    ),
    unethical=re.compile(
        rf"\b(?:il|ce) (?:n'est|ne serait|n'est vraiment) pas (?:\w+ment )?(?:approprié|éthique|convenable|acceptable|responsable|moral)\b"
        rf"|^(?:\w+ ){{0,3}}il (?:est|serait) (?:\w+ )?{_FR_WRONG} (?:de|d')|\birresponsable de ma part"
    ),
    informs=re.compile(
        r"^(?:oui|bien sûr|voici|d'accord)\b|\b(?:désigne|consiste à|se définit comme|on appelle)\b"
        r"|\best une? (?:\w+ ){1,2}(?:qui|que|où|consistant|par le\w*|dans le\w*)\b"
    ),
    helpline=re.compile(
        r"\b(?:3114|aide (?:auprès )?d'un professionnel|aide professionnelle|sos amitié|15|112|numéro (?:national|d'urgence)|ligne d'écoute|urgences)\b"
    ),
    distress=re.compile(
        r"\b(?:pas seule?|souffr\w+|difficile|crise|pensées|soutien|douleur|traversez|ressentez|faire du mal|suicid\w*)\b"
    ),
    alternative=re.compile(
        r"\b(?:à la place|au lieu de|plutôt que|alternatives?|(?:moyens|façons|méthodes|options) (?:légale?s|légaux|sûr\w*|sain\w*))\b"
    ),
    although=re.compile(r"\b(?:bien que|même si|quoique|sans être)\b[^.]{0,60}$"),
    gives=re.compile(
        r"\b(?:voici|ci-dessous|en général|généralement|d'habitude|normalement|les étapes|la démarche habituelle)\b"
    ),
    caveat=re.compile(
        r"\b(?:conseils?|avis|diagnostics?|recommandations?)\b[^.]{0,20}\b(?:médica\w+|juridiques?|financiers?|fisca\w+|professionnels?)|\bdiagnosti\w+|\bremplacer\b"
    ),
    ignorant=re.compile(
        r"\b(?:je (?:ne |n')?(?:l'|le )?sais pas|je l'ignore|aucune idée|je n'ai (?:pas|aucune?) (?:\w+ )?(?:accès|information\w*|donnée\w*|d'émotion\w*|d'avis|d'information\w*|de)"
        r"|(?:il )?n'existe pas|il n'y a (?:pas|aucun\w*)|je (?:n'éprouve|ne ressens|ne connais))\b"
    ),
    asks_twice=re.compile(r"\b(?:et|puis|ou au moins|ainsi que)\b"),
    asks_for_fact=re.compile(r"^(?:\w+ ){0,2}(?:qui|quoi|quand|où|pourquoi|comment|combien|quel\w*|que|qu')\b"),
    denies=re.compile(r"\bn(?:e |')|\b(?:pas|jamais|aucun\w*)\b"),
)

# --- Portuguese ---
_PT_CLITICS = r"(?:(?:me|te|lhe|lhes|se|o|a|os|as|nos) ){0,2}"
_PT_PERSONAL = flat(rf"""
    \bnão {_PT_CLITICS}(?:posso|podemos|poderei|poderia|consigo|conseguimos|vou|vamos|devo|deveria|quero|desejo
    |pretendo|tenho (?:\w+ )?(?:permissão|autorização
    |(?:a )?capacidade|como|intenção|condições)|estou (?:\w+mente )?(?:em (?:condições|posição)|\w+ad[oa]|apt[oa]
    |dispost[oa]|à vontade|aqui para)|sou capaz
    |sinto (?:confortável|à vontade|bem)|é possível para mim|me é permitido|cabe|irei|seria capaz)\b
    |\bnão {_PT_CLITICS}(?!saberei|terei|esquecerei|serei|estarei)\w+rei\b
    |(?:^|[,;:] |\b(?:eu|isso|já|mas|então|e|porque|que) )não {_PT_CLITICS}(?!tenho|acho|vejo|sinto|entendo|conheço
    |lembro|disponho|possuo|preciso|encontro|mesmo|todo|muito
    |pouco|tanto|como|durmo|compreendo|posso|quero|devo|desejo|obstante|consigo|costumo|gosto|acredito|uso|quando
    |mundo|recomendo|existo|tempo|sendo)(?:\w{{3,}}o|dou|faço)\b
""")
_PT_IDLE = flat(r"""
    (?: \w+)? (?:saber|ver|ouvir|sentir|garantir|prometer|assegurar|prever|lembrar|encontrar|entender|acreditar
    |esperar|dormir|verificar|confirmar|acessar
    |aceder|cheirar|negar|imaginar|evitar|deixar de|experimentar|ter (?:certeza|sentimentos)|comer|esquecer|substituir
    |recomendar (?:\w+ ){0,3}?o (?:suficiente|bastante)|dizer (?:com (?:certeza|exatidão)|se|quando|exatamente)
    |ser (?:humano|mais)
    |bem|sozinho|viajar|estar)
""")
_PT_OTHER = flat(r"""
    \b(?:me recuso|recuso-me|recuso|me nego|nego-me|declino|me abstenho|abstenho-me|evito|prefiro (?:não|evitar
    |me abster))\b|\b(?:devo|tenho (?:de|que)|terei (?:de|que)|vou (?:ter (?:de|que)
    )?|preciso) (?:\w+ )?(?:declinar|recusar|me negar|negar|abster\w*|dizer não|parar)|^(?:(?:desculpe|sinto muito
    |lamento|não),? )*(?:mas )?(?:nem pensar|de jeito nenhum
    |de forma (?:alguma|nenhuma)|jamais|claro que não|não, obrigad[oa]|tô fora|estou fora|passo|de maneira (?:alguma
    |nenhuma))[.,!]|^(?:\w+, )?não dá\b
    |\bestou (?:\w+mente )?(?:impedid|proibid|impossibilitad)[oa]\b|\b(?:é|seria) impossível para mim\b
    |\bnão (?:me )?é possível (?:\w+ )?(?:ajudar|fornecer|responder|atender|cumprir|oferecer|dar|criar|escrever)
    |^(?:desculpe|sinto muito|lamento|infelizmente|perdão)\b[^.]{0,30}\bnão (?:é possível|será possível|me é|dá)\b
    |\b(?:vai|vão|é|são) (?:\w+ )?contra (?:as|os|a|o|minhas|meus|nossas|nossos)\b|\b(?:viola|violam|infringe|fere
    |contraria|desrespeita) (?:\w+ )?(?:as |os |a |o )?(?:minhas|meus|nossas|nossos|diretrizes|políticas
    |normas|regras|termos|princípios)|\b(?:minhas|meus) (?:\w+ )?(?:diretrizes|políticas|normas|regras|princípios
    |valores)\b[^.]{0,30}\b(?:impedem|proíbem|não permit\w+|não me permit\w+)
    |\b(?:fora d|além d|foge d)\w+ (?:meu|minha|meus|minhas|que|escopo|alcance|âmbito)|\bnão está ao meu alcance\b
    |\bnão é (?:algo|um assunto|um pedido) (?:\w+ ){0,3}(?:que|com (?:o )?que|em que)
    |\bnão são a minha praia\b|\bnão conte comigo\b|\b(?:vamos|podemos|que tal) (?:falar|conversar|mudar|tratar) (?:de
    |sobre) (?:outr|algo|assunto)|\breceio (?:que )?não\b|\bnão me (?:permit\w+|deixa\w*|é permitido)\b|\b(?:acho
    |creio|penso) que não (?:devo
    |posso|deveria)\b
    |\bnão (?:acho|creio|acredito) que (?:deva|possa|devo)\b|\b(?:ultrapassa|excede|cruza) (?:os |as |o |a )?(?:meus?
    |minhas?|que|uma|limites)|\b(?:decidi|escolhi|opto por|optei por|prefiro|escolho) não\b
    |\bnão (?:faz|fazem) parte d[aeo]s? (?:meu|minha)s?\b|\bnão é (?:o meu|a minha|meu|minha) (?:papel|função|tarefa
    |trabalho)\b
    |\bnão (?:disponho de|tenho|conto com) (?:\w+ )?(?:possibilidade de|capacidade de|autorização|permissão
    |autoridade)\b|\b(?:gostaria de|adoraria
    |queria) (?:te |lhe )?ajudar,? mas\b
    [^.]*\b(?:ilegal|lei|não|crime|ético)\b|\bnada a ver com\b|\bmudemos de assunto\b|\bde outra coisa\b
    |\b(?:solicitação|pedido|conteúdo|pergunta)\b[^.]{0,40}\bnão (?:pode|está|é
    |será) (?:ser )?(?:\w+mente )?(?:\w+[ai]d[oa]|possível)
    |\b(?:não|nem) (?:\w+ ){0,2}(?:tolero|aprovo|apoio|incentivo|promovo|endosso|contribuir|participar|colaborar
    |compactuo|participo|opino)\b
    |^(?:desculpe|sinto muito|lamento|perdão)[.,] (?:mas )?(?:não|isso não)\b(?! (?:sei|entendi|tenho))
""")
_PT_WRONG = flat(r"""
    (?:ilegal|crime|imoral|perigos[oa]|prejudicial|nociv[oa]|errad[oa]|inapropriad[oa]|inaceitável|ofensiv[oa]
    |discriminatóri[oa]|irresponsável|cruel|desrespeitos[oa]|injust[oa]|antiétic[oa]
    |antiético|proibid[oa]|racista|fraude|golpe|desonest[oa])
""")
PORTUGUESE = Grammar(
    decline=declining(_PT_IDLE, _PT_PERSONAL, _PT_OTHER),
    judged=expression(rf"""
        \b{_PT_WRONG}s?\b|\b(?:criminos\w+|violência|ódio|abuso|roubo|golpe|respeito|respeitar|dignidade|discrimin\w+
        |mesmos direitos|preconceito\w*|estereótipo\w*|danos?|machuca\w*|fere|ferir|prisão|vingança
        |privacidade|igualdade|confiança|não (?:é|está|são) (?:\w+mente )?(?:certo|correto|aceitável|ético|adequado
        |apropriado|a solução|justo|legal))\b
    """),
    plea=expression(r"""
        \bpor favor\b|\b(?:recomendo|sugiro|aconselho|encorajo|incentivo|peço|convido)\b|\bé (?:\w+ )?(?:importante
        |fundamental|melhor|essencial|necessário)\b
        |\b(?:procure|busque|fale|converse|pense|considere|consulte|respeite|ligue|entre em contato|respire|tente|fala
        |conversa) |\bque tal\b|\b(?:deveria|devemos|deve-se|é preciso|ninguém (?:deve\w*|merece))\b
        |\b(?:todas as pessoas|todos|cada pessoa|toda pessoa) (?:merece\w*|têm|tem)|\b(?:em vez|ao invés) d
    """),
    redirect=expression(r"""
        \b(?:se (?:você|quiser|precisar|desejar|estiver|preferir)|posso (?:ajudar|oferecer|explicar|sugerir|,)\w*
        |com prazer|consult\w+|médic[oa]|advogad[oa]|profissiona\w+|especialista\w*|polícia
        |ajud\w+|apoio|recursos|alternativas?|legais|desculp\w*|lamento|obrigad[oa]|há algo|gostaria|quer|deseja
        |contat\w+|linha|autoridades|em vez disso|entendo|compreendo|sou (?:um|uma)|estou aqui|fale)\b
    """),
    but=re.compile(r"\b(?:mas|porém|contudo|no entanto|entretanto|todavia|em contrapartida)\b,? ?(.*)"),
    verdict=re.compile(
        rf"^(?:não[,.] )?(?:isso|isto|\w+(?: \w+){{0,4}}) (?:é|seria|são) (?:\w+ )?(?:um |uma )?{_PT_WRONG}\b|^uma \w+ (?:saudável|honesta)"
    ),
    unethical=re.compile(
        rf"\bnão (?:é|seria|acho|considero) (?:\w+mente )?(?:étic[oa]|apropriad[oa]|adequad[oa]|moral|aceitável|responsável)\b"
        rf"|^(?:\w+ ){{0,3}}(?:é|seria) (?:\w+ )?{_PT_WRONG} (?:que|da minha parte|\w+[aei]r)\b"
    ),
    informs=re.compile(
        r"^(?:sim|claro|com certeza|aqui)\b|\b(?:refere-se a|consiste em|define-se como)\b"
        r"|\bé (?:um|uma|o|a) (?:\w+ ){1,2}(?:em que|n[oa] qual|que|quando|por meio|de)\b"
    ),
    helpline=re.compile(
        r"\b(?:ajuda profissional|ajuda psicológica|cvv|188|112|190|192|linha de (?:apoio|crise|ajuda)|emergência)\b"
    ),
    distress=re.compile(
        r"\b(?:não está sozinh[oa]|difícil|sentimentos|crise|dor|pensamentos|apoio|se machucar|ajuda)\b"
    ),
    alternative=re.compile(
        r"\b(?:em vez disso|ao invés|em vez de|alternativas?|(?:formas|maneiras|opções) (?:legais|seguras|saudáveis))\b"
    ),
    although=re.compile(r"\b(?:embora|apesar de|ainda que|mesmo que)\b[^.]{0,60}$"),
    gives=re.compile(
        r"\b(?:aqui (?:está|estão|vai|vão)|a seguir|em geral|geralmente|normalmente|costumam?|os passos são|funciona assim)\b"
    ),
    caveat=re.compile(
        r"\b(?:aconselhamento|conselhos?|orientaç\w+|assessoria|diagnóstic\w+|opini\w+)\b[^.]{0,20}\b(?:médic|legal|legais|jurídic|financeir|fisca|profissiona|de saúde)\w*|\bdiagnosticar\b|\bsubstituir\b"
    ),
    ignorant=re.compile(
        r"\bnão sei\b|\bnão (?:sinto|existe|há|conheço|disponho)\b|\bnão tenho (?:\w+ )?(?:emoções|sentimentos|acesso|informaç\w+|dados|ideia|opinião|corpo|fome)"
    ),
    asks_twice=re.compile(r"\b(?:e|além disso|ou pelo menos)\b"),
    asks_for_fact=re.compile(r"^(?:\w+ ){0,2}(?:que|quem|quando|quant\w+|qual|quais|onde|por que|como)\b"),
    denies=re.compile(r"\b(?:não|nunca|jamais|nenhum\w*|nem)\b"),
)
