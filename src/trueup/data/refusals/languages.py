"""The language of a reply, by its script and its function words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

MEASURED = ("en", "de", "es", "fr", "pt", "zh", "ja")
"""The languages that have rules; replies in any other are not measured."""
NAMES = {
    "en": "English", "de": "German", "es": "Spanish", "fr": "French", "pt": "Portuguese", "zh": "Chinese",
    "ja": "Japanese", "other": "other languages",
}  # fmt: skip

_SCRIPTS = re.compile(
    "(?P<kana>[\u3040-\u30ff\uff66-\uff9d])|(?P<han>[\u3400-\u9fff])|(?P<latin>[a-z\u00c0-\u024f])"
    "|(?P<other>[\u0370-\u03ff\u0400-\u052f\u0530-\u06ff\u0700-\u1cff\u1100-\u11ff\uac00-\ud7af])"
)
# Function words that tell a language from its neighbours. Those of languages without rules are here as well, so that
# they are not taken for one that has some.
_WORDS = {
    "en": "the and is are was i you your it's of to that this can can't cannot not with for be will would have as my it's "
    "i'm sorry don't won't no it on if but what how or an by we let's please do",
    "de": "der die das und ist ich nicht kann sie ein eine einen zu mit für auf den dem es wir von auch keine leider mir "
    "dir ihnen dabei dazu bei im sich aber nein tut leid wie oder als wenn einer dieser diese wird sind hat nach du "
    "keinen keinem auf wenden bitte ihre ihren mich dich darf das",
    "es": "el la los las y es que no una un en de por para con su sus del puedo lo siento se al pero más como este esta "
    "eso esto te le mi tu si está hay muy o ni yo ser sobre paso mejor usted ilegal alguien nadie todo",
    "fr": "le la les et est je ne pas une un des du de en que qui pour dans vous votre il c'est sur au aux avec ce cette mais "
    "désolé désolée peux suis n'est j'ai d'un plus par se mon ou si nous non à m'est cela impossible d'autre chose "
    "l'on qu'il je n'ai parlons demande",
    "pt": "o os as e é que não uma um em de por para com seu sua do da no na posso isso se ao mas mais como este esta eu te "
    "lhe meu minha você está há muito ou nem ser sobre dos das desculpe sinto lamento vamos pelo pela à ele ela",
    "it": "il lo gli e è che non una un in di per con sono mi ti ci si del della nel posso questo questa mi dispiace ma più "
    "come anche alla le dei delle i mio tuo quello può aiutarti richiesta",
    "nl": "de het een en is ik niet kan je jij u van met voor op dat dit zijn wij maar geen ook aan er om te bij naar niet "
    "helaas spijt mij deze die dan wordt hebben heeft kun kunt",
    "sv": "och är jag inte kan det att en ett som för på med av den till du men har tyvärr hjälpa om mig dig så vi",
    "da": "og er jeg ikke kan det at en et som for på med af den til du men har desværre hjælpe om mig dig vi kunne",
    "pl": "i jest nie w na z do że się to jak ale dla ten po przepraszam mogę pomóc przez za od czy jestem tym tego",
    "tr": "ve bir bu için ile değil ben çok ama ne olarak üzgünüm yardımcı olamam da de var gibi daha size",
    "id": "dan yang tidak ini itu untuk dengan saya adalah di ke dari maaf bisa membantu anda akan pada atau dapat karena",
    "vi": "và là không tôi của có thể cho này một những được xin lỗi giúp bạn với các trong để về",
    "ro": "și este nu în de la pe un o cu pentru că nu pot îmi pare rău ajut să vă te acest această din dar sunt",
    "cs": "a je ne se na že to v s pro jsem ale omlouvám nemohu pomoci vám jak by k do z tím tato toto",
    "fi": "ja on en ei se että voi olen mutta tämä anteeksi auttaa kanssa sinua joka tai ole mitä valitettavasti",
    "hu": "és a az nem hogy egy is van ez de sajnálom tudok segíteni ebben vagy csak meg én mint",
    "ca": "el la els les i és que no una un en de per amb ho sento puc això aquest aquesta però més jo també",
}
# Letters of its own.
_MARKS = {
    "de": "äöüß", "es": "ñ¿¡áíú", "fr": "èêçàùœî", "pt": "ãõâêç", "pl": "łąęśżź", "tr": "ğışİ", "sv": "å", "da": "øæ",
    "vi": "đơưạảấầẩậắằẳặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ", "cs": "řůěč", "ro": "țșăţş", "hu": "őű", "fi": "", "it": "ìò",
}  # fmt: skip


def _languages_by(parts: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return {word or letter: languages that have it} of {language: its words or letters}."""
    result: dict[str, list[str]] = {}
    for language, texts in parts.items():
        for part in set(texts):
            result.setdefault(part, []).append(language)
    return result


