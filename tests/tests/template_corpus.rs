//! Templates against Python's jinja2 over a corpus of constructs (tests/make/template_corpus.py), and what a hostile or
//! unusable template may not do.

use std::time::Instant;

use engine::Message;
use engine::ModelFile;
use engine::internals::chat::{Template, TemplateInputs};
use engine::{Advice, ContextOptions, LoadOptions, Model, Scheduler, Session};
use engine_tests::devices::cpu_device;
use engine_tests::golden::{Tiny, folder};
use engine_tests::random::Random;
use gguf::Gguf;
use serde_json::{Value, json};

/// The inputs that the corpus was made with.
fn inputs() -> TemplateInputs {
    TemplateInputs {
        bos_token: "<s>".into(),
        eos_token: "</s>".into(),
        now: Some("2026-07-26T12:00:00".parse().unwrap()),
    }
}

fn render(template: &str, request: &Value) -> engine::Result<String> {
    Template::new(template)?.render_values(request, &inputs())
}

/// What differs from jinja2, and why.
const DIFFERENT: &[(&str, &str)] = &[
    (
        "{{ (users|selectattr('name', 'sameas', 'bob')|map(attribute='age'))|list }}",
        "texts have no identity here",
    ),
    ("{{ (3.real)|string }}|", "numbers have no attributes here"),
    ("{{ (-7) ** (2.5) }}", "complex numbers are refused"),
    ("{{ (-7) ** (-0.5) }}", "complex numbers are refused"),
    ("{{ (-0.5) ** (2.5) }}", "complex numbers are refused"),
    ("{{ (-0.5) ** (-0.5) }}", "complex numbers are refused"),
    // jinja2 computes nan when it compiles and writes it into its code as a name, which nothing has.
    ("{{ (missing) == ('nan'|float) }}", "a defect of jinja2"),
    ("{{ ('nan'|float) == (missing) }}", "a defect of jinja2"),
    ("{{ (missing) != ('nan'|float) }}", "a defect of jinja2"),
    ("{{ ('nan'|float) != (missing) }}", "a defect of jinja2"),
    // jinja2 finds out when it compiles a print of constants, and then prints nothing; of variables it is an error.
    ("{{ none[1:] }}", "an error, as of a variable"),
    ("{{ {}[1:] }}", "an error, as of a variable"),
    ("{{ [1, 2, 3, 4]['a':] }}", "an error, as of a variable"),
    ("{{ self }}", "there are no other templates whose blocks it could hold"),
    ("{% set \u{e4} = 1 %}x", "minijinja knows no names beyond ASCII"),
];

#[test]
fn constructs_render_as_in_jinja2() {
    let path = folder().join("templates/corpus.jsonl");
    let corpus =
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut lines = corpus.lines();
    let request: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    let (mut equal, mut different, mut wrong) = (0, 0, Vec::new());
    for line in lines {
        let case: Value = serde_json::from_str(line).unwrap();
        let template = case[1].as_str().unwrap();
        let ours = render(template, &request);
        let same = match (case[2].as_str(), &ours) {
            (None, Err(_)) => true,
            (Some(expected), Ok(ours)) => expected == ours,
            _ => false,
        };
        match (same, DIFFERENT.iter().any(|(other, _)| *other == template)) {
            (true, false) => equal += 1,
            (false, true) => different += 1,
            (true, true) => wrong.push(format!("{template}: listed as different, but it is not")),
            (false, false) => {
                let ours = ours.map_err(|error| error.to_string());
                wrong.push(format!(
                    "{}: {template}\n  {ours:?}\n  {:?}",
                    case[0],
                    case[2].as_str()
                ));
            }
        }
    }
    println!("{equal} constructs as in jinja2, {different} different for a reason");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(equal > 5000, "the corpus has shrunk: {equal}");
}

/// Random formats: Rust's and Python's digits are the same where both can say what is meant.
#[test]
fn floats_and_formats_agree_with_rust() {
    let mut generator = Random(20_261_126);
    let mut random = || generator.next();
    for _ in 0..2000 {
        let number = f64::from_bits(random());
        if !number.is_finite() {
            continue;
        }
        let digits = (random() % 12) as usize;
        let width = (random() % 40) as usize;
        let request = json!({"x": number, "text": "%0*.*f", "width": width, "digits": digits});
        // Whatever is written for a float reads back as that float.
        let written = render("{{ x }} {{ x|tojson }} {{ x|string|float == x }}", &request).unwrap();
        let parts: Vec<&str> = written.split(' ').collect();
        assert_eq!(parts[0].parse::<f64>().unwrap().to_bits(), number.to_bits(), "{written}");
        assert_eq!(parts[0], parts[1]);
        assert_eq!(parts[2], "True");
        let exponent = number.abs().log10();
        assert_eq!(
            parts[0].contains('e'),
            number != 0.0 && !(-4.0..16.0).contains(&exponent),
            "{written}"
        );
        let formatted = render("{{ text % (width, digits, x) }}", &request).unwrap();
        assert_eq!(formatted, format!("{number:0width$.digits$}"));
    }
}

