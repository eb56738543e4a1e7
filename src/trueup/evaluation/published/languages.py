"""The language of a reply to IFEval, recognised by its script and its most frequent words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

_SCRIPTS: Mapping[str, str] = {
    "ऀ-ॿ": "hi mr ne", "ঀ-৿": "bn", "਀-੿": "pa", "઀-૿": "gu", "஀-௿": "ta", "ఀ-౿": "te", "ಀ-೿": "kn",
    "ഀ-ൿ": "ml", "฀-๿": "th", "Ͱ-Ͽ": "el", "֐-׿": "he", "؀-ۿ": "ar fa ur", "Ѐ-ӿ": "ru bg uk", "가-힣ᄀ-ᇿ": "ko",
    "぀-ヿ": "ja", "一-鿿": "zh", "a-zA-ZÀ-ɏḀ-ỿ": "en de fr es it pt nl sv fi pl tr vi sw id",
}  # fmt: skip
"""Ranges of characters -> the languages that are written in them."""
_WORDS: Mapping[str, str] = {
    "hi": "है हैं और में की के का को से यह पर नहीं कि था लिए एक भी हो",
    "mr": "आहे आहेत आणि मध्ये ची चे चा ला हे हा ही नाही होते साठी एक तो मी त्या",
    "ne": "छ छन् र मा को का लाई यो छैन थियो लागि एक पनि हो गर्न भने हुन्छ",
    "ar": "في من على إلى أن هذا هذه التي الذي لا ما هو كان عن مع هي و",
    "fa": "است که را از به در این با برای می و یک آن هم شود کرد ها",
    "ur": "ہے ہیں اور میں کی کے کا کو سے یہ پر نہیں کہ تھا ایک بھی ہو",
    "ru": "и в не на что с по это как для но из от он они мы вы его же или также",
    "bg": "и в не на че с за това как от са се да е ще но или също който която",
    "uk": "і в не на що з та це як для але від він вони ми ви його або також є",
    "en": "the of and to in is that it for was as with be by on not are this have you at or from",
    "de": "der die das und ist nicht ein eine zu den von mit sich des auf für im dem auch es wird ich",
    "fr": "le la les et est des un une dans que pour qui pas sur au avec ce il du plus par vous sont",
    "es": "el la los las y es de que en un una por con para no se del al lo como más su son",
    "it": "il la di che è e un una per non in con del della sono si lo gli le come anche più alla",
    "pt": "o a os as e é de que em um uma para com não se do da no na por mais como são ao",
    "nl": "de het een en van is dat in niet op te zijn voor met die aan er ook als bij maar",
    "sv": "och att det är som en på för av inte den med till har om ett jag de i kan",
    "fi": "ja on ei se että en oli hän mutta joka kun niin myös ovat voi tai mitä minä sekä kuin",
    "pl": "i w nie na się jest że z do to jak ale o co po dla od przez są tak oraz",
    "tr": "ve bir bu da de için ile çok ne olarak daha gibi var ama o en olan kadar değil",
    "vi": "và của là có không được cho một trong các với này người những đã để khi bạn tôi rất",
    "sw": "na ya wa kwa ni katika za la cha hii kama si au hiyo kuwa watu yake sana lakini pia",
    "id": "yang dan di untuk dengan ini itu tidak dari adalah dalam akan pada ke juga saya anda bisa atau ada",
}
_FREQUENT = {language: frozenset(words.split()) for language, words in _WORDS.items()}


def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code of a text's language; None where no letters or too few frequent words tell.

    The script with most letters decides which languages can be meant; of several, the one whose frequent words occur
    most often. Japanese is told from Chinese by its kana.
    """
    counts = Counter({script: len(re.findall(f"[{script}]", text)) for script in _SCRIPTS})
    script, letters = counts.most_common(1)[0]
    if letters == 0:
        return None
    if counts["぀-ヿ"] * 10 > letters:
        return "ja"
    languages = _SCRIPTS[script].split()
    if len(languages) == 1:
        return languages[0]
    words = re.findall(r"[^\W\d_]+(?:[\u0900-\u097F]+)*", text.lower())
    hits = Counter({language: sum(word in _FREQUENT[language] for word in words) for language in languages})
    (best, most), (_, second) = hits.most_common(2)
    return best if most > second else None
