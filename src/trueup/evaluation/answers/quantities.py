"""Quantities in plain text: numbers in digits and words, with their units; dates, times of day, ranges.

A value is an exact fraction: 0.75, 3/4, 75% and "three quarters" are equal. Where a notation can be read in two ways
(04/07/1776) a quantity has both values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

Kind = Literal["number", "date", "time", "range"]
Value = Fraction | tuple[int | None, int | None, int | None]
"""A number; a time in minutes after midnight; a date (year, month, day) with None for a part that is not given."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of measurement: a value in it is `value * factor + offset` in the base unit of its dimension."""

    name: str
    dimension: str
    factor: Fraction
    offset: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity in a text.

    Attributes:
        kind: number, date, time of day, or a range of numbers.
        values: its value; more than one where it can be read in several ways; low and high end of a range.
        start, end: its place in the text, with its unit.
        unit: its unit, or None.
        decimals: the number of written decimal places.
        written: True if it was written with letters, as in "one": such a word need not be a number.
    """

    kind: Kind
    values: tuple[Value, ...]
    start: int
    end: int
    unit: Unit | None = None
    decimals: int = 0
    written: bool = False


# --- Units: names of each, in units of the dimension's base unit -------------------------------------------------------

_UNITS = """
length: mm|millimet(?:er|re) .001, cm|centimet(?:er|re) .01, dm|decimet(?:er|re) .1, m|met(?:er|re) 1
length: km|kilomet(?:er|re) 1000, inch|inche .0254, ft|foot|feet .3048, yd|yard .9144, mi|mile 1609.344
volume: ml|millilit(?:er|re) .001, cl|centilit(?:er|re) .01, l|lit(?:er|re) 1, gallon 3.785411784
mass: mg|milligram .001, g|gram|gramme 1, kg|kilogram|kilo 1000, t|tonne|ton 1000000, lb|lbs|pound 453.59237, oz|ounce 28.349523125
time: ms|millisecond .001, s|sec|second 1, min|minute 60, h|hr|hour 3600, day 86400, week 604800
age: month 1, year|yr 12, decade 120, century|centurie 1200
angle: radian|rad 57.29577951308232
speed: m/s|mps|met(?:er|re)s? per second 1, km/s|kilomet(?:er|re)s? per second 1000, km/h|kph|kmh|kilomet(?:er|re)s? per hour 5/18, mph|miles? per hour .44704
energy: J|joule 1, kJ|kilojoule 1000, cal|calorie 4.184, kcal|kilocalorie 4184, kWh 3600000
power: W|watt 1, kW|kilowatt 1000, MW|megawatt 1000000
pressure: Pa|pascal 1, hPa 100, kPa|kilopascal 1000, bar 100000, atm|atmosphere 101325
force: N|newton 1
frequency: Hz|hert 1, kHz 1000, MHz 1000000, GHz 1000000000
data: bit 1, byte 8, KB|kilobyte 8000, MB|megabyte 8000000, GB|gigabyte 8000000000, TB|terabyte 8000000000000
percent: %|percent|per cent|pct|percentage|percentage point 1
dollar: $|USD|US$|dollar|buck 1, cent .01
euro: €|EUR|euro 1
pound: £|GBP|pound sterling|quid 1
yen: ¥|JPY|yen 1
rupee: ₹|INR|rupee 1
degree: °|degree|deg 1
celsius: °C|C|° C|degrees? C|degrees? celsius|degrees? centigrade|celsius|centigrade 1
fahrenheit: °F|F|° F|degrees? F|degrees? fahrenheit|fahrenheit 1
kelvin: K|kelvin 1
"""
_TEMPERATURES = {  # in kelvin
    "celsius": (Fraction(1), Fraction(27315, 100)),
    "fahrenheit": (Fraction(5, 9), Fraction(45967, 180)),
    "kelvin": (Fraction(1), Fraction(0)),
}


def _units() -> list[tuple[str, Unit]]:
    """Return (pattern of its names, unit) for each unit, the longest names first."""
    units: list[tuple[str, Unit]] = []
    for line in _UNITS.strip().splitlines():
        dimension, _, rest = line.partition(": ")
        for part in rest.split(", "):
            names, _, factor = part.rpartition(" ")
            for name in names.split("|") if "(?:" not in names else re.split(r"\|(?![^(]*\))", names):
                scale, offset = _TEMPERATURES.get(dimension, (Fraction(factor), Fraction(0)))
                kind = "temperature" if dimension in _TEMPERATURES else dimension
                units.append((name, Unit(names.split("|")[0], kind, scale, offset)))
    return sorted(units, key=lambda item: -len(item[0]))


def _pattern(name: str) -> str:
    """Return the regular expression of a unit's name: symbols as they are, words in any case and number."""
    text = name.replace("$", r"\$")
    if re.fullmatch(r"[^a-z]*|[A-Za-z]{1,2}|[kMGm]Hz|k?Wh?|[hk]Pa|kJ|° ?[CFK]|degrees\? [CF]|US\$|[mk]+/[sh]", name):
        return text
    return f"(?i:{text}(?:e?s)?)"