/// Characters at random between tags: text comes out as it went in, but for newlines.
#[test]
fn text_of_any_kind_stays() {
    let mut state = 7_u64;
    let pieces =
        ["{", "}", "%", "#", "a", " ", "\n", "\r\n", "\r", "\"", "\\", "é", "{{ 1 }}", "'"];
    for _ in 0..3000 {
        let mut source = String::new();
        for _ in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            source.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        let opens = source.replace("{{ 1 }}", "");
        if ["{{", "{%", "{#"]
            .iter()
            .any(|open| opens.contains(open) || source.contains(&format!("{{{open}")))
        {
            continue;
        }
        let expected = source.replace("\r\n", "\n").replace('\r', "\n");
        let expected = expected.strip_suffix('\n').unwrap_or(&expected).replace("{{ 1 }}", "1");
        assert_eq!(render(&source, &json!({})).unwrap(), expected, "{source:?}");
    }
}

/// A number in a template takes neither memory nor time: an error that says so.
/// Templates are rewritten before they are rendered; one that spells what they are rewritten to ends no program.
#[test]
fn names_of_rewritten_templates_may_be_spelled() {
    let names = [
        "chain",
        "compare",
        "concat",
        "negative",
        "positive",
        "slice",
        "iterate",
        "no_loader",
        "item",
        "attribute",
        "arguments",
        "infinity",
        "absent",
        "is_absent",
    ];
    for name in names {
        for arguments in
            ["", "()", "(1)", "(1, '+')", "(1, 2, 3)", "([1], 2, [])", "(none)", "(x=1)"]
        {
            // An error or a text: either will do.
            let _ = render(&format!("{{{{ __{name}{arguments} }}}}"), &json!({}));
        }
    }
    let missing = render("{{ __negative() }}", &json!({})).unwrap_err().to_string();
    assert!(missing.contains("operand is missing"), "{missing}");
}

#[test]
fn numbers_in_templates_are_bounded() {
    for template in [
        "{{ 'x' * 10**9 }}",
        "{{ [0] * 10**9 }}",
        "{{ 'x'|center(10**12) }}",
        "{{ 'x'.ljust(10**12) }}",
        "{{ 'x'.zfill(10**12) }}",
        "{{ '\t'.expandtabs(10**12) }}",
        "{{ 'a\nb'|indent(10**12) }}",
        "{{ range(10**10) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%.1000000000f' % 1 }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:.1000000000f}'.format(1.0) }}",
        "{{ '{:{w}}'.format(1, w=10**9) }}",
        "{{ [1]|batch(10**12, 'x')|list }}",
        "{{ [1]|slice(10**12)|list }}",
        "{{ [1]|tojson(indent=10**12) }}",
        "{{ 2 ** 1000000000 }}",
        "{{ 1.5|round(10**12, 'ceil') }}",
        "{% set ns = namespace(t='xxxxxxxx') %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
        "{% set ns = namespace(t=[1]) %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
        "{% set ns = namespace(t='ab') %}{% for i in range(60) %}{% set ns.t = ns.t.replace('a', 'aa') %}{% endfor %}",
        "{% set ns = namespace(t='ab') %}{% for i in range(60) %}{% set ns.t = ns.t|urlencode|replace('a', 'aaaa') %}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{{ j }}{% endfor %}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in l %}{% if -1 in l %}{% endif %}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in l %}{% if l == l + [] %}{% endif %}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in l %}{% if l|sort %}{% endif %}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in l %}{% if l|unique|list %}{% endif %}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in l %}{% if l is eq l %}{% endif %}{% endfor %}",
        "{% set ns = namespace(t=[1]) %}{% for i in range(60) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.t }}",
        "{% set ns = namespace(t=[1]) %}{% for i in range(60) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.t|tojson }}",
        "{% set ns = namespace(t=[1]) %}{% for i in range(60) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.t|pprint }}",
        "{% set ns = namespace(t=[1], u=[1]) %}{% for i in range(60) %}{% set ns.t = [ns.t, ns.t] %}{% set ns.u = [ns.u, ns.u] %}{% endfor %}{{ ns.t == ns.u }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% include 'chat' %}",
    ] {
        let start = Instant::now();
        let error = render(template, &json!({})).expect_err(template).to_string();
        assert!(start.elapsed().as_secs() < 60, "{template}: {:?}", start.elapsed());
        assert!(error.starts_with("the chat template: "), "{template}: {error}");
    }
    // Nesting is bounded too, where it is parsed and where it is made.
    for (open, close) in [("(", ")"), ("[", "]"), ("-", ""), ("not ", ""), ("{1:", "}")] {
        let deep = format!("{{{{ {}1{} }}}}", open.repeat(5000), close.repeat(5000));
        _ = render(&deep, &json!({}));
    }
    let nested = "{% set ns = namespace(t=[]) %}{% for i in range(1000) %}{% set ns.t = [ns.t] %}{% endfor %}";
    for end in ["{{ ns.t }}", "{{ ns.t|tojson }}", "{{ ns.t|pprint }}"] {
        render(&format!("{nested}{end}"), &json!({})).expect_err(end);
    }
}

