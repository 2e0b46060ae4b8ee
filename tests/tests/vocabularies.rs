//! Small vocabularies with odd keys against llama.cpp: ids, ends, kinds, pieces and texts made of ids. The data are
//! made by `tests/make/vocabularies.py`.

use std::sync::Arc;

use engine::internals::tokenizer::{DecodeOptions, TokenType};
use engine::{EncodeOptions, Tokenizer};
use gguf::{Array, BytesSource, Gguf, StringArray, Value, Writer};
use serde::Deserialize;
use serde_json::Value as Json;

/// A key, the kind of its value, and the value.
type Key = (String, String, Json);

/// The vocabularies of one kind of tokenizer.
#[derive(Deserialize)]
struct Vocabularies {
    base: Vec<Key>,
    vocabularies: Vec<Vocabulary>,
}

/// A vocabulary, and what llama.cpp makes of it.
#[derive(Deserialize)]
struct Vocabulary {
    name: String,
    set: Vec<Key>,
    drop: Vec<String>,
    /// Elements of arrays, replaced or added.
    patch: Vec<(String, Vec<(usize, Json)>)>,
    special: std::collections::BTreeMap<String, i64>,
    ends: Vec<u32>,
    /// Attributes and how many tokens have them, one after another.
    attributes: Vec<(u32, usize)>,
    /// Ids and their pieces in hexadecimal.
    pieces: Vec<(u32, String)>,
    /// Numbers of texts.
    texts: Vec<usize>,
    /// Their ids with special tokens added and recognised.
    ids: Vec<String>,
    /// And without.
    plain: Vec<String>,
    /// Ids, whether BOS and EOS are left out, and the text in hexadecimal.
    detokenized: Vec<(String, bool, String)>,
}