_LIST = _units()
_ALTERNATIVES = "|".join(f"(?P<u{index}>{_pattern(name)})" for index, (name, _) in enumerate(_LIST))
_UNIT = re.compile(
    rf"[\s-]?\s?(?P<power>(?i:square|sq\.?|cubic|cu\.?)\s)?(?:{_ALTERNATIVES})"
    r"(?P<exponent>\^?[23](?!\d))?(?![A-Za-z0-9/])(?P<suffix>\s(?i:squared|cubed))?"
)
_BY_NAME = {unit.name: unit for _, unit in _LIST}


def unit_at(text: str, place: int) -> tuple[Unit, int] | None:
    """Return the unit whose name begins at `place` of a text, after a space or hyphen at most, and the place behind."""
    match = _UNIT.match(text, place)
    if match is None or match.end() == place:
        return None
    unit = next(_LIST[int(name[1:])][1] for name, part in match.groupdict().items() if part and name[1:].isdigit())
    word = f"{match['power'] or ''}{match['suffix'] or ''}".lower()
    power = 3 if "cu" in word or (match["exponent"] or "").endswith("3") else 2 if word or match["exponent"] else 1
    if power > 1:
        unit = Unit(f"{unit.name}^{power}", f"{unit.dimension}^{power}", unit.factor**power)
    return unit, match.end()


def unit_asked(question: str) -> Unit | None:
    """Return the unit in which a question asks for its answer: "in square metres", "how many minutes", "what percent"."""
    places = re.finditer(
        r"\b(?:in|how many|number of|what|which)\s+(?:(?:billions?|millions?|thousands?|hundreds?) of )?"
        r"(?=[a-z°%$€£])|\(in\s+|\((?=[a-z°%$€£/^0-9]{1,12}\)$)",
        question.rstrip("?. "), re.IGNORECASE,
    )  # fmt: skip
    for place in places:
        match = unit_at(question, place.end())
        if match and not (place[0].lower().startswith(("what", "which")) and match[0].dimension != "percent"):
            return match[0]
    return None


# --- Numbers in words --------------------------------------------------------------------------------------------------

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = (
    {word: index for index, word in enumerate(_ONES)}
    | {word: 10 * index for index, word in enumerate(_TENS, 2)}
    | {"fourty": 40, "dozen": 12}
)
_SCALES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
    "k": 10**3, "bn": 10**9, "lakh": 10**5, "crore": 10**7,
}  # fmt: skip
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4, "fifth": 5,
    "fifths": 5, "sixth": 6, "sixths": 6, "seventh": 7, "sevenths": 7, "eighth": 8, "eighths": 8, "ninth": 9,
    "ninths": 9, "tenth": 10, "tenths": 10, "twelfth": 12, "twelfths": 12, "hundredth": 100, "hundredths": 100,
}  # fmt: skip
NUMBER_WORDS = (*_ONES, *_TENS)
"""The words from zero to nineteen, and the tens."""
_WORD = "|".join(sorted({*_SMALL, *_SCALES} - {"k", "bn"}, key=len, reverse=True))
_PART = "|".join(sorted(_PARTS, key=len, reverse=True))
_IN_WORDS = re.compile(
    rf"(?<![\w-])(?:(?P<sign>minus|negative)\s+)?(?:(?P<article>an?)\s+(?=(?:{_WORD}|{_PART})\b))?"
    rf"(?:(?P<words>(?:{_WORD})\b(?:(?:\s+and\s+|[\s-]+)(?:{_WORD})\b)*)(?:(?:\s+and)?(?:\s+(?:an?|(?P<count>{'|'.join(_ONES)})))?"
    rf"[\s-]+(?P<more>{_PART})\b)?|(?P<part>{_PART})\b)",
    re.IGNORECASE,
)