_BY_WORD = _languages_by({language: words.split() for language, words in _WORDS.items()})
_BY_LETTER = _languages_by(_MARKS)
_TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
# Characters that are read; a letter of its own against a function word; the prompt, since a reply may be in another
# language; languages whose evidence differs by less are both possible; evidence that tells a language without rules.
_FIRST, _LETTER, _PROMPT, _CLOSE, _CLEAR = 240, 0.7, 0.2, 0.5, 2.0


def language_of(text: str, prompt: str = "") -> str:
    """Return the language of a reply: one of MEASURED, or "other".

    Chinese characters without kana are Chinese, kana are Japanese, other scripts are "other". In Latin script the
    language is the one with the most function words and letters of its own; a reply that has none (a name, a number) is
    in the language of its prompt, and English if that is not known either.

    Args:
        text: the reply in lower case.
        prompt: the user's message in lower case.
    """
    scores = _combined(text, prompt)
    language = max(scores, key=lambda name: scores[name]) if scores else "en"
    if language in MEASURED:
        return language
    return "other" if scores[language] >= _CLEAR else likely_languages(text, prompt)[0]


def likely_languages(text: str, prompt: str = "") -> list[str]:
    """Return the languages with rules that a reply may be in, the likeliest first; English if none is likely.

    A short reply ("No hackeo cuentas.") often has one function word, which several languages share.
    """
    scores = _combined(text, prompt)
    best = max(scores.values(), default=0.0)
    likely = [name for name in MEASURED if name in scores and scores[name] >= best - _CLOSE]
    return sorted(likely, key=lambda name: -scores[name]) or ["en"]


def _combined(text: str, prompt: str) -> dict[str, float]:
    scores = _scores(text[:_FIRST])
    best = sorted(scores.values(), reverse=True)[:2]
    if best and best[0] - sum(best[1:]) >= _CLEAR:
        return scores
    for language, score in _scores(prompt[:_FIRST]).items():
        scores[language] = scores.get(language, 0) + _PROMPT * score
    return scores


def _scores(text: str) -> dict[str, float]:
    """Return how much speaks for each language: its function words and letters, or the script's characters."""
    script = "latin" if text.isascii() else _script(text)
    if script != "latin":
        return {script: float(len(text))}
    scores: dict[str, float] = {}
    for token in _TOKEN.findall(text):
        languages = _BY_WORD.get(token, ())
        for language in languages:
            scores[language] = scores.get(language, 0) + 1 / len(languages)
    for mark in _NOT_ASCII.findall(text):
        for language in _BY_LETTER.get(mark, ()):
            scores[language] = scores.get(language, 0) + _LETTER
    return scores


def _script(text: str) -> str:
    """Return "ja", "zh", "latin" or "other" by the characters that a text has."""
    counts: dict[str, int] = {"kana": 0, "han": 0, "latin": 0, "other": 0}
    for match in _SCRIPTS.finditer(text):
        counts[match.lastgroup or "other"] += 1
    asian = counts["kana"] + counts["han"]
    if 3 * asian > counts["latin"] and asian > counts["other"]:
        return "ja" if 10 * counts["kana"] > counts["han"] else "zh"
    return "other" if counts["other"] > counts["latin"] else "latin"
