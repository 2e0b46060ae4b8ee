//! Any text, cut into ids by a small vocabulary of each kind and put together again.
#![no_main]

use std::sync::LazyLock;

use engine::internals::tokenizer::{DecodeOptions, Detokenizer};
use engine::{EncodeOptions, Tokenizer};
use libfuzzer_sys::fuzz_target;

static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(engine_fuzz::tokenizers);

fuzz_target!(|bytes: &[u8]| {
    // The first byte says which vocabulary, and whether marks are recognised.
    let Some((&first, bytes)) = bytes.split_first() else { return };
    let kind = usize::from(first & 0x7f) % TOKENIZERS.len();
    let tokenizer = &TOKENIZERS[kind];
    let text = String::from_utf8_lossy(bytes);
    let options =
        EncodeOptions { add_special: first & 0x80 != 0, parse_special: first & 0x80 != 0 };
    let ids = tokenizer.encode(&text, options).unwrap();
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.len()));
    let decoded =
        tokenizer.decode_with(&ids, DecodeOptions { remove_special: true, special: true });
    let mut detokenizer = Detokenizer::new();
    let streamed: String = ids.iter().map(|&id| detokenizer.push(tokenizer, id)).collect();
    _ = (streamed, detokenizer.finish());
    // Each byte has a token of its own, and nothing is put in order: the text comes out as it went in.
    if !options.add_special && kind < 2 {
        assert_eq!(decoded, text);
    }
    // Ids that the text does not lead to.
    let ids: Vec<u32> =
        bytes.chunks(2).map(|id| id.iter().fold(0, |id, &b| id * 256 + u32::from(b))).collect();
    _ = tokenizer.decode(&ids);
});