def _in_words(match: re.Match[str]) -> Fraction | None:
    """Return the value of a number in words: "one hundred and forty-four", "two and a half", "three quarters"."""
    value = Fraction(0)
    if match["part"]:
        value = Fraction(1, _PARTS[match["part"].lower()])
    else:
        words = [word for word in re.split(r"[\s-]+", match["words"].lower()) if word != "and"]
        whole = _cardinal(words)
        if whole is None:
            return None
        value = Fraction(whole)
        if match["more"]:
            part = Fraction(1, _PARTS[match["more"].lower()])
            joined = re.search(r"\band\b(?=\s+(?:an?|\w+)?[\s-]*" + match["more"] + "$)", match[0], re.IGNORECASE)
            if match["count"]:
                value = whole + Fraction(_SMALL[match["count"].lower()]) * part
            else:
                value = whole + part if joined else whole * part
    return -value if match["sign"] else value


def _cardinal(words: list[str]) -> int | None:
    """Return the value of number words; None where they are several numbers in a row ("two three")."""
    total, group, last = 0, 0, 10**18
    for index, word in enumerate(words):
        if word in _SCALES and (index > 0 or word != "dozen"):
            scale = _SCALES[word]
            group = max(group, 1) * scale
            if scale > 100:
                total, group = total + group, 0
            last = scale
            continue
        small = _SMALL[word]
        if small >= 10 and 10 <= group < 100 and total == 0 and index == 1:  # nineteen forty-five
            group, last = group * 100 + small, small
            continue
        if group % 100 and not (last in range(20, 100, 10) and 0 < small < 10):
            return None
        group, last = group + small, small
    return total + group


# --- Numbers in digits -------------------------------------------------------------------------------------------------

_DIGITS = (
    r"\d{1,3}(?:,\d{3})+(?![\d])(?:\.\d+)?"  # 1,234.5
    r"|\d{1,3}(?:[ '_]\d{3})+(?!\d)(?:[.,]\d+)?"  # 1 234,5
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)"  # 12,34,567
    r"|\d{1,3}(?:\.\d{3}){2,}(?!\d)(?:,\d+)?|\d{1,3}(?:\.\d{3})+,\d+"  # 1.234.567
    r"|\d+\.\d+|\d+,\d+(?![\d]|,\s?\d)|\d+|\.\d+"
)
_NUMBER = re.compile(
    r"(?P<sign>(?:(?<![\w)\]}.%°])|(?<=[:=(]))[-+](?=[$€£¥₹\d.])|\b(?:minus|negative)\s+(?=[$€£¥₹\d.]))?"
    rf"(?P<currency>[$€£¥₹]\s?(?P<sign2>-)?)?(?<![A-Za-z\d_.])(?P<digits>{_DIGITS})(?!\d*s\b)"
    r"(?:(?P<mixed>\s+(?:and\s+)?\d+/\d+)(?![\d/])|(?P<over>\s?/\s?\d+(?![\d/]|\.\d)))?"
    r"(?:[eE](?P<e>[-+]?\d{1,3})(?!\w)|\s?(?:[×x*])\s?10\s?(?:\^|\*\*)\s?\(?(?P<ten>[-+]?\d{1,3})\)?|\^\(?(?P<power>-?\d{1,3})\)?)?"
    r"(?:\s?(?P<scale>(?i:hundred|thousand|million|billion|trillion|dozen|bn|lakh|crore)|[kK](?![a-z])|(?<=\d)[mM](?=\s*(?:dollars|euros|people)))\b)?"
    r"(?P<ordinal>(?<=\d)(?:st|nd|rd|th)\b)?"
)


