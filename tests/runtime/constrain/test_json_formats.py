"""Formats against lists from the RFCs, and against the checkers of `jsonschema`."""

from __future__ import annotations

import json
import random

import jsonschema
import pytest

from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.derive import edges, matches, shortest
from sgl_like.runtime.constrain.expr import EMPTY, Node, Pool
from sgl_like.runtime.constrain.json_formats import FORMATS
from sgl_like.runtime.constrain.json_strings import Strings

CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER
LABEL_63 = "a" * 63

VALID = {
    "date": ["2024-02-29", "2000-02-29", "0001-01-31", "9999-12-31", "2023-06-30"],
    "time": ["23:59:59Z", "00:00:00z", "00:00:00.5+09:00", "12:34:56.123456789-00:00", "08:30:06.1234567890123Z"],
    "date-time": ["2024-02-29T12:00:00Z", "1985-04-12t23:20:50.52z", "1937-01-01T12:00:27.87+00:20"],
    "duration": ["P4DT12H30M5S", "PT36H", "P2W", "P1Y2M", "PT1M2S", "P01D", "P1Y2M3DT4H5M6S"],
    "email": [
        "joe.bloggs@example.com", "a@b.c", "te~st@x.org", "#!$%&'*+/=?^_`{|}~-@a-b.c", '"joe bloggs"@example.com',
        '"a@b\\""@c.de', "joe@[127.0.0.1]", "joe@[IPv6:::1]", f"{'x' * 64}@{LABEL_63}.de", "a@xn--9n2bp8q.de",
    ],
    "idn-email": ["실례@실례.테스트", "δοκιμή@example.com", '"δ ή"@example.com', "joe@bücher.de", "joe@[127.0.0.1]"],
    "hostname": ["www.example.com", "hostname", "1host", "a--b.com", "a-b", f"{LABEL_63}.com", "a.1"],
    "idn-hostname": ["실례.테스트", "bücher.example", "пример.рф", "例え.jp", "hostname", "ä-b.de", LABEL_63],
    "ipv4": ["0.0.0.0", "255.255.255.255", "10.20.30.40"],
    "ipv6": [
        "::", "::1", "d6::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::3:4:5:6:7:8",
        "1::d6:192.168.0.1", "::ffff:192.168.0.1", "1000:1000:1000:1000:1000:1000:255.255.255.255", "FE80::a",
    ],
    "uri": [
        "http://foo.bar/?baz=qux#quux", "http://-.~_!$&'()*+,;=:%40:80%2f::::::@example.com", "urn:isbn:123",
        "ldap://[2001:db8::7]/c=GB?objectClass?one", "mailto:John.Doe@example.com", "http://[v1.a:b]:80/",
        "file:///etc/hosts", "http://999.999.999.999/", "a:", "http://example.com:/%20/(x);y,z", "git+ssh://h/p//q",
    ],
    "uri-reference": ["", "//", "//foo.bar/?baz", "/abc", "abc", "#fragment", "?q=1", "./this:that", "http://x/"],
    "iri": ["http://ƒøø.ßår/?∂éœ=πîx#πîüx", "urn:example:resource", "http://[2001:db8::1]", "http://x/😀?\ue000"],
    "iri-reference": ["âππ", "/âππ", "#ƒrägmênt", "", "//ƒøø.ßår/"],
    "uuid": ["2eb8aa08-AA98-11ea-B4Aa-73B441D16380", "00000000-0000-0000-0000-000000000000"],
    "uri-template": [
        "http://example.com/dictionary/{term:1}/{term}", "", "a%41b", "{+var}{#a,b*}{.x}{/y}{;z}{?q}{&r}", "{a.b}",
        "a'b", "é😀",
    ],
    "json-pointer": ["", "/", "/foo//bar", "/~0~1/~01", "/foo\x00\n\t😀", '/"\\'],
    "relative-json-pointer": ["0", "1", "120/foo/bar", "0#", "0//", "2/0/baz"],
}  # fmt: skip