fn read(name: &str) -> String {
    let path = engine_tests::golden::folder().join("vocabularies").join(format!("{name}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn bytes_of(hexadecimal: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
    (0..hexadecimal.len()).step_by(2).map(pair).collect()
}

fn ids_of(text: &str) -> Vec<u32> {
    text.split([' ', ',']).filter(|id| !id.is_empty()).map(|id| id.parse().unwrap()).collect()
}

fn text_bytes(value: &Json) -> Vec<u8> {
    match value {
        Json::String(text) => text.as_bytes().to_vec(),
        other => bytes_of(other["hex"].as_str().unwrap()),
    }
}

fn value_of(kind: &str, value: &Json) -> Value {
    let items = || value.as_array().unwrap().iter();
    match kind {
        "u32" => Value::U32(value.as_u64().unwrap() as u32),
        "bool" => Value::Bool(value.as_bool().unwrap()),
        "f32" => Value::F32(value.as_f64().unwrap() as f32),
        "string" => Value::String(text_bytes(value)),
        "i32s" => Value::Array(Array::I32(items().map(|n| n.as_i64().unwrap() as i32).collect())),
        "f32s" => Value::Array(Array::F32(items().map(|n| n.as_f64().unwrap() as f32).collect())),
        "u8s" => Value::Array(Array::U8(bytes_of(value.as_str().unwrap()))),
        "strings" => {
            let mut strings = StringArray::new();
            items().for_each(|text| strings.push(&text_bytes(text)));
            Value::Array(Array::String(strings))
        }
        other => panic!("a value of the kind {other:?}"),
    }
}

impl Vocabulary {
    fn tokenizer(&self, base: &[Key]) -> Tokenizer {
        let mut writer = Writer::new();
        for (key, kind, value) in base.iter().filter(|(key, ..)| !self.drop.contains(key)) {
            let mut value = value.clone();
            for (_, elements) in self.patch.iter().filter(|(patched, _)| patched == key) {
                let items = value.as_array_mut().unwrap();
                for (index, element) in elements {
                    if *index < items.len() {
                        items[*index] = element.clone();
                    } else {
                        items.push(element.clone());
                    }
                }
            }
            writer.set(key, value_of(kind, &value));
        }
        for (key, kind, value) in &self.set {
            writer.set(key, value_of(kind, value));
        }
        let source = Arc::new(BytesSource::new("vocabulary.gguf", writer.to_bytes()));
        let file = Gguf::from_sources(vec![source]).unwrap();
        Tokenizer::from_metadata(&file.metadata)
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Compares everything; differences are appended to `wrong`. The number of texts encoded and decoded.
    fn compare(&self, base: &[Key], texts: &[String], wrong: &mut Vec<String>) -> (usize, usize) {
        let tokenizer = self.tokenizer(base);
        let mut differs = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                let name = &self.name;
                wrong.push(format!("{name}: {what}\n  ours   {ours}\n  theirs {theirs}"));
            }
        };
        for ((text, ids), plain) in
            self.texts.iter().map(|&n| &texts[n]).zip(&self.ids).zip(&self.plain)
        {
            let special = EncodeOptions { add_special: true, parse_special: true };
            let without = EncodeOptions { add_special: false, parse_special: false };
            for (options, ids) in [(special, ids), (without, plain)] {
                let ours = tokenizer.encode(text, options).unwrap();
                differs(&format!("{text:?}"), format!("{ours:?}"), format!("{:?}", ids_of(ids)));
            }
        }
        let ours: Vec<u32> = tokenizer.ends().collect();
        differs("ends", format!("{ours:?}"), format!("{:?}", self.ends));
        let ids = *tokenizer.special_ids();
        let number = |id: Option<u32>| id.map_or(-1, i64::from);
        for (name, theirs) in &self.special {
            let ours = match name.as_str() {
                "bos" => number(ids.bos),
                "eos" => number(ids.eos),
                "eot" => number(ids.eot),
                "sep" => number(ids.separator),
                "nl" => number(ids.newline),
                "pad" => number(ids.padding),
                "add_bos" => i64::from(tokenizer.add_bos),
                "add_eos" => i64::from(tokenizer.add_eos),
                "add_sep" => i64::from(tokenizer.add_sep),
                other => panic!("{other}"),
            };
            differs(name, ours.to_string(), theirs.to_string());
        }
        let attributes =
            self.attributes.iter().flat_map(|&(value, n)| std::iter::repeat_n(value, n));
        for (id, attributes) in (0u32..).zip(attributes) {
            let (ours, theirs) = (tokenizer.token_type(id), kind_of(attributes));
            differs(&format!("kind of {id}"), format!("{ours:?}"), format!("{theirs:?}"));
        }
        for (id, piece) in &self.pieces {
            let ours = tokenizer.piece_with_special(*id);
            differs(
                &format!("piece of {id}"),
                format!("{ours:x?}"),
                format!("{:x?}", bytes_of(piece)),
            );
        }
        let mut decoded = 0;
        for (ids, remove_special, text) in &self.detokenized {
            let ids = ids_of(ids);
            // Marks that llama.cpp shows and we do not.
            let marks = |&id: &u32| {
                tokenizer.is_mark(id) && tokenizer.token_type(id) == TokenType::UserDefined
            };
            if ids.iter().any(marks) {
                continue;
            }
            let options = DecodeOptions { remove_special: *remove_special, special: false };
            let theirs = String::from_utf8_lossy(&bytes_of(text)).into_owned();
            differs(&format!("text of {ids:?}"), tokenizer.decode_with(&ids, options), theirs);
            decoded += 1;
        }
        (2 * self.texts.len(), decoded)
    }
}

/// The kind by llama.cpp's attributes, of which a token may have several.
fn kind_of(attributes: u32) -> TokenType {
    let kinds = [
        (8, TokenType::Control),
        (1, TokenType::Unknown),
        (16, TokenType::UserDefined),
        (32, TokenType::Byte),
        (4, TokenType::Normal),
        (2, TokenType::Unused),
    ];
    let found = kinds.into_iter().find(|(bit, _)| attributes & bit != 0);
    found.map_or(TokenType::Undefined, |(_, kind)| kind)
}

fn compare_all(name: &str, least: usize) {
    let texts: Vec<String> = serde_json::from_str(&read("texts")).unwrap();
    let all: Vocabularies = serde_json::from_str(&read(name)).unwrap();
    let mut wrong = Vec::new();
    let (mut encoded, mut decoded) = (0, 0);
    for vocabulary in &all.vocabularies {
        let counts = vocabulary.compare(&all.base, &texts, &mut wrong);
        encoded += counts.0;
        decoded += counts.1;
    }
    let number = all.vocabularies.len();
    println!("{name}: {number} vocabularies, {encoded} texts to ids, {decoded} ids to texts");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(number >= least, "{number} vocabularies");
}

#[test]
fn sentencepiece() {
    compare_all("spm", 30);
}

#[test]
fn byte_level_bpe() {
    compare_all("bpe", 50);
}

#[test]
fn bpe_of_text_as_it_is() {
    compare_all("raw", 7);
}

#[test]
fn wordpiece() {
    compare_all("wpm", 12);
}

#[test]
fn unigram() {
    compare_all("ugm", 12);
}
