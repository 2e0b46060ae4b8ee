#!/usr/bin/env python3
"""Writes tests/goldens/templates/corpus.jsonl: constructs of jinja2 templates with the text that jinja2 makes of them.

usage: template_corpus.py [OUT]      needs Python 3.11 and jinja2 3.1 (pip install "jinja2==3.1.*")

The environment is built as transformers builds it for chat templates (sandboxed and immutable, trim_blocks,
lstrip_blocks, loop controls, tojson by json.dumps, raise_exception, strftime_now, the generation tag). The first line is
the request that all templates are rendered with; every other line is [subject, template, text], where the text is null if
jinja2 refuses to compile or to render. What can not be the same from run to run is left out: see LEFT_OUT.
"""

import datetime
import itertools
import json
import os
import random as random_numbers
import sys

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Left out, and why:
# - random, lipsum: by chance.
# - texts with the address of an object (generators, functions, macros printed as they are).
# - integers beyond 128 bits, and characters newer than the tables of either side: bounds of this engine (docs/compared.md).
LEFT_OUT = (" at 0x",)

NOW = datetime.datetime(2026, 7, 26, 12, 0, 0)


class Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}`, a block of its own whose text stays."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: NOW.strftime(format)
    return env


REQUEST = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello <b>you</b> & 'them'"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"type": "function", "function": {"name": "sum_up", "arguments": {"x": 1.0, "y": [1, 2], "z": "ü"}}}]},
        {"role": "tool", "content": "3", "name": "sum_up"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "sum_up", "description": "x < y & 'z'", "parameters": {
            "type": "object", "properties": {"x": {"type": "number"}, "items": {"type": "array"}},
            "required": ["x"]}}},
        {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}},
    ],
    "users": [
        {"name": "bob", "age": 31, "city": {"name": "Rome"}, "active": True},
        {"name": "Al", "age": 22, "city": {"name": "Oslo"}, "active": False},
        {"name": "cy", "age": 31, "city": {"name": "rome"}, "active": True},
        {"name": "Dee", "age": 22.5, "city": {"name": "Bern"}},
    ],
    "text": "The quick brown-fox jumps over\nthe lazy dog's  back.\n\nSecond paragraph",
    "big": 1e22, "small": 1e-7, "third": 0.1, "wide": 12345678901234567890, "negative": -7,
    "long": ["a rather long text that goes on", {"key": "value", "another key": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]},
             "and a third text to fill more than one line", None, True, 2.5],
    "add_generation_prompt": True,
    "bos_token": "<s>", "eos_token": "</s>",
}

# Expressions of every kind of value.
VALUES = ["''", "'abc'", "'Hello World foo-bar'", "'  x y\t\\n'", "'ÄÖ straße'", "'42'", "'-1.5e3'", "'<a href=\"x\">b</a>'",
          "0", "1", "-3", "2.5", "1e22", "true", "none", "missing", "[]", "[3, 1, 2]", "['b', 'A', 'c']", "[1, 'a']",
          "(1, 2)", "{}", "{'b': 1, 'a': 2}", "range(3)", "'<b>'|e", "[[1, 2], [0]]", "users[0]"]
GENERATORS = {"map", "select", "reject", "selectattr", "rejectattr", "unique", "batch", "slice", "items", "reverse"}


def shown(expression, name=""):
    """A print of an expression; what generators give as a list."""
    if name in GENERATORS:
        return "{{ (" + expression + ")|list }}"
    return "{{ " + expression + " }}"


def filters():
    names = """abs capitalize center count d default dictsort e escape filesizeformat first float forceescape indent int
        items join last length list lower max min pprint reverse round safe select reject sort string striptags sum title
        tojson trim truncate unique upper urlencode urlize wordcount wordwrap xmlattr""".split()
    for name in names:
        for value in VALUES:
            # The order of a dict's own text and of JSON is that of its keys: nothing is left to chance.
            yield "filter " + name, shown(f"({value})|{name}", name)
    arguments = {
        "abs": ["-3", "-2.5", "true", "big"],
        "attr": ["users[0]|attr('name')", "users[0]|attr('items')()|list", "'ab'|attr('upper')()", "'ab'|attr(name='nope')",
                 "(1, 2)|attr('count')(1)", "missing|attr('x')", "'a'|attr('__class__')", "namespace(x=3)|attr('x')"],
        "batch": ["[1,2,3,4,5]|batch(2)", "[1,2,3,4,5]|batch(2, 'x')", "[1,2,3,4,5]|batch(linecount=3, fill_with=0)",
                  "'abcde'|batch(3)", "[1,2]|batch(0)", "[]|batch(2, 1)", "[1,2]|batch(-1)", "[1]|batch"],
        "center": ["'ab'|center(7)", "'abc'|center(8)", "'ab'|center(width=5)", "'ab'|center(1)", "5|center(6)",
                   "'ab'|center('x')", "'ab'|center(2.0)", "'ab'|center(5, 'x')"],
        "default": ["missing|default('x')", "''|default('x')", "''|default('x', true)", "''|default('x', boolean=true)",
                    "missing|default(default_value='y')", "none|default('x')", "none|d('x', true)", "0|d(7, true)",
                    "missing|default", "missing.x|default('y')", "users[0].nope|default([])", "false|default('x', boolean=false)"],
        "dictsort": ["{'b': 1, 'A': 2, 'c': 0}|dictsort", "{'b': 1, 'A': 2, 'c': 0}|dictsort(true)",
                     "{'b': 1, 'A': 2, 'c': 0}|dictsort(false, 'value')", "{'b': 1, 'A': 2}|dictsort(by='value', reverse=true)",
                     "{'b': 1}|dictsort(by='x')", "{'b': 1, 2: 3}|dictsort", "{'b': 'X', 'a': 'x', 'c': 'W'}|dictsort(by='value')"],
        "filesizeformat": ["100|filesizeformat", "1|filesizeformat", "1000|filesizeformat", "1300000|filesizeformat",
                           "1300000|filesizeformat(true)", "1300000|filesizeformat(binary=true)", "'1000'|filesizeformat",
                           "1e30|filesizeformat", "999.9|filesizeformat", "-5|filesizeformat", "1023|filesizeformat(true)"],
        "first": ["'abc'|first", "{'x': 1}|first", "range(3)|first", "(users|map(attribute='name'))|first"],
        "float": ["'1_0.5'|float", "' 2 '|float", "'x'|float(7)", "'x'|float(default=1.5)", "'inf'|float", "'nan'|float",
                  "'1e400'|float", "none|float", "[]|float(3)", "'-Infinity'|float", "'1__0'|float", "'0x10'|float", "'٣'|float('no')"],
        "format": ["'%s-%s'|format(1, 'b')", "'%(a)s'|format(a=3)", "'%05.1f|%x'|format(3.14159, 255)", "'%s'|format",
                   "'%s'|format(1, 2)", "'%s'|format(1, a=2)", "'%s'|format([1, 'x'])", "('%s'|e)|format('<')", "'a'|format"],
        "groupby": ["users|groupby('age')|map(attribute='grouper')|list", "users|groupby('city.name')|map('first')|list",
                    "users|groupby('city.name', case_sensitive=true)|map('first')|list", "users|groupby('active', default=false)|length",
                    "users|groupby('active')|length", "users|groupby(attribute='age')|map('last')|map('length')|list",
                    "[[1, 'a'], [1, 'b'], [0, 'c']]|groupby(0)", "(users|groupby('age'))[0].list|length", "users|groupby",
                    "[{'k': 1, 'v': 'x'}]|groupby('k')"],
        "indent": ["'a\\nb\\n\\nc'|indent", "'a\\nb\\n\\nc'|indent(2)", "'a\\nb\\n\\nc'|indent(2, true)", "'a\\nb\\n\\nc'|indent(2, true, true)",
                   "'a\\nb\\n\\nc'|indent(width='> ', first=true)", "'a\\nb\\n\\nc'|indent(blank=true)", "'a\\nb\\n'|indent(3)", "''|indent(2, true)",
                   "'a\\r\\nb'|indent(1)", "3|indent", "text|indent(-1)", "text|indent(2.0)", "('<a>'|e ~ '\\nb')|indent(2)"],
        "int": ["'12'|int", "'12.7'|int", "'x'|int", "'x'|int(5)", "'x'|int(default=none)", "'ff'|int(base=16)", "'0xff'|int(0, 16)",
                "'0b101'|int(base=0)", "'0b101'|int(0, 2)", "'0o17'|int(base=8)", "'1_000'|int", "' 7 '|int", "'-3'|int", "2.9|int", "-2.9|int",
                "true|int", "none|int", "[]|int(3)", "'1e3'|int", "'inf'|int", "'nan'|int(9)", "'٣'|int", "'010'|int", "'010'|int(base=0)",
                "'zz'|int(base=36)", "'9'|int(base=8)", "'12'|int(base=1)", "big|int", "'2'|int(base=none)"],
        "items": ["{'a': 1}|items", "missing|items", "[1]|items", "users[0].city|items"],
        "join": ["[1, 2]|join", "[1, 2]|join(', ')", "[1, none, true, 1.0]|join('|')", "users|join(', ', 'name')",
                 "users|join(d='/', attribute='city.name')", "'abc'|join('-')", "{'x': 1, 'y': 2}|join(',')", "[['a'], {'b': 1}]|join(';')",
                 "[1]|join(2)", "[1, 2]|join(none)", "missing|join(',')", "5|join", "['<', '>'|e]|join('&')", "users|join(attribute='nope')"],
        "last": ["'abc'|last", "{'x': 1, 'y': 2}|last", "(users|map(attribute='name'))|last", "range(4)|last"],
        "list": ["'añb'|list", "{'x': 1}|list", "5|list", "range(2, 9, 3)|list", "{'x': 1}.items()|list"],
        "map": ["users|map(attribute='name')", "users|map(attribute='active', default='?')", "users|map(attribute='city.name')",
                "users|map('length')", "['a', 'b']|map('upper')", "[1.5, 2.5]|map('round')", "['1', 'x']|map('int', 7)",
                "['1', 'x']|map('int', default=7)", "[[1, 2], [3]]|map('join', '-')", "[[1, 2], [3]]|map(attribute=0)", "[]|map('nope')",
                "[1]|map('nope')", "[1]|map", "[1]|map(attribute='a', foo=1)", "missing|map('upper')", "none|map('upper')", "5|map('upper')",
                "messages|map(attribute='role')", "['a,b']|map('replace', ',', ';')", "users|map(attribute='nope')",
                "[{'a': [1, {'b': 2}]}]|map(attribute='a.1.b')", "['x']|map('default', 'y')", "[missing]|map('default', 'y')"],
        "max": ["[1, 3, 2]|max", "['a', 'B']|max", "['a', 'B']|max(case_sensitive=true)", "users|max(attribute='age')", "[]|max", "[1, 'a']|max",
                "'hello'|max", "{'a': 1, 'b': 0}|max", "[1, 1.0, true]|max", "[[1, 2], [1, 3]]|max", "users|max"],
        "min": ["[1, 3, 2]|min", "['b', 'A']|min", "['b', 'A']|min(true)", "users|min(attribute='city.name')", "(1, 0.5)|min", "5|min", "[true, 1, 1.0]|min"],
        "pprint": ["long|pprint", "messages|pprint", "users|pprint", "{'b': 1, 'a': [1]}|pprint", "'x'|pprint", "text|pprint", "(1,)|pprint",
                   "('word ' * 30)|pprint", "[('word ' * 30)]|pprint", "range(60)|list|pprint", "tools|pprint", "{'k': 'word ' * 20, 'l': ('a' * 90,)}|pprint"],
        "reject": ["[0, 1, 2]|reject('odd')", "[0, '', 'a', none, 1]|reject", "[1, 2, 3]|reject('divisibleby', 3)", "[1, 2]|reject('==', 1)"],
        "rejectattr": ["users|rejectattr('active')|map(attribute='name')", "users|rejectattr('age', 'eq', 31)|map(attribute='name')",
                       "users|rejectattr('active', 'defined')|map(attribute='name')", "users|rejectattr"],
        "replace": ["'aaa'|replace('a', 'b')", "'aaa'|replace('a', 'b', 2)", "'aaa'|replace(old='a', new='b', count=1)", "'abc'|replace('', '-')",
                    "123|replace(2, 'x')", "'aaa'|replace('a', 'b', 0)", "'aaa'|replace('a', 'b', -1)", "none|replace('o', 0)", "'a'|replace('a')",
                    "'<'|e|replace('&', 'x')", "'a.b'|replace('.', none)", "'aaa'|replace('a', 'b', none)"],
        "reverse": ["'añb'|reverse", "{'x': 1, 'y': 2}|reverse", "5|reverse", "range(3)|reverse", "(1, 2)|reverse"],
        "round": ["2.5|round", "3.5|round", "2.675|round(2)", "1234.5|round(-2)", "2.1|round(method='ceil')", "2.9|round(0, 'floor')", "-2.1|round(0, 'ceil')",
                  "42.55|round(1, 'floor')", "7|round", "7|round(1)", "125|round(-1)", "135|round(-1)", "-15|round(-1)", "2.5|round(method='x')", "'a'|round",
                  "true|round", "1e22|round", "0.1|round(20)", "7|round(0, 'ceil')", "7.123|round(precision=1, method='ceil')", "none|round", "2.5|round(none)"],
        "select": ["[0, 1, 2]|select('odd')", "[0, '', 'a', none, 1]|select", "[1, 2, 3]|select('gt', 1)", "['a', 1]|select('string')",
                   "[1, 2, 3]|select('in', [1, 3])", "[1, 2]|select('nope')", "['a', 'b']|select('equalto', 'b')", "[1, 2, 3]|select('>=', 2)", "[1, 'a']|select('lt', 2)"],
        "selectattr": ["users|selectattr('active')|map(attribute='name')", "users|selectattr('age', '>', 22)|map(attribute='name')",
                       "users|selectattr('age', 'lessthan', 25)|map(attribute='name')", "users|selectattr('city.name', 'equalto', 'Rome')|map(attribute='name')",
                       "users|selectattr('nope', 'undefined')|map(attribute='name')", "users|selectattr(attribute='age')", "messages|selectattr('role', 'in', ['user', 'tool'])|map(attribute='content')",
                       "users|selectattr('name', 'sameas', 'bob')|map(attribute='age')", "[[1, 0], [0, 1]]|selectattr(0)", "messages|selectattr('tool_calls', 'defined')|map(attribute='role')"],
        "slice": ["[1,2,3,4,5]|slice(2)", "[1,2,3,4,5]|slice(3, 'x')", "[1,2]|slice(slices=3)", "[1,2]|slice(0)", "'abcd'|slice(3)", "[1,2,3,4]|slice(2, fill_with=0)"],
        "sort": ["[3, 1, 2]|sort", "[3, 1, 2]|sort(true)", "['b', 'A', 'c']|sort", "['b', 'A', 'c']|sort(case_sensitive=true)", "users|sort(attribute='age,name')|map(attribute='name')|list",
                 "users|sort(reverse=true, attribute='city.name')|map(attribute='name')|list", "[1, 'a']|sort", "'hello'|sort", "{'b': 1, 'a': 2}|sort", "[[2, 1], [1, 9]]|sort(attribute=1)",
                 "[true, 0, 2]|sort", "users|sort", "[(1, 'b'), (1, 'a')]|sort", "[none, 1]|sort", "users|sort(attribute='nope')"],
        "string": ["1.0|string", "none|string", "[1, 'a']|string", "missing|string", "true|string ~ 1", "('<'|e)|string"],
        "striptags": ["'<p>a  <b>b</b>\\n c</p>'|striptags", "'a &lt; b &amp; c'|striptags", "'x <!-- <y> --> z'|striptags", "'a < b'|striptags", "'&#65;&#x42;&copy;&unknown;'|striptags", "5|striptags"],
        "sum": ["[1, 2]|sum", "[1, 2.5]|sum", "users|sum(attribute='age')", "[1, 2]|sum(start=10)", "[1, 2]|sum(none, 1)", "[]|sum", "['a']|sum", "[[1], [2]]|sum(start=[])", "[true, true]|sum", "['a', 'b']|sum(start='')"],
        "title": ["'hello wORLD foo-bar (baz)'|title", "\"it's\"|title", "'a[b] {c} <d>'|title", "'ß x'|title", "'1a b2'|title", "'x_y.z'|title", "'Σας ΟΔΟΣ'|title"],
        "tojson": ["tools|tojson", "messages|tojson", "tools|tojson(indent=2)", "tools|tojson(separators=(',', ':'))", "users[0]|tojson(sort_keys=true)", "'ü😀\\u007f'|tojson(ensure_ascii=true)",
                   "'ü😀\\u007f'|tojson", "{'a': [], 'b': {}}|tojson(indent=1)", "[1, [2, {'x': 3}]]|tojson(indent='--')", "users|tojson(true)", "[1]|tojson(false, 2)", "[1, {'a': 2}]|tojson(indent=0)",
                   "[1.0, 1e22, 1e-7, 0.1, -0.0, 12345678901234567890]|tojson", "('inf'|float)|tojson", "('nan'|float)|tojson", "{1: 2, true: 3, none: 4, 1.5: 5}|tojson", "(1, 2)|tojson", "{(1, 2): 3}|tojson",
                   "missing|tojson", "range(3)|tojson", "{'a': 1}.items()|tojson", "(users|map(attribute='name'))|tojson", "'<&>\\'\"\\\\/'|tojson", "'\\x00\\x1f\\x7f\\u2028'|tojson", "none|tojson", "{'b': 1, 2: 3}|tojson(sort_keys=true)",
                   "[1, 2]|tojson(separators=[';', '='])", "[1]|tojson(foo=1)", "[1, 2]|tojson(indent=none)", "[[]]|tojson(indent=3)", "{'b': {'d': 1, 'c': 2}, 'a': 0}|tojson(sort_keys=true, indent=1)", "users|tojson(indent=2, separators=(',', ':'))",
                   "'<'|e|tojson", "[true, false]|tojson(indent=-1)"],
        "trim": ["'  a '|trim", "'xxaxx'|trim('x')", "'abcba'|trim(chars='ab')", "'  a'|trim(none)", "5|trim", "'a'|trim(5)", "none|trim", "'\\u00a0a\\u3000\\x1c'|trim"],
        "truncate": ["text|truncate(20)", "text|truncate(20, true)", "text|truncate(20, false, '…')", "text|truncate(length=20, leeway=0)", "'foo bar baz qux'|truncate(9)", "'foo bar baz qux'|truncate(9, true)",
                     "'foo bar baz qux'|truncate(11)", "'foo bar baz qux'|truncate(11, false, '...', 0)", "'abcdefghij'|truncate(2)", "'abcdefghijkl'|truncate(5, end='')", "'ab'|truncate(5, leeway=-1)", "'abcdefghijklmnop'|truncate(5)"],
        "unique": ["[1, 1.0, true, 2]|unique", "['a', 'A', 'b']|unique", "['a', 'A', 'b']|unique(true)", "users|unique(attribute='age')|map(attribute='name')", "'hello'|unique", "[[1]]|unique", "[(1, 2), (1, 2)]|unique", "[none, none]|unique"],
        "urlencode": ["'a b/c?d=ü'|urlencode", "{'a b': 'c/d', 'e': 1}|urlencode", "[('a', 1), ('b', '&')]|urlencode", "5.0|urlencode", "none|urlencode", "['ab', 'cd']|urlencode", "[1]|urlencode", "'~_-.'|urlencode"],
        "urlize": ["'see https://example.org/x?y=1, (www.foo.net) or bar.com.'|urlize", "'mail a@b.org now'|urlize", "'https://example.org/long/path'|urlize(15)", "'https://example.org'|urlize(nofollow=true)", "'https://example.org'|urlize(target='_blank', rel='me')",
                   "'tel:123 x'|urlize(extra_schemes=['tel:'])", "'a <b> https://x.y'|urlize", "'http://1.2.3.4:80/ http://[::1]/ x.info'|urlize", "'(https://en.wikipedia.org/wiki/A_(b))'|urlize", "'mailto:x@y.zz foo@bar'|urlize", "5|urlize", "'x'|urlize(extra_schemes=['bad'])"],
        "wordcount": ["'a b-c d_e ü 1'|wordcount", "''|wordcount", "5|wordcount"],
        "wordwrap": ["text|wordwrap(10)", "text|wordwrap(10, false)", "text|wordwrap(width=12, wrapstring='|')", "'abcdefghij klm'|wordwrap(4)", "'abcdefghij klm'|wordwrap(4, break_long_words=false)", "'well-known half-baked x-ray'|wordwrap(8)",
                     "'well-known half-baked'|wordwrap(8, break_on_hyphens=false)", "'a--b c---d ee'|wordwrap(3)", "'x'|wordwrap(0)", "''|wordwrap(5)", "'one two  three   four'|wordwrap(7)", "text|wordwrap(1)", "'aaa-bbb-ccc 1-2-3 --long'|wordwrap(5)", "'  lead'|wordwrap(4)"],
        "xmlattr": ["{'a': 1, 'b': none, 'c': '<\"'}|xmlattr", "{'a': 1}|xmlattr(false)", "{'a': 1}|xmlattr(autospace=true)", "{}|xmlattr", "{'a b': 1}|xmlattr", "{'a': missing}|xmlattr", "{'a': '<'|e}|xmlattr", "{1: 2}|xmlattr"],
        "safe": ["('<b>'|safe) + '<i>'", "'<i>' + ('<b>'|safe)", "('<b>'|safe) ~ '<i>'", "('<b>'|safe)|e", "('<%s>'|safe) % '<'", "('a'|safe) * 2", "['<'|safe]", "('<b>'|safe)|upper + '<'", "('x<'|safe).replace('x', '<')", "('-'|safe).join(['<', '>'|e])",
                 "('<'|safe)|length", "('<b>'|safe)[0] + '<'", "('<'|safe)|forceescape", "'a'|safe|string + '<'", "('{}'|safe).format('<')"],
    }
    for name, cases in arguments.items():
        for case in cases:
            yield "filter " + name, shown(case if "|" in case else f"({case})|{name}", name if "|list" not in case else "")
    for name in names + ["batch", "slice", "groupby", "map", "attr", "format", "replace"]:
        yield "filter " + name, "{{ 'x'|" + name + "(1, 2, 3, 4, 5, 6, 7, 8) }}"
        if name != "format":
            yield "filter " + name, "{{ ('x'|" + name + "(no_such_argument=1))|string }}"


def tests():
    names = """boolean callable defined escaped even false float integer iterable lower mapping none number odd sequence string
        true undefined upper""".split()
    for name, value in itertools.product(names, VALUES):
        yield "test " + name, "{{ (" + value + ") is " + name + " }}"
    pairs = ["1, 1", "1, 1.0", "1, true", "'a', 'a'", "'a', 'b'", "[1], [1]", "(1,), [1]", "{'a': 1}, {'a': 1.0}", "none, none", "missing, missing", "1, 'a'", "2, 1",
             "[1, 2], [1, 3]", "'a', 'B'", "none, 1", "1.5, 1", "missing, 1", "'b', ['a', 'b']", "'b', 'abc'", "'b', {'b': 1}", "1, 5", "big, big"]
    for name in "eq equalto ne lt lessthan le gt greaterthan ge in sameas".split():
        for pair in pairs:
            if name == "sameas" and ("'" in pair or "[" in pair or "(" in pair or "." in pair):
                continue
            a, b = pair.split(", ", 1) if not pair.startswith("[1, 2]") else ("[1, 2]", "[1, 3]")
            yield "test " + name, "{{ (" + a + ") is " + name + "(" + b + ") }}"
    for case in ["6 is divisibleby 3", "7 is divisibleby(num=3)", "7 is divisibleby 0", "6.0 is divisibleby 3", "'upper' is filter", "'nope' is filter", "'odd' is test", "'nope' is test", "1 is filter",
                 "1 is not odd", "not 1 is odd", "1 is odd and 2 is even", "3 is odd or false", "1 is in [1, 2]", "1 is not in [1, 2]", "1 is eq 1", "users is iterable", "messages is sequence", "users[0] is mapping",
                 "1 is nope", "1 is odd is true", "'a' is lower", "'A1' is upper", "'' is lower", "5 is lower", "1.5 is odd", "1.5 is even", "missing is odd", "users[0].name is string", "'%s' is string", "missing.x is defined", "users.x is defined",
                 "users[9] is defined", "users[0].items is defined", "users[0].items is callable", "'a'.upper is callable", "range is callable", "range is defined", "dict is defined", "1 is number", "1 is sameas 1", "none is sameas none", "true is sameas true",
                 "1 is sameas true", "users is sameas users", "'x'|e is escaped", "1 is lt 2", "2 if 1 is odd else 3", "users|length is gt 3", "-1 is odd", "[] is sequence", "{} is iterable", "1 is none or true", "users.append is defined", "users[0].pop is defined"]:
        yield "tests", "{{ " + case + " }}"


def text_methods():
    zero = """capitalize casefold isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper lower
        lstrip rstrip split rsplit splitlines strip swapcase title upper expandtabs""".split()
    texts = ["''", "'abc'", "'Hello World'", "'  a b \\n'", "'ÄÖ straße'", "'123'", "'½²³'", "'٣'", "'一二'", "'a1_b'", "'ABC DEF'", "'a\\tb\\tc'", "'l1\\nl2\\r\\nl3'", "'ǆ ﬁ'", "'Σας ΟΔΟΣ'", "'été'",
             "'\\x1c \\u2003'", "'1a'", "'日本語'", "\"they're bill's\""]
    for method, value in itertools.product(zero, texts):
        yield "str." + method, "{{ (" + value + "." + method + "())|string }}|"
    cases = """'ab'.center(7)
'ab'.center(8, '*')
'abc'.center(8, '*')
'ab'.center(1)
'ab'.center(5, 'xy')
'ab'.center()
'ab'.ljust(5) ~ '.'
'ab'.ljust(5, '.')
'ab'.rjust(5)
'ab'.rjust(5, '0')
'42'.zfill(5)
'-42'.zfill(5)
'+1'.zfill(4)
'abc'.zfill(2)
'ü'.zfill(3)
'aXbXc'.count('X')
'aaaa'.count('aa')
'abc'.count('')
'abcabc'.count('b', 2)
'abcabc'.count('b', 2, 4)
'abc'.count('b', -2)
'abc'.count(1)
'abc'.endswith('c')
'abc'.endswith(('x', 'bc'))
'abc'.endswith('b', 0, 2)
'abc'.endswith(['c'])
'abc'.startswith('a')
'abc'.startswith(('x', 'ab'))
'abc'.startswith('b', 1)
'abc'.startswith('')
'abc'.startswith(())
'abc'.startswith('', 5)
'abc'.startswith('a', 5)
'abc'.startswith(1)
'a\\tb'.expandtabs(4)
'a\\tb'.expandtabs(tabsize=2)
'\\ta'.expandtabs(0)
'ab\\tc\\n\\td'.expandtabs(4)
'hello'.find('l')
'hello'.find('z')
'hello'.find('l', 3)
'hello'.find('l', 0, 2)
'hello'.rfind('l')
'hello'.rfind('l', 0, 3)
'hello'.index('l')
'hello'.index('z')
'hello'.rindex('l')
'hello'.rindex('z')
'hello'.find('', 5)
'hello'.find('', 6)
'hellö'.find('ö')
'hello'.find('l', -2)
'hello'.find('l', none, 3)
'hello'.find(sub='l')
', '.join(['a', 'b'])
'-'.join('abc')
','.join([1])
''.join([])
','.join({'a': 1, 'b': 2})
','.join(users|map(attribute='name'))
','.join(missing)
'xxaxx'.strip('x')
'xxaxx'.lstrip('x')
'xxaxx'.rstrip('x')
'abcba'.strip('ab')
' a '.strip(none)
'www.x.com'.strip('w.mc')
'a'.strip(chars='a')
'a=b=c'.partition('=')
'abc'.partition('=')
'a=b=c'.rpartition('=')
'abc'.rpartition('=')
'abc'.partition('')
'abc'.partition()
'get_x'.removeprefix('get_')
'get_x'.removeprefix('set_')
'x.py'.removesuffix('.py')
'x.py'.removesuffix('')
'x'.removeprefix(none)
'aaa'.replace('a', 'b')
'aaa'.replace('a', 'b', 2)
'abc'.replace('', '-')
'abc'.replace('', '-', 2)
'aaa'.replace('a', 'b', -1)
'aaa'.replace('a', 1)
'aaa'.replace('a')
'a,b,c'.split(',')
'a,b,c'.split(',', 1)
'a,b,c'.split(',', maxsplit=1)
'a,b,c'.split(sep=',')
'a,b,c'.split(sep=',', maxsplit=1)[1]
' a  b '.split()
' a  b c '.split(none, 1)
' a  b c '.split(maxsplit=1)
'a,b,c'.rsplit(',', 1)
'a,b,c'.rsplit(sep=',', maxsplit=1)
' a  b c '.rsplit(none, 1)
' a  b c '.rsplit(maxsplit=2)
'abc'.split('')
'a--b'.split('--')
''.split(',')
''.split()
'a,b'.split(',', 0)
' a b '.split(none, 0)
' a b '.rsplit(none, 0)
'a b'.split(1)
'a\\nb\\r\\nc\\x0bd'.splitlines()
'a\\nb\\r\\nc'.splitlines(true)
'a\\nb\\n'.splitlines(keepends=true)
'\\n'.splitlines()
'a\\u2028b\\x85c'.splitlines()
'abc'.encode()
'ü'.encode('utf-8')
'ü'.encode('latin-1')
'ü'.encode('ascii')
'ü'.encode('ascii', 'ignore')
'ü'.encode(encoding='ascii', errors='replace')
'ü'.encode().decode()
'ü'.encode()|length
'ab'.encode().hex()
'abc'.translate({97: 'x', 98: none})
'abc'.translate({97: 65})
'abc'.translate(''.maketrans('ab', 'xy'))
'abc'.translate('abc'.maketrans('a', 'b', 'c'))
''.maketrans({'a': 'b'})
''.maketrans('ab', 'x')
'{} {}'.format(1, 'b')
'{1} {0}'.format(1, 2)
'{a} {b}'.format(a=1, b=2)
'{0.name} {0[age]}'.format(users[0])
'{:>5}|{:<5}|{:^5}'.format(1, 2, 3)
'{:*^9}'.format('mid')
'{:05d}'.format(42)
'{:+d} {: d}'.format(1, 2)
'{:x} {:X} {:o} {:b} {:#x} {:#b}'.format(255, 255, 8, 5, 255, 5)
'{:,}'.format(1234567)
'{:_}'.format(1234567)
'{:_x}'.format(1234567)
'{:,x}'.format(1234567)
'{:,.2f}'.format(1234567.891)
'{:010,}'.format(1234)
'{:.3f} {:.0f} {:e} {:g}'.format(3.14159, 2.5, 12345.678, 0.00001)
'{:.2%}'.format(0.256)
'{:.3}'.format('abcdef')
'{:10.3}|'.format('abcdef')
'{:c}'.format(65)
'{!r} {!s} {!a}'.format('ü', 'ü', 'ü')
'{:{}}|'.format('a', 5)
'{:{w}.{p}}'.format(3.14159, w=8, p=3)
'{{}}'.format()
'{'.format(1)
'}'.format(1)
'{}'.format()
'{x}'.format(1)
'{} {0}'.format(1)
'{0} {}'.format(1)
'{:d}'.format('a')
'{:s}'.format(1)
'{:d}'.format(1.5)
'{}'.format(none)
'{:5}'.format(none)
'{:5}'.format(true)
'{}'.format(true)
'{}'.format([1, 'a'])
'{:5}'.format([1])
'{:g} {:g}'.format(1e22, 100000.0)
'{:.3} {:.3} {:n}'.format(1234.5, 1.0, 5)
'{}'.format(1e22)
'{:f}'.format(7)
'{:=+6}'.format(3)
'{:<05}'.format(3)
'{:05}'.format('a')
'{:=5}'.format('a')
'{0[0]} {0[1]}'.format([1, 2])
'{a[b]}'.format(a={'b': 3})
'{a}'.format_map({'a': 5})
'{b}'.format_map({'a': 5})
'{:e}'.format(0)
'{:G} {:E}'.format(1e-10, 1.5)
'{:.1e}'.format(99999)
'{!x}'.format(1)
'{:y}'.format(1)
'a'.nope()
'a'.upper(1)
'abc'.upper().lower().title()
'a' 'b' "c"
'abc'.isalpha(1)
'a'.upper is defined
'a'.nope is defined
'ab'['upper']()
'ab'.upper.x is defined
(1).bit_length()
(255).bit_count()
(1.0).is_integer()
(1.5).is_integer()
3.real""".split("\n")
    for case in cases:
        method = case.split(".")[1].split("(")[0] if "." in case else "literal"
        yield "str." + method, "{{ (" + case + ")|string }}|"


def containers():
    for case in """[1, 2, 1].count(1)
[1, 2, 1].index(2)
[1, 2, 1].index(1, 1)
[1].index(2)
[1, 2].copy()
[1].append(2)
[1].pop()
[2, 1].sort()
[1].extend([2])
[1].reverse()
[1].insert(0, 2)
[1].remove(1)
[1].clear()
(1, 2, 1).count(1)
(1, 2).index(2)
{'a': 1}.get('a')
{'a': 1}.get('b')
{'a': 1}.get('b', 2)
{'a': 1}.get('b', default=2)
{'a': 1}.get()
{'a': 1}.get([1])
{'a': 1, 'b': 2}.items()
{'a': 1, 'b': 2}.keys()
{'a': 1, 'b': 2}.values()
{'a': 1}.items()|list
{'a': 1}.keys()|join
{'a': 1}.keys()|length
{'a': 1}.items()[0]
{'a': 1}.copy()
{'a': 1}.pop('a')
{'a': 1}.update({'b': 2})
{'a': 1}.setdefault('b', 2)
{}.fromkeys(['a', 'b'])
{}.fromkeys('ab', 1)
{'items': 3}.items()
{'items': 3}.items is string
{'items': 3}['items']
{'get': 5}['get']
{'x': 3}['items'] is callable
{'keys': 1}.keys is callable
{'a': {'b': 2}}.a.b
{'a': {'b': 2}}['a']['b']
{'a': 1}.b
{'a': 1}['b']
{'a': 1}.b.c
{1: 'x'}[1]
{1: 'x'}[1.0]
{1: 'x'}[true]
{1: 'x'}.1
{(1, 2): 'x'}[(1, 2)]
{(1, 2): 'x'}[1, 2]
{'a': 1, 'a': 2}
{1: 'a', 1.0: 'b'}
[1, 2, 3][0]
[1, 2, 3][-1]
[1, 2, 3][5]
[1, 2, 3]['a']
[1, 2, 3].0
[[1, 2], [3]].0.1
[1, 2, 3][1.0]
[1, 2][true]
'abc'[0]
'abc'[-1]
'abc'[9]
'añc'[1]
'abc'['x']
(1, 2)[1]
range(5)[2]
range(5)[-1]
range(5)[9]
[1, 2, 3, 4][1:]
[1, 2, 3, 4][:2]
[1, 2, 3, 4][::2]
[1, 2, 3, 4][::-1]
[1, 2, 3, 4][-2:]
[1, 2, 3, 4][3:1:-1]
[1, 2, 3, 4][1:10]
[1, 2, 3, 4][::0]
[1, 2, 3, 4][none:2]
[1, 2, 3, 4]['a':]
(1, 2, 3)[1:]
'abcdef'[1:4]
'abcdef'[::-1]
'abcdef'[-3:-1]
'abcdef'[::2]
'äöü'[1:]
range(10)[2:5]|list
none[1:]
missing[1:]
{}[1:]
5[0]
none.x
none['x']
missing.x
missing['x']
missing()
none()
users[0].name
users.0.name
users[-1]['name']
users[0]['city'].name
messages[2].tool_calls[0].function.arguments
messages[2]['tool_calls'][0]['function']['arguments']['z']
tools[0].function.parameters.properties['items'].type
tools[0].function.parameters.properties.items() | map('first') | list
tools[1].function.parameters.properties.items() | list
range(3)
range(1, 4)
range(0, 10, 3)|list
range(5, 0, -2)|list
range(3)|length
range(0)
range(100000)|length
range(100001)
range(10000000000)
range(1, 2, 0)
range('a')
range(2.0)
range()
range(1, 10, 2)
range(3) == range(0, 3)
2 in range(3)
dict(a=1, b='x')
dict({'a': 1}, b=2)
dict([('a', 1), ('b', 2)])
dict()
dict([1])
dict(1)
cycler('a', 'b').next()
cycler()
joiner('|')()
namespace(a=1).a
namespace({'a': 1}, b=2).b
namespace(a=1).c
namespace(1)
[missing]
[none, true, 1.0, 'a', [1], (1,), {'k': 'v'}, (), {}, []]
['\\'', '"', '\\'"', '\\\\', '\\n\\t\\x00\\x7f\\u200b\\u00e9\\U0001f600']
[1, 2] + [3]
[1] + (2,)
(1,) + (2,)
[1] + 'a'
[1, 2] * 2
2 * [1]
[1] * 2.0
[1] * -1
(1, 2) * 2
[0] * 10000000000
'ab' * 3
3 * 'ab'
'ab' * -1
'ab' * 2.0
'ab' * 'c'
'ab' * true
[1, 2] == [1, 2]
[1, 2] == (1, 2)
[1] < [1, 0]
[1, 2] < [1, 'a']
{'a': 1} == {'a': 1.0}
{'a': 1} < {'b': 2}
{'a': 1} != {'a': 2}
(1, 2) < (1, 3)
1 in [1, 2]
'1' in [1]
1 not in [1, 2]
'a' in {'a': 1}
1 in {'a': 1}
[1] in {'a': 1}
'a' in 'abc'
'' in 'abc'
1 in 'abc'
missing in 'abc'
'a' in missing
'a' in none
1 in 5
none in [none]
missing in [1]
[1] in [[1]]
1.0 in [1]
true in [1]""".split("\n"):
        yield "containers", "{{ " + case + " }}"


def operators():
    numbers = ["7", "-7", "2", "0", "2.5", "-0.5", "true", "'a'", "none", "missing", "[1]"]
    for operator in ["+", "-", "*", "/", "//", "%", "**"]:
        for a, b in itertools.product(numbers, numbers):
            yield "operator " + operator, "{{ (" + a + ") " + operator + " (" + b + ") }}"
    values = ["1", "1.0", "'a'", "'B'", "none", "missing", "true", "[1]", "(1,)", "'nan'|float"]
    for operator in ["==", "!=", "<", "<=", ">", ">="]:
        for a, b in itertools.product(values, values):
            yield "operator " + operator, "{{ (" + a + ") " + operator + " (" + b + ") }}"
    for value in VALUES:
        yield "unary", "{{ -(" + value + ") }}"
        yield "unary", "{{ +(" + value + ") }}"
        yield "unary", "{{ not (" + value + ") }}"
        yield "concat", "{{ 'x' ~ (" + value + ") ~ 1.0 }}"
        yield "truth", "{{ 1 if (" + value + ") else 2 }}"
        yield "and or", "{{ (" + value + ") or 'else' }}"
        yield "and or", "{{ (" + value + ") and 'then' }}"
        yield "text", "{{ " + value + " }}"
        yield "text", "{{ [" + value + "] }}"
        yield "percent", "{{ '%s|%r' % ((" + value + "), (" + value + ")) }}"
        yield "format", "{{ '{}|{!r}'.format((" + value + "), (" + value + ")) }}"
        yield "loop", "{% for x in " + value + " %}<{{ x }}>{% else %}none{% endfor %}"
    for case in """1 + 2 * 3
(1 + 2) * 3
2 ** 3 ** 2
-2 ** 2
2 ** -1
0 ** -1
10 ** 20
10 ** 30 + 1
2 ** 0.5
7 // 2
-7 // 2
7 // -2
7.5 // 2
7 % 3
-7 % 3
7 % -3
7.5 % 2
-7.5 % 2
1 / 3
4 / 2
1 / 0
1 // 0
1 % 0
1.0 / 0
1.0 // 0
1.0 % 0
1 - 1.0
0.1 + 0.2
1e16
1e15
123456789012345680.0
1e22
1e21 + 1
1e-4
1e-5
0.00012
1.5e-7
1E5
1_000
1_0.5
0x1F
0b101
0o17
5e-324
1.7976931348623157e308
1e999
-1e999
-0.0
100.0
3.0
2.50
1e3
big
small
third
wide
wide + 1
negative
true + true
true
True
None
none
false
1 < 2 < 3
1 < 3 < 2
1 < 2 > 1
1 == 1 == 1
1 == 1.0
1 == true
'1' == 1
not true
not not true
not 1 == 2
1 if true
1 if false
(1 if false) is defined
1 if false else 2 if false else 3
'a' 'b'
'a' ~ 'b' ~ 1
1 ~ 2
1.0 ~ none ~ true
'a' ~ 1 + 1
2 * 3 ~ 4
'a' + 'b'
'a' + 1
1 + 'a'
'a' + none
missing + 1
1 + missing
missing ~ 'a'
missing == missing
missing == none
missing
missing + 'a'
-missing
- 1
-1|abs
-'a'
+1
+true
1|string + 'a'
1 in [1] and 2 in [2]
1 in [1] == true
'a' < 'b'
'a' < 1
'Z' < 'a'
1 < none
missing < 1
1 > missing
none < none
1, 2
(1, 2)
(1,)
()
1,
[1, 2,]
{'a': 1,}
{'a': [1, {'b': (1, 2)}]}
'\\x41\\u00e9\\n\\t\\\\\\'\\"\\d\\101\\a'|tojson
"double 'quotes'"
'it\\'s'
'a
b'
'%'
'%%' % ()
'%s' % 1
'%s' % 'a'
'%s %s' % (1, 'b')
'%s %s' % [1, 2]
'%s' % [1, 2]
'%s' % (1, 2)
'%s %s' % (1,)
'%d' % 3.7
'%d' % -3.7
'%d' % 'a'
'%d' % true
'%i|%u' % (1, 2)
'%5d|%-5d|%05d|%+d|% d' % (1, 2, 3, 4, 5)
'%.3d' % 5
'%x %X %o %#x %#o' % (255, 255, 8, 255, 8)
'%x' % -255
'%x' % 1.5
'%f %.2f %8.3f|%-8.1f|%08.2f|%+.1f' % (1.5, 2.345, 3.14159, 2.5, -3.14159, 1)
'%e %.2e %E' % (12345.678, 0.00012, 1e10)
'%g %g %g %g %.3g %G' % (1e22, 1e-5, 100000.0, 1000000.0, 1234.5, 1e-10)
'%#g %#.0f' % (1.0, 2.0)
'%f' % 'a'
'%s' % none
'%s' % true
'%s' % 1.0
'%s' % 1e22
'%r' % 'a'
'%r' % ('it\\'s',)
'%a' % 'ü'
'%c%c' % (65, 'b')
'%c' % 'ab'
'%5s|%-5s|%.2s|%5.1s' % ('a', 'b', 'cde', 'fgh')
'%05s' % 'a'
'%*d' % (5, 3)
'%-*d|' % (5, 3)
'%.*f' % (2, 3.14159)
'%(a)s %(b)05d' % {'a': 1, 'b': 2}
'%(a)s' % {'b': 1}
'%(a)s' % 1
'%(a)s' % (1,)
'%(a)s %%' % {'a': 'x'}
'%s' % {'a': 1}
'x' % {'a': 1}
'x' % 1
'x' % ()
'x' % []
'%' % 1
'%z' % 1
'%l' % 1
'%ld %hd' % (1, 2)
'100%' % ()
'100%%' % ()
'%s%%' % 50
'%s: %05.2f' % ('pi', 3.14159)
'%d' % ('inf'|float)
'%f %e %g' % ('inf'|float, 'nan'|float, '-inf'|float)
'%05f' % ('inf'|float)
'%s' % missing
'%1000000000000d' % 1
'%.1000000000000f' % 1
7 * 2 % 4
7 % 4 * 2
2 + 7 % 4
7 % 2 ** 2
'a%sb' % 1 ~ 'c'
'%s' % 1 + '2'
'%s' % (1 + 2)
'a' * 3 % ()
loop
loop is defined
self
users|map(attribute='name')|join(', ')|upper
users | selectattr('age', 'gt', 25) | map(attribute='name') | list | tojson
messages | selectattr('role', 'equalto', 'user') | first
(messages | selectattr('role', 'equalto', 'user') | list)[0].content
(users|first).name
users|first|attr('get')('name')
[1, 2, 3]|sum / 2
text.split('\\n')|first|trim|title|replace('The', 'A')
strftime_now('%Y-%m-%d')
strftime_now('%d %B %Y %H:%M:%S')
strftime_now('%a %A %b %B %c %d %e %f %F %G %H %I %j %k %l %m %M %p %P %S %T %u %U %V %w %W %x %X %y %Y %Z %z %% %D %R %r %h %C %g %n %t')
strftime_now('%-d %-m %-I %_d %^a %#p %05d %10Y %Ey %Od %Q %')
strftime_now()
raise_exception('no')
raise_exception()
unknown_function()
x|unknown_filter
1 +
(1
[1
{'a' 1}
'unclosed
1 2
a b
!
a ? b
1 = 2
f(a=1, 2)
users[]
users[1
'a'.
.5
5.
1.upper()
007
1__0
{% if %}
not
is defined
1 is
|upper
x|
""".split("\n"):
        yield "expressions", "{{ " + case + " }}"


def statements():
    spaces = ["a {B}b{E} c", "  {B}  b  {E}  \n  c", "\n  {B}\n  b\n  {E}\n  c\n", "a\n{B}\n\nb{E}\n\nc", "\t{B} x {E}\t\ny", "a\n  x {B}\nb", "{B}\n{E}\n", "{B} {E}\n\n\n", "  {B}a{E}"]
    for text, left, right in itertools.product(spaces, ["", "-", "+"], ["", "-", "+"]):
        for name in ["if true", "generation", "set x"]:
            end = "end" + name.split()[0]
            if "{E}" not in text:
                continue
            source = text.replace("{B}", "{%" + left + " " + name + " " + right + "%}").replace("{E}", "{%" + left + " " + end + " " + right + "%}")
            yield "white space", "[" + source + "]"
        comment = "{#" + left + " c " + right + "#}"
        yield "white space", "[" + text.replace("{B}", comment).replace("{E}", comment) + "]"
    for text, left, right in itertools.product(spaces, ["", "-", "+"], ["", "-"]):
        value = "{{" + left + " 1 " + right + "}}"
        yield "white space", text.replace("{B}", value).replace("{E}", value)
    for left, right in itertools.product(["", "-", "+"], ["", "-"]):
        yield "raw", "a\n  {%" + left + " raw " + right + "%}\n {{ x }} {% generation %}\n  {%" + left + " endraw " + right + "%}\n b"
    for source in [
        "a\r\nb\r\n", "a\rb\r", "a\n\n", "a\r\n\r\n", "\r\n{% if true %}\r\nx\r\n{% endif %}\r\n", "{{ 'a\r\nb'|length }}", "a\n", "\n", "", "{{ 1 }}\n", "{{ 1 }}\n\n", "{% set x = 'a\r\nb' %}{{ x|tojson }}\r\n",
        "{%- generation -%}\n x \n{%- endgeneration -%}\n y", "{% for m in messages %}{%- generation -%} {{ m.role }} {%- endgeneration -%} ;{% endfor %}", "{% generation %}{% set a = 1 %}{% endgeneration %}{{ a }}",
        "{% set a = 0 %}{% generation %}{% set a = 1 %}{{ a }}{% endgeneration %}{{ a }}", "{% generation %}x", "x{% endgeneration %}", "{{ '{% generation %}' }}", "{# {% generation %} #}x", "{%generation%}x{%endgeneration%}", "{%-generation-%} x {%-endgeneration-%} y",
        "{% for x in [1,2] %}{% generation %}{{ loop.index }}{% endgeneration %}{% endfor %}", "{{ '{{' }}", "{{ '%}' }}{{ \"}}\" }}", "{ {{ 1 }} }", "{{{1: 2}}}", "{{ {'a': {'b': 1}} }}", "{{ {'a': {'b': 1}}}}", "{% set x = {'a': {'b': 1}} %}{{ x }}", "a{{ 1 }}{", "{", "}}", "%}", "#}", "{{ 1 }", "{% if true }", "{# x", "{% raw %}x", "{%raw%}{%endraw%}",
        "{% if 1 %}a{% elif 2 %}b{% else %}c{% endif %}", "{% if 0 %}a{% elif 2 %}b{% else %}c{% endif %}", "{% if 0 %}a{% elif 0 %}b{% else %}c{% endif %}", "{% if missing %}a{% endif %}b", "{% if missing.x %}a{% endif %}", "{% if x %}", "{% endif %}", "{% else %}", "{% if true %}{% set x = 1 %}{% endif %}{{ x }}",
        "{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
        "{% for x in [1, 2, 3] %}{{ loop.previtem }}|{{ loop.nextitem }}|{{ loop.previtem is defined }};{% endfor %}", "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.cycle('a', 'b') }};{% endfor %}", "{% for x in [] %}a{% else %}b{% endfor %}", "{% for x in missing %}a{% else %}b{% endfor %}", "{% for x in none %}a{% endfor %}", "{% for x in 5 %}a{% endfor %}",
        "{% for x in 'añb' %}{{ x }},{% endfor %}", "{% for k in {'a': 1, 'b': 2} %}{{ k }}{% endfor %}", "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in {'a': 1}|items %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in {'b': 1, 'a': 2}|dictsort %}{{ k }}={{ v }};{% endfor %}", "{% for a, b in [[1, 2], [3, 4]] %}{{ a }}{{ b }}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for a, b in [[1, 2, 3]] %}{% endfor %}", "{% for (a, b), c in [[[1, 2], 3]] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
        "{% for x in range(5) if x is odd %}{{ loop.index }}{{ x }}{{ loop.length }};{% endfor %}", "{% for x in range(5) if x > 9 %}{{ x }}{% else %}none{% endfor %}", "{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}", "{% for x in [1, 2, 3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% break %}", "{% continue %}", "{% for x in [1] %}{% for y in [2] %}{{ loop.depth }}{{ x }}{{ y }}{% break %}{% endfor %}{{ loop.index }}{% endfor %}",
        "{% for x in [1, [2, [3]]] recursive %}{% if x is number %}{{ x }}@{{ loop.depth }} {% else %}({{ loop(x) }}){% endif %}{% endfor %}", "{% for x in [1, 2] %}{{ loop(x) }}{% endfor %}", "{% for x in [1, 2] %}{% set y = x %}{% endfor %}{{ y }}", "{% set y = 0 %}{% for x in [1, 2] %}{% set y = y + x %}{{ y }}{% endfor %}{{ y }}", "{% set ns = namespace(n=0) %}{% for x in [1, 2] %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "{% for x in [1] %}{% endfor %}{{ x }}", "{% set x = 5 %}{% for x in [1] %}{{ x }}{% endfor %}{{ x }}", "{% for x in [1, 2] %}{{ x }}{% if not loop.last %}, {% endif %}{% endfor %}", "{% for loop in [1] %}{% endfor %}",
        "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a, b = [1, 2] %}{{ a }}{{ b }}", "{% set a, b = 'xy' %}{{ a }}{{ b }}", "{% set a, b = [1] %}", "{% set a = 1, 2 %}{{ a }}", "{% set (a, b) = (1, 2) %}{{ b }}", "{% set x %}a{{ 1 }}{% endset %}{{ x }}|{{ x|length }}", "{% set x | upper %}abc{% endset %}{{ x }}", "{% set x | replace('a', 'b') | trim %} aa {% endset %}[{{ x }}]", "{% set x.y = 1 %}", "{% set users.x = 1 %}", "{% set true = 1 %}", "{% set x = %}", "{% set = 1 %}", "{% set a = b = 1 %}", "{% set x = missing %}{{ x is defined }}", "{% set x = none %}{{ x }}",
        "{% filter upper %}abc{{ 'd' }}{% endfilter %}", "{% filter replace('a', 'b') | upper %}aa{% endfilter %}", "{% filter indent(2) %}a\nb{% endfilter %}", "{% filter nope %}{% endfilter %}", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}", "{% with a = 1 %}{% with b = a + 1 %}{{ b }}{% endwith %}{% endwith %}", "{% autoescape true %}{{ '<' }}{{ '<'|safe }}{{ ['<'] }}{% endautoescape %}{{ '<' }}", "{% autoescape false %}{{ '<' }}{% endautoescape %}", "{% block a %}x{% endblock %}", "{% block a %}x{% endblock a %}y", "{% print 1, 'a' %}", "{% print 1 + 1 %}", "{% do 1 %}", "{% frobnicate %}", "{% %}", "{% debug %}", "{% trans %}x{% endtrans %}",
        "{% include 'x' %}", "{% include 'x' ignore missing %}", "{% import 'x' as y %}", "{% from 'x' import y %}", "{% extends 'x' %}", "{% if false %}{% include 'x' %}{% endif %}ok",
        "{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(b=5, a=4) }}{{ f() }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(c=2) }}", "{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, 3, x=4) }}{{ f() }}", "{% macro f() %}{{ varargs|join(',') }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a, b=1) %}{{ kwargs }}{{ b }}{% endmacro %}{{ f(1, c=3) }}|{{ f(1, b=4, d=5) }}", "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}x{{ 1 }}{% endcall %}", "{% macro f(l) %}{% for x in l %}{{ caller(x) }},{% endfor %}{% endmacro %}{% call(y) f([1, 2]) %}<{{ y }}>{% endcall %}", "{% macro f() %}{{ caller is defined }}{% endmacro %}{{ f() }}", "{% macro f(a=1, b=a) %}{{ b }}{% endmacro %}{{ f() }}{{ f(3) }}", "{% macro f(x) %}{% if x > 0 %}{{ x }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "{% macro f(x) %} {{ x }} {% endmacro %}[{{ f(1) }}]{{ f(1)|trim }}{{ f(2) is string }}",
        "{% macro f() %}{{ y }}{% endmacro %}{% set y = 3 %}{{ f() }}", "{% set y = 1 %}{% macro f() %}{% set y = 2 %}{{ y }}{% endmacro %}{{ f() }}{{ y }}", "{% for x in [1, 2] %}{% macro f() %}{{ x }}{% endmacro %}{{ f() }}{% endfor %}", "{% macro f(a, b) %}{{ a is defined }}{{ b is defined }}{% endmacro %}{{ f(1) }}", "{% macro f(a=1, b) %}{% endmacro %}", "{% macro f() %}a{% endmacro %}{{ f.name }}", "{% macro outer() %}{% macro inner(x) %}<{{ x }}>{% endmacro %}{{ inner(1) }}{% endmacro %}{{ outer() }}", "{% macro f(x) %}{{ x }}{% endmacro %}{{ [1, 2]|map('string')|map('upper')|join }}{{ f(*[7]) }}{{ f(**{'x': 8}) }}",
        "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}", "{% set j = joiner(', ') %}{% for x in [1, 2, 3] %}{{ j() }}{{ x }}{% endfor %}", "{% set j = joiner() %}{{ j() }}{{ j() }}", "{% set g = users|map(attribute='name') %}{{ g|join(',') }}|{{ g|join(',') }}", "{% set g = [1, 2, 3]|select %}{{ g|first }}{{ g|list }}", "{% set g = []|map('upper') %}{{ 'yes' if g else 'no' }}", "{% set g = [1, 2]|map('string') %}{{ g|length }}", "{{ ([1, 2]|map('string'))[0] is defined }}", "{% for x in [3, 1]|map('string') %}{{ x }}{{ loop.length }}{{ loop.last }}{% endfor %}", "{% for x in {'a': 1}.values() %}{{ loop.length }}{% endfor %}",
        "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{{ m['content']|default('', true)|trim }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}", "{% for m in messages if m.role != 'system' %}{{ loop.index }}:{{ m.role }} {% endfor %}", "{%- for m in messages %}\n    {%- if m.tool_calls %}\n        {%- for c in m.tool_calls %}\n            {{- c.function.name }}({{ c.function.arguments | tojson }})\n        {%- endfor %}\n    {%- endif %}\n{%- endfor %}", "{% set tools_text %}{% for t in tools %}{{ t.function | tojson(indent=4) }}{{ '\n' if not loop.last }}{% endfor %}{% endset %}{{ tools_text }}", "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{{ rest|length }}",
        "{% for name, p in tools[0].function.parameters.properties.items() %}{{ name }}: {{ p.type }}; {% endfor %}", "{% macro typed(p) %}{% if p.type == 'array' %}list{% else %}{{ p.type }}{% endif %}{% endmacro %}{% for name, p in tools[0].function.parameters.properties|items %}{{ name }} {{ typed(p) }}{{ ', ' if not loop.last else '' }}{% endfor %}", "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list|last }}", "{% if tools is defined and tools %}{{ tools|length }}{% endif %}{% if documents %}d{% endif %}", "{{ '' if nope is not defined else nope }}", "{{ documents is defined }}", "{% if messages|length % 2 == 0 %}even{% endif %}", "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ loop.index0 }}{% endif %}{% endfor %}",
        "{% for x in [1, 2, 3, 4] %}{{ loop.index0 * 3 % 2 }}{% endfor %}", "{{ 'ends' if 'abc'.endswith('c') and not false else 'no' }}", "{{ (messages|last).content ~ '!' }}", "{% set parts = 'a</think>b'.split('</think>') %}{{ parts[0] }}|{{ parts[-1] }}", "{{ ('a</think>b'.split('</think>')|last).lstrip('\\n') }}", "{% set x = [] %}{% set x = x + [1] %}{% set x = x + ['b'] %}{{ x }}{{ x|length }}", "{% set d = {'a': 1} %}{% set d = dict(d, **{'b': 2}) %}{{ d }}", "{{ dict(messages[0], content='x') }}", "{{ {'a': 1, **{'b': 2}} }}", "{{ [*[1, 2]] }}", "{{ 'a'.join(['x', 'y']) if true }}", "{{ messages[0].content.split(' ')|first }}", "{{ users|map(attribute='city')|map(attribute='name')|sort|join(' ') }}", "{{ messages|map(attribute='content')|select('string')|map('length')|sum }}", "{{ '%s' % messages[0].role }}{{ '%-10s|' % messages[1].role }}",
        "{% set ns = namespace(a=1) %}{% set ns.b = [ns.a] %}{{ ns.b }}", "{% set ns = namespace() %}{{ ns.x is defined }}{% set ns.x = true %}{{ ns.x }}", "{% set ns = namespace(items=[1]) %}{{ ns.items }}", "{{ (1, 2)|first }}{{ (3, 4)[1] }}", "{{ 'x' if users[0].active is true else 'y' }}", "{{ users[3].active is true }}", "{{ 'abc'|length > 2 and 'b' in 'abc' }}", "{{ ['a', 'b'] | join(', ') ~ '.' }}", "{% for a in 'ab' %}{% for b in 'cd' %}{{ loop.index }}{{ a }}{{ b }}{% endfor %}{{ loop.index }}{% endfor %}", "{% if 'a' is in 'abc' %}1{% endif %}", "{% if not x is defined %}1{% endif %}", "{% if x is not defined or x is none %}1{% endif %}", "{{ (users|groupby('age')|list)[0][1]|length }}", "{% for g in users|groupby('age') %}{{ g.grouper }}:{{ g.list|length }} {{ g[0] }};{% endfor %}", "{% for age, list in users|groupby('age') %}{{ age }}:{{ list|map(attribute='name')|join('+') }};{% endfor %}",
        "{{ messages.items }}", "{{ users[0].items is none }}", "{{ '\u00e9\u4e2d'|upper }}", "{% set \u00e4 = 1 %}x", "{{ 1 -}} \n a", "a \n {{- 1 }}", "{{ -1 }}{{- -1 }}{{ - 1 -}}", "{%if true%}x{%endif%}", "{% if true -%}\n x\n{%- endif %}", "{% if true %}{# c #}\n{% endif %}x", "a {# c #}\nb", "a {# c -#}\n b", "{# a #}{# b #}\n\nc", "x{% if true %}\n\n{% endif %}y", "{% for x in [1,2] %}\n  {{ x }}\n{% endfor %}\n", "  {% set a = 1 %}  {{ a }}", "{{ a\n|default('multi\nline') }}", "{% if a is defined\n and b %}x{% else %}y{% endif %}",
    ]:
        yield "statements", source


def compositions(seed, count):
    """Filters, methods, operators, tests and statements put together by chance (the same for the same seed)."""
    random = random_numbers.Random(seed)
    atoms = VALUES + ["big", "small", "third", "negative", "text", "users", "messages", "tools", "users[1].name", "'%s'", "'{}'",
                      "'a,b;c'", "-1", "10", "0.5", "1e16", "123456.789", "'x'*3", "('a', 'b')", "{'x': {'y': [1, 2]}}", "false", "' '", "'/'", "','"]
    arguments = {"default": ["('d')", "('d', true)"], "join": ["(',')", "('-')"], "replace": ["('a', 'b')", "('l', 'L', 1)"], "round": ["(1)", "(0, 'floor')"],
                 "truncate": ["(5)", "(7, true)"], "indent": ["(2)", "(2, true)"], "tojson": ["", "(indent=2)", "(sort_keys=true)"], "int": ["", "(7, 16)"], "float": [""],
                 "sort": ["", "(true)"], "map": ["('upper')", "('string')", "(attribute='name')", "('length')"], "select": ["('string')", ""], "reject": ["('none')"],
                 "selectattr": ["('age', 'gt', 25)"], "batch": ["(2)", "(3, 'f')"], "center": ["(9)"], "wordwrap": ["(5)"], "trim": ["", "('a')"], "sum": [""], "min": [""], "max": [""],
                 "unique": [""], "dictsort": [""], "first": [""], "last": [""], "length": [""], "list": [""], "string": [""], "upper": [""], "title": [""], "reverse": [""],
                 "e": [""], "safe": [""], "urlencode": [""], "items": [""], "pprint": [""], "format": ["(1)", "('a', 'b')"], "attr": ["('name')"]}
    methods = ["upper()", "title()", "strip()", "split()", "split(',')", "rsplit(' ', 1)", "splitlines()", "partition('l')", "replace('a', 'b')", "startswith('a')",
               "endswith(('c', 'o'))", "find('l')", "count('l')", "zfill(6)", "ljust(6)", "removeprefix('a')", "isalpha()", "isdigit()", "swapcase()", "casefold()", "join(['a', 'b'])",
               "format(1, 2)", "items()", "keys()", "values()", "get('b')", "get('zz', 1)", "name", "b", "x.y", "upper", "items"]
    tests = ["odd", "defined", "none", "string", "number", "mapping", "sequence", "iterable", "boolean", "lower", "callable", "eq 1", "ne 'a'", "gt 1", "in [1, 'a']"]
    operators = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", "and", "or", "in", "not in"]

    def expression(depth):
        if depth <= 0:
            return random.choice(atoms)
        kind = random.random()
        inner = expression(depth - 1)
        if kind < 0.35:
            name = random.choice(list(arguments))
            text = f"({inner})|{name}{random.choice(arguments[name])}"
            return f"({text}|list)" if name in GENERATORS else text
        if kind < 0.6:
            return f"({inner}).{random.choice(methods)}"
        if kind < 0.75:
            return f"({inner}) {random.choice(operators)} ({expression(depth - 1)})"
        if kind < 0.8:
            return f"({inner})[{random.choice(['0', '-1', chr(39) + 'b' + chr(39)])}]"
        if kind < 0.87:
            return f"({inner}) is {random.choice(['', 'not '])}{random.choice(tests)}"
        if kind < 0.93:
            return f"[{inner}, {expression(depth - 1)}]"
        if kind < 0.96:
            return f"({inner}) if ({expression(depth - 1)}) else ({expression(depth - 1)})"
        return f"{random.choice(['%s|%r', '%5s', '%d', '%.2f'])!r} % ({inner})"

    for _ in range(count):
        text = expression(random.randint(1, 4))
        kind = random.random()
        if kind < 0.7:
            yield "composition", "{{ " + text + " }}"
        elif kind < 0.85:
            yield "composition", "{% for x in " + text + " %}{{ x }};{{ loop.last }}{% else %}none{% endfor %}"
        else:
            yield "composition", "{% set v = " + text + " %}{{ 'yes' if v else 'no' }}{{ v }}"


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "../goldens/templates/corpus.jsonl")
    env = environment()
    lines, seen, failures = [], set(), 0
    for subject, source in itertools.chain(filters(), tests(), text_methods(), containers(), operators(), statements(),
                                            compositions(1, 1700)):
        if source in seen:
            continue
        seen.add(source)
        try:
            # The values are made anew, as no template may see what another did.
            values = json.loads(json.dumps(REQUEST))
            text = env.from_string(source).render(documents=None, **values)
        except RecursionError:
            raise
        except MemoryError:
            text = None
        except Exception:
            text = None
        if text is not None and any(word in text for word in LEFT_OUT):
            continue
        # Most that is put together by chance is refused: a part of it says enough.
        if subject == "composition" and (text is None and len(lines) % 6 or text is not None and len(text) > 200):
            continue
        failures += text is None
        lines.append([subject, source, text])
    with open(out, "w", encoding="utf-8", newline="\n") as file:
        for line in [REQUEST] + lines:
            file.write(json.dumps(line, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(f"{len(lines)} constructs, {failures} of them refused, {os.path.getsize(out)} bytes")


if __name__ == "__main__":
    main()