def _grouped(digits: str) -> tuple[Fraction, int]:
    """Return the value of digits with separators, and the number of decimal places."""
    plain = re.sub(r"[ '_]", "", digits)
    if re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|\d{1,2}(?:,\d{2})+,\d{3}", plain):
        plain = plain.replace(",", "")
    elif re.fullmatch(r"\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?|\d{1,3}(?:\.\d{3})+,\d+", plain):
        plain = plain.replace(".", "").replace(",", ".")
    plain = plain.replace(",", ".")
    return Fraction(plain if not plain.startswith(".") else "0" + plain), len(plain.partition(".")[2])


def _in_digits(match: re.Match[str]) -> tuple[Fraction, int] | None:
    """Return the value of a number in digits, and its decimal places; None for a division by zero."""
    value, decimals = _grouped(match["digits"])
    for part, whole in ((match["mixed"], value), (match["over"], None)):
        if part:
            top, _, bottom = part.replace("and", "").strip().partition("/")
            if not int(bottom):
                return None
            value = value / int(bottom) if whole is None else whole + Fraction(int(top), int(bottom))
    exponent = match["e"] or match["ten"]
    if exponent:
        value *= Fraction(10) ** int(exponent)
    if match["power"]:
        power = int(match["power"])
        if (value == 0 and power < 0) or abs(value) > 10**6:
            return None
        value **= power
    if match["scale"]:
        value *= {"m": 10**6}.get(match["scale"].lower()) or _SCALES[match["scale"].lower()]
    return (-value if (match["sign"] or match["sign2"] or "").strip() not in ("", "+") else value), decimals


# --- Dates and times ---------------------------------------------------------------------------------------------------

_MONTHS = "january february march april may june july august september october november december".split()
_MONTH = r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?(?![\d:])"
_YEAR = r"(?P<year>[12]\d{3})(?!\d)"
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?<![\w.])(?P<year>[12]\d{3})[-/.](?P<month>[01]?\d)[-/.](?P<day>[0-3]?\d)(?!\d)",
        rf"(?<![\w])(?:the\s+)?{_DAY}\.?\s+(?:day\s+)?(?:of\s+)?{_MONTH}(?:,?\s+(?:of\s+|in\s+)?{_YEAR})?",
        rf"(?<![\w]){_MONTH}\s+(?:the\s+)?{_DAY}(?:,?\s+(?:of\s+|in\s+)?{_YEAR})?",
        rf"(?<![\w]){_MONTH},?\s+(?:of\s+)?{_YEAR}",
        rf"(?<![\w.])(?P<day>[0-3]?\d)[/.-](?P<month>[0-3]?\d)[/.-]{_YEAR}",
    )
)
_TIME = re.compile(
    r"(?<![\w:.])(?:(?P<hour>[0-2]?\d):(?P<minute>[0-5]\d)(?::[0-5]\d)?(?![\d:])|(?P<full>[01]?\d)(?=\s?(?:[ap]\.?m\b|o'clock|in the (?:morning|afternoon|evening))))"
    r"\s?(?:o'clock)?\s?(?P<half>[ap]\.?\s?m\b\.?|in the (?:morning|afternoon|evening)|at night)?",
    re.IGNORECASE,
)
_CLOCK = re.compile(
    rf"\b(?P<offset>half|(?:a )?quarter|(?:{'|'.join(_ONES)}|{'|'.join(_TENS)})(?: minutes?)?|\d\d? minutes?)\s+(?P<way>past|to|after|before)\s+"
    rf"(?P<hour>{'|'.join(_ONES[1:13])}|\d\d?|noon|midnight)\b\s?(?P<half>[ap]\.?\s?m\b\.?|in the (?:morning|afternoon|evening)|at night)?",
    re.IGNORECASE,
)