INVALID = {
    "date": ["1900-02-29", "2023-02-29", "0000-01-01", "2024-04-31", "2024-13-01", "2024-1-1", "২024-01-01"],
    "time": ["24:00:00Z", "00:00:00", "12:00:60Z", "12:00:00+24:00", "12:00:00.Z", "12:00Z", "12:00:00Z+00:30"],
    "date-time": ["2024-02-30T12:00:00Z", "2024-02-29 12:00:00Z", "2024-02-29T12:00:00", "2024-02-29T12:00:00Z\n"],
    "duration": ["P", "PT", "P1YT", "P2D1Y", "P1Y2D", "PT1H2S", "P1Y2W", "PT0.5S", "P1", "4D", "-P1D", "P1D2H", "P2S"],
    "email": [
        "2962", ".test@example.com", "te..st@example.com", "joe@invalid=domain.com", "joe@[127.0.0.300]", "@x.de",
        "a b@c.de", "a@b", "a@-b.de", "a@b..c", "a@b.", f"{'x' * 65}@a.de", "a@b@c.de", f"a@{LABEL_63}a.de", "é@a.de",
    ],
    "idn-email": ["2962", "user＠example.com", "a@-ä.de", "é é@a.de", f"{'é' * 40}@a.de"],
    "hostname": [
        "", ".", ".a", "a.", "-a", "a-", "a_b", f"{LABEL_63}a.com", ".".join([LABEL_63] * 4), "xn--X", "aa--b", "ä.de",
        "a..b", "example.com\n",
    ],
    "idn-hostname": ["", ".", "ä-", "-ä", "〮실례", "실〮례", "Ä", "l·a", "aא", "xn--X", "ü" * 64, "a..b"],
    "ipv4": ["256.1.1.1", "01.1.1.1", "1.1.1", "1.1.1.1.1", "1.1.1.1/24", "", "１.1.1.1"],
    "ipv6": [
        "12345::", "1:2:3:4:5:6:7", "1::d6::42", ":2:3:4:5:6:7:8", "1:2:3:4:5:6:7:", "::192.168.0.01", "fe80::a%eth1",
        "1:2:3:4:5:6:7:8::", "1:2:3:4:5:6:7:1.2.3.4", "1:2:3:4:5:::8", "1", "[::1]",
    ],
    "uri": [
        "//foo.bar/", "/abc", "\\\\WINDOWS\\share", "abc", ":// should fail", "bar,baz:foo", "http://example.com/a b",
        "https://[@example.org/", "http://x/é", 'http://x/"', "http://x/<>", "http://x/{}", "http://x/^", "http://x/`",
        "http://x/|", "http://x/%6G", "http://x/%", "1http://x", "http://x:abc/", "http:/[::1]", "http://[::01.2.3.4]",
        "http://a@b@c/", "http://x/#a#b", "",
    ],
    "uri-reference": ["\\\\WINDOWS\\share", "#frag\\ment", "/é", "1:b", "/[::1]", "//a@b@c/", "//x:abc/p", "a b"],
    "iri": ["/abc", "âππ", "http://2001:0db8:85a3::7334:1", "http://x/\n", "http://x/#\ue000", "a:\U000e0001", "a: "],
    "iri-reference": ["\\\\WINDOWS\\filëßåré", "#ƒräg\\mênt", "é é", "\ufffe"],
    "uuid": ["2eb8aa08-aa98-11ea-b4aa-73b441d1638", "2eb8aa08aa9811eab4aa73b441d16380", "urn:uuid:" + "0" * 36],
    "uri-template": ["{}", "{a,,b}", "{v:0}", "{v:10000}", "foo}bar", "{a..b}", "a b", "{a,}", "{x", "\x7f"],
    "json-pointer": ["a", "#", "/~", "/~2", "/a/~0~", "0"],
    "relative-json-pointer": ["/a", "-1/a", "01", "01#", "", "0##", "1#/a", "0/~2", "١/a", "1\n", "100"],
}  # fmt: skip


def _expression(name: str) -> tuple[Pool, Node]:
    pool = Pool(Limits())
    return pool, Strings(pool).from_schema({"format": name}, "")


def _sample(pool: Pool, node: Node, rng: random.Random, length: int) -> str:
    path = bytearray()
    while True:
        following = edges(pool, node)
        if node.nullable and not following:
            return json.loads(path)
        if len(path) > length:
            return json.loads(path + shortest(pool, node))
        mask, node = rng.choice(following)
        path.append(rng.choice([byte for byte in range(256) if mask >> byte & 1]))


def _agrees(text: str, name: str) -> bool:
    """Whether the checker accepts `text`. The one for IRIs (rfc3987-syntax 1.1) only knows characters of the basic
    plane, and not all addresses: it refuses ``http://[2001:db8::1]``.
    """
    if name.startswith("iri") and any(character == "[" or character > "\uffff" for character in text):
        return True
    return bool(CHECKER.conforms(text, name))


@pytest.mark.parametrize("name", FORMATS)
def test_lists(name: str) -> None:
    pool, node = _expression(name)
    for text in VALID[name]:
        assert matches(pool, node, json.dumps(text, ensure_ascii=False).encode()), text
        assert _agrees(text, name), text
    for text in INVALID[name]:
        assert not matches(pool, node, json.dumps(text, ensure_ascii=False).encode()), text


@pytest.mark.parametrize("name", FORMATS)
def test_checkers_accept_samples(name: str) -> None:
    assert name in CHECKER.checkers
    pool, node = _expression(name)
    rng = random.Random(name)
    for _ in range(30):
        pool.start_work()
        text = _sample(pool, node, rng, rng.choice((5, 20, 80)))
        assert _agrees(text, name), text


@pytest.mark.parametrize("name", ["hostname", "email"])
def test_long_samples(name: str) -> None:
    """Lengths in all are kept to."""
    pool, node = _expression(name)
    rng = random.Random(0)
    for _ in range(5):
        pool.start_work()
        text = _sample(pool, node, rng, 1_000)
        local, _, host = text.rpartition("@")
        assert len(local) <= 64, text
        assert len(host) <= 253 or host.startswith("["), text
        assert _agrees(text, name), text


def test_with_length_and_pattern() -> None:
    pool = Pool(Limits())
    strings = Strings(pool)
    node = strings.from_schema({"format": "email", "maxLength": 6, "pattern": "^a"}, "")
    assert matches(pool, node, b'"ab@c.d"')
    assert not matches(pool, node, b'"ab@c.de"')
    assert not matches(pool, node, b'"b@c.de"')
    assert strings.from_schema({"format": "date", "maxLength": 9}, "") is EMPTY


def test_is_kept() -> None:
    pool = Pool(Limits())
    node = Strings(pool).from_schema({"format": "uri", "pattern": "^http"}, "")
    made = pool.byte_set(0b11).serial
    assert Strings(pool).from_schema({"format": "uri", "pattern": "^http"}, "") is node
    assert pool.byte_set(0b110).serial == made + 1
