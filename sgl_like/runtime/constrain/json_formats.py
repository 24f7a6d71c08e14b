r"""The formats of JSON Schema 2020-12 (validation, section 7.3), as regular expressions over characters.

What they accept, the RFC accepts, and so do the checkers of Python's `jsonschema`. Where the two differ, or where an
RFC asks for what is not regular, less is accepted than the RFC allows; each place says so. `regex` is not here:
whether the parentheses of an expression match is not regular.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FORMATS", "Part"]


class Part(NamedTuple):
    """A piece of a format: what matches `pattern` in full, and has at most `most` characters (None: any number)."""

    pattern: str
    most: int | None = None


# RFC 3339, section 5.6, with the right number of days. Without the year 0000, and without leap seconds: which days
# have one is in no grammar, and rfc3339-validator refuses all of them.
_YEAR = r"(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_HOUR_AND_MINUTE = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_HOUR_AND_MINUTE}:[0-5][0-9](?:\.[0-9]{{1,18}})?(?:[Zz]|[+-]{_HOUR_AND_MINUTE})"

# RFC 3339, appendix A: no unit is skipped between two others.
_CLOCK = r"T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)"
_CALENDAR = r"(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)"
_DURATION = rf"P(?:{_CALENDAR}(?:{_CLOCK})?|{_CLOCK}|[0-9]+W)"

# RFC 1123, section 2.1, and RFC 1034, section 3.1. Labels with hyphens in the third and fourth place are left out:
# they are reserved (RFC 5891, section 4.2.3.1), and what may follow "xn--" is not regular.
_END = r"[A-Za-z0-9]"
_MIDDLE = r"[A-Za-z0-9-]"
_LABEL = rf"{_END}(?:{_MIDDLE}{{0,2}}{_END}|{_MIDDLE}(?:{_END}{_MIDDLE}|-{_END}){_MIDDLE}{{0,%d}}{_END})?"
_LONGEST_NAME = 253
_HOSTNAME = rf"{_LABEL % 58}(?:\.{_LABEL % 58})*"

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"


def _ipv6(most: int) -> str:
    """Eight groups, or at most `most` and ``::``; the last two may be an IPv4 address (RFC 4291, section 2.2)."""
    group = r"[0-9A-Fa-f]{1,4}"
    ways = [rf"(?:{group}:){{6}}(?:{group}:{group}|{_IPV4})"]
    for before in range(most + 1):
        start = rf"{group}(?::{group}){{{before - 1}}}" if before else ""
        after = most - before
        ends = [rf"(?:{group}(?::{group}){{0,{after - 1}}})?"] if after else [""]
        if after > 1:
            ends.append(rf"(?:{group}:){{0,{after - 2}}}{_IPV4}")
        ways.append(rf"{start}::(?:{'|'.join(ends)})")
    return rf"(?:{'|'.join(ways)})"


_IPV6 = _ipv6(7)

# RFC 5321, section 4.1.2 and 4.5.3.1; RFC 6531, section 3.3, adds all characters that are not ASCII. In its local
# parts at most 16 characters are written, because the limit is 64 bytes. Domains have a dot: widespread checkers refuse
# others.
_ATOM = r"[A-Za-z0-9!#$%%&'*+/=?^_`{|}~%s-]+"
_QUOTED = r'"(?:[ !#-\[\]-~%s]|\\[ -~])*"'
_LOCAL = rf"{_ATOM}(?:\.{_ATOM})*|{_QUOTED}"
_LDH_LABEL = rf"{_END}(?:{_MIDDLE}{{0,61}}{_END})?"
_DOMAIN = Part(rf"{_LDH_LABEL}(?:\.{_LDH_LABEL})+", _LONGEST_NAME)
_ADDRESS = Part(rf"\[(?:{_IPV4}|[Ii][Pp][Vv]6:{_ipv6(6)})\]")
_ASCII_LOCAL = Part(_LOCAL % ("", "", ""), 64)
_ANY_LOCAL = Part(_LOCAL % (("\x80-\U0010ffff",) * 3), 16)
_AT = Part("@")

# RFC 5890 to 5893: of the letters that may be in a label, those of some scripts that are written from left to right,
# need no context and are the same in every normal form. Eleven of them make less than 60 characters in Punycode, so
# that four labels of them are not too long.
_LATIN = (
    *range(0xDF, 0xF7),
    *range(0xF8, 0x132),
    *range(0x135, 0x13F),
    *range(0x142, 0x149),
    *range(0x14B, 0x17F),
)
_LETTERS = (
    "".join(chr(letter) for letter in _LATIN if chr(letter).islower())
    + "\u03ac-\u03ce\u0430-\u045f\u0904-\u0939\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fff\uac00-\ud7a3"
)
_IDN_LABEL = (
    rf"(?:[a-z0-9{_LETTERS}](?:-?[a-z0-9{_LETTERS}]){{0,5}}|[a-z0-9{_LETTERS}]{{1,11}}|{_LABEL % 54})"
)
_IDN_HOSTNAME = Part(rf"{_IDN_LABEL}(?:\.{_IDN_LABEL}){{0,3}}")
_IDN_DOMAIN = Part(rf"{_IDN_LABEL}(?:\.{_IDN_LABEL}){{1,3}}")

# RFC 3986, appendix A; RFC 3987, section 2.2. The "v" of an address of a future version is a small one.
_PLANES = "".join(f"{chr(plane << 16)}-{chr((plane << 16) + 0xFFFD)}" for plane in range(1, 14))
_UCS = "\xa0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef" + _PLANES + "\U000e1000-\U000efffd"
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd"
_ESCAPE = r"%[0-9A-Fa-f]{2}"


def _resource(wide: str, private: str, may_be_relative: bool) -> str:
    """A URI, with the `wide` characters an IRI, whose query may have `private` ones; or a reference."""
    plain = rf"A-Za-z0-9\-._~!$&'()*+,;={wide}"
    char = rf"(?:[{plain}:@]|{_ESCAPE})"
    user = rf"(?:[{plain}:]|{_ESCAPE})*@"
    host = rf"(?:\[(?:{_IPV6}|v[0-9A-Fa-f]+\.[A-Za-z0-9\-._~!$&'()*+,;=:]+)\]|(?:[{plain}]|{_ESCAPE})*)"
    absolute = rf"//(?:{user})?{host}(?::[0-9]*)?(?:/{char}*)*|/(?:{char}+(?:/{char}*)*)?"
    after = rf"(?:\?(?:[{plain}:@/?{private}]|{_ESCAPE})*)?(?:#(?:[{plain}:@/?]|{_ESCAPE})*)?"
    scheme = r"[A-Za-z][A-Za-z0-9+.\-]*:"
    found = rf"{scheme}(?:{absolute}|{char}+(?:/{char}*)*|){after}"
    if may_be_relative:
        found += rf"|(?:{absolute}|(?:[{plain}@]|{_ESCAPE})+(?:/{char}*)*|){after}"
    return found


# RFC 6570, section 2, with the apostrophe that erratum 6937 adds; without the operators it reserves, and, because the
# checker uri-template refuses them, without names that begin with an escape and lengths of four digits.
_NAME = rf"[A-Za-z0-9_](?:\.?(?:[A-Za-z0-9_]|{_ESCAPE}))*"
_VARIABLE = rf"{_NAME}(?::[1-9][0-9]{{0,2}}|\*)?"
_TEMPLATE = (
    rf"(?:[!#$&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~{_UCS}{_PRIVATE}]|{_ESCAPE}"
    rf"|\{{[+#./;?&]?{_VARIABLE}(?:,{_VARIABLE})*\}})*"
)

# RFC 6901, section 3; Relative JSON Pointers, section 3, without the later "+1"; and without 0 before
# another digit (100), which the checker of `jsonschema` takes for a leading zero.
_POINTER = r"(?:/(?:[^/~]|~[01])*)*"

FORMATS: dict[str, tuple[tuple[Part, ...], ...]] = {
    "date": ((Part(_DATE),),),
    "time": ((Part(_TIME),),),
    "date-time": ((Part(_DATE), Part("[Tt]"), Part(_TIME)),),
    "duration": ((Part(_DURATION),),),
    "email": ((_ASCII_LOCAL, _AT, _DOMAIN), (_ASCII_LOCAL, _AT, _ADDRESS)),
    "idn-email": tuple(
        (local, _AT, domain)
        for local in (_ASCII_LOCAL, _ANY_LOCAL)
        for domain in (_DOMAIN, _ADDRESS, _IDN_DOMAIN)
    ),
    "hostname": ((Part(_HOSTNAME, _LONGEST_NAME),),),
    "idn-hostname": ((Part(_HOSTNAME, _LONGEST_NAME),), (_IDN_HOSTNAME,)),
    "ipv4": ((Part(_IPV4),),),
    "ipv6": ((Part(_IPV6),),),
    "uri": ((Part(_resource("", "", False)),),),
    "uri-reference": ((Part(_resource("", "", True)),),),
    "iri": ((Part(_resource(_UCS, _PRIVATE, False)),),),
    "iri-reference": ((Part(_resource(_UCS, _PRIVATE, True)),),),
    "uuid": ((Part(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),),),
    "uri-template": ((Part(_TEMPLATE),),),
    "json-pointer": ((Part(_POINTER),),),
    "relative-json-pointer": ((Part(rf"(?:0|[1-9]+0?)(?:#|{_POINTER})"),),),
}
"""Each format: one of several ways, each of them some parts in a row."""

NARROWER = {
    "date": "exact, without the year 0000",
    "time": "RFC 3339 without leap seconds; fractions of up to 18 digits",
    "date-time": "RFC 3339 without leap seconds and the year 0000; fractions of up to 18 digits",
    "email": "RFC 5321 with quoted local parts and address literals; a domain has a dot",
    "idn-email": "as `email`, and characters beyond ASCII (then up to 16 characters before the @)",
    "hostname": "RFC 1123, without labels that have `--` in the third and fourth place",
    "idn-hostname": "ASCII host names, or up to four labels of up to 11 letters of left-to-right scripts",
    "uri": "RFC 3986; the `v` of a future IP version is small",
    "uri-reference": "RFC 3986; the `v` of a future IP version is small",
    "iri": "RFC 3987; the `v` of a future IP version is small",
    "iri-reference": "RFC 3987; the `v` of a future IP version is small",
    "uri-template": "RFC 6570, without names that begin with `%`; prefix lengths up to 999",
    "relative-json-pointer": "without a digit before another 0",
}
"""How formats are enforced that are not simply exact: always more narrowly."""