def _date(match: re.Match[str]) -> tuple[Value, ...] | None:
    parts = match.groupdict()
    year = int(parts["year"]) if parts.get("year") else None
    day = int(parts["day"]) if parts.get("day") else None
    name = parts["month"]
    if name.isdigit():
        month = int(name)
        orders = {(month, day)} if match[0][:4].isdigit() else {(month, day), (day, month)}
        readings = [(year, m, d) for m, d in sorted(orders, key=str) if m and d and m <= 12 and d <= 31]
        return tuple(readings) or None
    month = next(index for index, full in enumerate(_MONTHS, 1) if full.startswith(name.lower()[:3]))
    return ((year, month, day),) if day is None or 1 <= day <= 31 else None


def _halves(minutes: int, half: str | None) -> tuple[Value, ...]:
    """Return a time in minutes after midnight; both halves of the day where it is not said which."""
    hour = minutes // 60
    if half is None:
        other = (minutes + 720) % 1440
        return (Fraction(minutes), Fraction(other)) if 1 <= hour <= 12 else (Fraction(minutes),)
    morning = (half.lower().startswith("a") and "at night" not in half.lower()) or "morning" in half.lower()
    minutes %= 720
    return (Fraction(minutes if morning else minutes + 720),)


def _clock_time(match: re.Match[str]) -> tuple[Value, ...] | None:
    if "way" in match.groupdict():
        name = match["hour"].lower()
        hour = {"noon": 12, "midnight": 0}.get(name, int(name) if name.isdigit() else _SMALL.get(name, 0))
        word = match["offset"].lower().removeprefix("a ").split()[0]
        offset = {"half": 30, "quarter": 15}.get(word) or (int(word) if word.isdigit() else _SMALL[word])
        minutes = hour * 60 + (offset if match["way"].lower() in ("past", "after") else -offset)
        half = "am" if name == "midnight" else "pm" if name == "noon" else match["half"]
        return _halves(minutes % 1440, half)
    minutes = int(match["hour"] or match["full"]) * 60 + int(match["minute"] or 0)
    return _halves(minutes, match["half"]) if minutes < 1440 else None


# --- All quantities of a text ------------------------------------------------------------------------------------------


def quantities(text: str) -> list[Quantity]:
    """Return the quantities of a plain text in order of their places, which do not overlap."""
    matches = [Quantity("date", values, match.start(), match.end()) for match, values in _dated(text)]
    matches += [Quantity("time", values, match.start(), match.end()) for match, values in _timed(text)]
    matches += _numbers(text)
    result: list[Quantity] = []
    for quantity in sorted(matches, key=lambda quantity: (quantity.start, -quantity.end)):
        if not result or quantity.start >= result[-1].end:
            result.append(quantity)
    return _ranges(text, result)


def _dated(text: str) -> Iterator[tuple[re.Match[str], tuple[Value, ...]]]:
    for pattern in _DATES:
        for match in pattern.finditer(text):
            values = _date(match)
            if values:
                yield match, values


def _timed(text: str) -> Iterator[tuple[re.Match[str], tuple[Value, ...]]]:
    for pattern in (_TIME, _CLOCK):
        for match in pattern.finditer(text):
            values = _clock_time(match)
            if values:
                yield match, values


def _numbers(text: str) -> Iterator[Quantity]:
    for match in _NUMBER.finditer(text):
        number = _in_digits(match)
        if number is None:
            continue
        start, end, unit = match.start(), match.end(), None
        if match["currency"]:
            unit = _BY_NAME[match["currency"].strip(" -")]
        elif (place := unit_at(text, end)) is not None and not match["ordinal"]:
            unit, end = place
        yield Quantity("number", (number[0],), start, end, unit, number[1])
    for match in _IN_WORDS.finditer(text):
        value = _in_words(match)
        if value is None:
            continue
        place = unit_at(text, match.end())
        unit, end = place or (None, match.end())
        yield Quantity("number", (value,), match.start(), end, unit, written=True)