/// A tiny model with another chat template.
fn session_with_template(template: &[u8]) -> Session {
    let mut file = Gguf::open(Tiny::load("llama").path()).unwrap();
    file.metadata.set("tokenizer.chat_template", gguf::Value::String(template.to_vec()));
    let file = ModelFile::from_gguf(file).unwrap();
    let options = LoadOptions::default();
    let model = Model::load_file(&[cpu_device()], file, &options, &mut |_, _| ()).unwrap();
    let options = ContextOptions { positions: Some(64), ..ContextOptions::default() };
    Session::new(&Scheduler::start(&model, &options).unwrap()).unwrap()
}

/// Text needs no template: one that cannot be used stops conversations only, and says why and what to do.
#[test]
fn an_unusable_template_stops_conversations_only() {
    for (template, reason) in [
        ("{% frobnicate %}", "unknown statement frobnicate"),
        ("{{ messages | nosuchfilter }}", "nosuchfilter"),
        ("{% if %}", "expected an expression"),
        ("{% for m in messages %}", "unexpected end"),
    ] {
        let mut session = session_with_template(template.as_bytes());
        assert!(session.has_template());
        session.push_text("hello").unwrap();
        assert!(!session.prompt().is_empty());
        let error = session.push_chat(&[Message::user("hello")]).unwrap_err();
        assert!(error.to_string().contains(reason), "{template}: {error}");
        let advised = error.advice() == Some(Advice::PlainTextOrOtherTemplate)
            || template.contains("nosuchfilter");
        assert!(advised, "{template}: {error}");
    }
}

/// Bytes of a template that are no UTF-8 are read as U+FFFD, as in any other text.
#[test]
fn a_template_that_is_no_utf8_is_used() {
    for (template, expected) in [
        (&b"{% for m in messages %}{{ m.content }}{% endfor %}\xff"[..], "hello\u{fffd}"),
        (b"\xe2\x82{{ messages[0].role }}", "\u{fffd}user"),
        (b"{# \xfe #}{{ messages|length }}\r\n", "1"),
    ] {
        let mut metadata = Gguf::open(Tiny::load("llama").path()).unwrap().metadata;
        metadata.set("tokenizer.chat_template", gguf::Value::String(template.to_vec()));
        let compiled = Template::from_metadata(&metadata).unwrap().unwrap();
        let text = compiled.render(&[Message::user("hello")], true, &TemplateInputs::default());
        assert_eq!(text.unwrap(), expected);
        let mut session = session_with_template(template);
        session.push_text("hello").unwrap();
        session.push_chat(&[Message::user("hello")]).unwrap();
    }
}

/// transformers hands `tools` and `documents` over in any case, `None` where there are none. A template that goes through
/// them all the same finds them empty.
#[test]
fn absent_tools_and_documents_are_none() {
    for (template, expected) in [
        ("{% if tools is not none %}<tools>{{ tools | tojson }}</tools>{% endif %}x", "x"),
        ("{{ documents is none }} {{ tools is defined }}", "True True"),
        ("{{ tools|default('none', true) }}{% if documents %}d{% endif %}", "none"),
        ("{% for tool in tools %}{{ tool.name }}{% endfor %}x", "x"),
        ("{{ documents|length }}{{ tools|map(attribute='name')|join }}", "0"),
    ] {
        assert_eq!(render(template, &json!({"messages": []})).unwrap(), expected);
    }
    let given = json!({"messages": [], "tools": [1]});
    assert_eq!(render("{{ tools }}", &given).unwrap(), "[1]");
    let null = json!({"messages": [], "tools": null, "documents": null});
    render("{% for tool in tools %}{% endfor %}", &null).unwrap_err();
}
