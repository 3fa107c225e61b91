"""Words of a question: split, folded, weighed by their language. Pure and light."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

MOST_WORDS: Final = 32
"""Words of a question that are looked for; the rest is dropped."""
LONGEST_WORD: Final = 64
MOST_CHARACTERS: Final = 4_000
"""Characters of a question that are looked at."""

_UNUSABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufeff]")
_WORD: Final = re.compile(r"[^\W\d_]+")

STOPWORDS: Final[Mapping[str, frozenset[str]]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": "a about an and are as at be by can could do does for from had has have how i if in is it"
        " me my not of on or our please should so that the their them there they this to want was we were"
        " what when where which who why will with would you your",
        "de": "aber als am an auch auf aus bei bin bis bitte das dass dem den der des die dir du ein eine"
        " einem einen einer er es euch für habe haben hat ich ihr im in ist ja kann können man mein mich mir"
        " mit möchte nach nicht noch oder sie sind so über um und uns unser von vor wann war was wer wie"
        " wir wird wo zu zum zur",
        "fr": "à au aux avec bonjour ce ces cette comment dans de des du elle en est et eu il ils j je l la"
        " le les leur lui ma mais me mes mon ne nous on ou où par pas pour pourquoi quand que quel qui sa"
        " se ses son sont sur ta te tu un une veux vos votre vous voudrais",
        "es": "a al como con cómo cuando cuándo de del desde dónde el ella en es está este esta hay hola la"
        " las le lo los me mi mis muy más no nos o para pero por porque puedo que qué quiero se si sin son"
        " su sus también tengo un una usted y ya yo",
        "it": "a ai al alla anche che chi ci come con cosa da del della di dove e è gli ho i il in io la le"
        " lo ma mi mio nel non o per perché più posso quando questo se si sono su tra un una vorrei",
        "nl": "aan als bij dan dat de deze die dit een en er heb het hij hoe ik in is je kan maar me met"
        " mijn naar niet of om onze op over te tot u uw van voor waar wanneer was wat we wie wil zijn",
        "pt": "a ao aos as até com como da das de do dos e é ela ele em entre esta este eu há isso já mais"
        " mas me meu minha na não no nos o onde os ou para pela por posso qual quando que quero são se sem"
        " seu sua também tem um uma você",
    }.items()
}
"""The commonest words by language: they carry no topic, and they tell the language."""
EVERY_STOPWORD: Final = frozenset().union(*STOPWORDS.values())


def tidy(text: str) -> str:
    """Composed (NFC), without characters that a database or an index cannot hold."""
    return unicodedata.normalize("NFC", _UNUSABLE.sub(" ", text))


def search_words(question: str) -> list[str]:
    """The words of a question to look for, in its order, each once.

    Common words go unless nothing else is left. Whatever stands between spaces and holds a letter or a digit
    counts as a word; an index splits it further by its own rules.
    """
    found: dict[str, str] = {}
    for word in tidy(question[:MOST_CHARACTERS]).split():
        if any(character.isalnum() for character in word):
            found.setdefault(word.lower(), word[:LONGEST_WORD])
        if len(found) == 4 * MOST_WORDS:
            break
    kept = [word for key, word in found.items() if _bare(key) not in EVERY_STOPWORD]
    return (kept or list(found.values()))[:MOST_WORDS]


def content_words(text: str) -> list[str]:
    """The lower-case words that carry a topic, in order, repetitions included."""
    found = (word.lower() for word in _WORD.findall(tidy(text)))
    return [word for word in found if len(word) > 1 and word not in EVERY_STOPWORD]


def detect_language(text: str) -> str:
    """The language whose commonest words a text uses most (`en`, `de`, …); empty where none stands out."""
    words = [word.lower() for word in _WORD.findall(tidy(text[:MOST_CHARACTERS]))]
    scores = {language: sum(word in common for word in words) for language, common in STOPWORDS.items()}
    best = max(scores.values())
    winners = [language for language, score in scores.items() if score == best]
    return winners[0] if best and len(winners) == 1 else ""


def same_stem(one: str, other: str) -> bool:
    """Whether two lower-case words share a beginning long enough to be forms of one word."""
    if one == other:
        return True
    shared = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        shared += 1
    shorter, longer = sorted((len(one), len(other)))
    alike = shared == shorter >= 4 or shared >= max(5, shorter - 3)
    return alike and longer - shared <= 6


def _bare(word: str) -> str:
    return word.strip(".,;:!?¿¡\"'“”„«»()[]{}…-")


def joined(words: Sequence[str]) -> str:
    """A list for people: `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]