def _ranges(text: str, items: list[Quantity]) -> list[Quantity]:
    """Return the quantities with "10-20", "10 to 20", "between 10 and 20" joined to ranges."""
    result: list[Quantity] = []
    for item in items:
        last = result[-1] if result else None
        if last and last.kind == item.kind == "number" and _is_range(text, last, item):
            unit = last.unit or item.unit
            result[-1] = replace(last, kind="range", values=(*last.values, *item.values), end=item.end, unit=unit)
        else:
            result.append(item)
    return result


def _is_range(text: str, low: Quantity, high: Quantity) -> bool:
    between = text[low.end : high.start].strip().lower()
    if between == "and":
        return re.search(r"\bbetween\s*$", text[max(0, low.start - 12) : low.start], re.IGNORECASE) is not None
    if between in ("-", "to", "until", "till", "through"):
        first, second = low.values[0], high.values[0]
        return isinstance(first, Fraction) and isinstance(second, Fraction) and (between != "-" or first < second)
    if between == "" and high.start == low.end and text[high.start] == "-":  # 1914-1918
        return True
    return between == "\u2013"


# --- Comparing ---------------------------------------------------------------------------------------------------------


def equal(given: Quantity, key: Quantity, asked: Unit | None = None, *, rounded: bool = True) -> bool:
    """Return True if a given quantity has the value of an accepted one.

    Units are converted. A quantity without a unit is taken in the other's unit, or in the one that the question asks
    for. Of a date the parts that the accepted one has are compared. With `rounded` a rounding of a number gives it too.
    """
    if key.kind == "date":
        return given.kind == "date" and any(_same_date(a, b) for a in given.values for b in key.values)
    if key.kind == "time" or given.kind == "time":
        return given.kind == key.kind and bool(set(given.values) & set(key.values))
    if given.kind == "date":
        return any(isinstance(date, tuple) and Fraction(date[0] or -1) in key.values for date in given.values)
    if "range" in (given.kind, key.kind):
        return given.kind == key.kind and given.values == key.values
    return _same_number(given, key, asked, rounded=rounded)


def _same_date(given: Value, key: Value) -> bool:
    if not isinstance(given, tuple) or not isinstance(key, tuple):
        return False
    return all(part is None or part == other for part, other in zip(key, given, strict=True))


def _same_number(given: Quantity, key: Quantity, asked: Unit | None, *, rounded: bool) -> bool:
    ours, theirs = given.values[0], key.values[0]
    assert isinstance(ours, Fraction)
    assert isinstance(theirs, Fraction)
    unit, wanted = given.unit, key.unit or asked
    if unit is None or wanted is None or unit.name == wanted.name:
        same = ours == theirs or (rounded and _is_rounding(ours, given, theirs, key))
        return same or _as_percent(given, key, ours, theirs)
    if {unit.dimension, wanted.dimension} & {"degree"} and {unit.dimension, wanted.dimension} <= {
        "degree", "temperature", "angle",
    }:  # fmt: skip
        return ours == theirs
    if unit.dimension != wanted.dimension:
        return False
    a, b = (value * scale.factor + scale.offset for value, scale in ((ours, unit), (theirs, wanted)))
    return abs(a - b) <= abs(b) * Fraction(1, 500) if b else a == b


def _as_percent(given: Quantity, key: Quantity, ours: Fraction, theirs: Fraction) -> bool:
    """Return True for 0.75 or 3/4 where 75% is expected, and the other way round."""
    is_percent = [quantity.unit is not None and quantity.unit.dimension == "percent" for quantity in (given, key)]
    if is_percent == [True, False]:
        return ours / 100 == theirs
    return is_percent == [False, True] and ours == theirs / 100


def _is_rounding(ours: Fraction, given: Quantity, theirs: Fraction, key: Quantity) -> bool:
    """Return True for a value that is the other's rounding to at least two decimals.

    An accepted 3.14 is also given by 3.14159 (two more decimals than accepted: 0.254 is not 0.25), and 1/3 by 0.33.
    """
    if key.decimals >= 2 and (given.decimals >= key.decimals + 2 or not _terminates(ours)):
        return round(ours, key.decimals) == theirs
    return given.decimals >= 2 and not _terminates(theirs) and round(theirs, given.decimals) == ours


def _terminates(value: Fraction) -> bool:
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1
