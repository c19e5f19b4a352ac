"""A narrative is XHTML that a browser may show without running anything."""

from __future__ import annotations

import pytest

from bridge import wire
from tests.wire.examples import narrated, refused, xhtml

REFUSED = {
    "plain text": "Ada",
    "another element": '<p xmlns="http://www.w3.org/1999/xhtml">a</p>',
    "no namespace": "<div>a</div>",
    "another namespace": '<div xmlns="http://www.w3.org/2000/svg">a</div>',
    "another namespace within": xhtml('<p xmlns="http://www.w3.org/2000/svg">a</p>'),
    "an element whose name begins alike": '<divx xmlns="http://www.w3.org/1999/xhtml">a</divx>',
    "not closed": '<div xmlns="http://www.w3.org/1999/xhtml"><p>a</div>',
    "two of them": xhtml("a") + xhtml("b"),
    "an HTML entity": xhtml("a&nbsp;b"),
    "an attribute without quotes": xhtml("<table border=1></table>a"),
    "entities of its own": '<!DOCTYPE div [<!ENTITY a "b">]>' + xhtml("&a;"),
    "nothing in it": xhtml(""),
    "white space in it": xhtml("<p> </p>\n"),
    "script": xhtml("<script>a</script>"),
    "SCRIPT": xhtml("<SCRIPT>a</SCRIPT>"),
    "style element": xhtml("<style>a</style>"),
    "form": xhtml("<form>a</form>"),
    "input": xhtml("<input/>a"),
    "iframe": xhtml('<iframe src="http://a"/>a'),
    "object": xhtml("<object>a</object>"),
    "head": xhtml("<head>a</head>"),
    "base": xhtml('<base href="http://a"/>a'),
    "event handler": xhtml('<p onclick="a()">a</p>'),
    "event handler of the div": '<div xmlns="http://www.w3.org/1999/xhtml" onLoad="a()">a</div>',
    "javascript link": xhtml('<a href="javascript:a()">a</a>'),
    "javascript link, disguised": xhtml('<a href=" java&#10;Script:a()">a</a>'),
    "javascript image": xhtml('<img src="javascript:a()" alt=""/>'),
    "running style": xhtml('<p style="width: expression(a())">a</p>'),
}
ACCEPTED = {
    "text": xhtml("a"),
    "white space around": f"\n {xhtml('a')}\n",
    "only an image": xhtml('<img src="#photo" alt="me"/>'),
    "links": xhtml('<a href="http://example.org">a</a><a name="b"/>'),
    "tables": xhtml('<table class="grid"><tbody><tr><td colspan="2">a</td></tr></tbody></table>'),
    "style attribute": xhtml('<p style="color: red">a</p>'),
    "numbers for characters": xhtml("&#160;&amp;&lt;a"),
    "comment and CDATA": xhtml("<!-- a --><![CDATA[b]]>"),
}


@pytest.mark.parametrize("div", REFUSED.values(), ids=REFUSED)
def test_refuses(div: str) -> None:
    assert refused(narrated(div)) == [("Patient.text.div", "value")]


@pytest.mark.parametrize("div", ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(div: str) -> None:
    assert wire.check(narrated(div), strict=True)[1] == []


def test_a_narrative_that_is_no_string_is_refused() -> None:
    assert refused({"resourceType": "Patient", "text": {"status": "empty", "div": 5}}) == [
        ("Patient.text.div", "structure")
    ]
