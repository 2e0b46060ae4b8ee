//! Any metadata of a tokenizer: it is refused, or a text is cut by it into ids that it has.
#![no_main]

use engine::internals::tokenizer::DecodeOptions;
use engine::{EncodeOptions, Tokenizer};
use engine_fuzz::{MODELS, Tokens};
use gguf::{Array, StringArray, Value};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

/// Keys that hold an id, a truth value, a text.
const IDS: [&str; 8] = [
    "bos_token_id",
    "eos_token_id",
    "eot_token_id",
    "unknown_token_id",
    "seperator_token_id",
    "padding_token_id",
    "mask_token_id",
    "fim_pre_token_id",
];
const FLAGS: [&str; 7] = [
    "add_bos_token",
    "add_eos_token",
    "add_sep_token",
    "add_space_prefix",
    "remove_extra_whitespaces",
    "escape_whitespaces",
    "normalizer.lowercase",
];
const PRES: [&str; 8] =
    ["default", "llama-bpe", "qwen2", "kimi-k2", "gemma4", "deepseek-v3", "chatglm-bpe", "tekken"];

fn build(u: &mut Unstructured) -> Result<(gguf::Metadata, String)> {
    let model = *u.choose(&MODELS)?;
    let mut tokens = Tokens::default();
    for _ in 0..u.int_in_range(0..=40)? {
        let text: &[u8] = u.arbitrary()?;
        tokens.push(text, u.arbitrary()?, u.int_in_range(-1..=8)?);
    }
    let mut merges = StringArray::new();
    for _ in 0..u.int_in_range(0..=20)? {
        merges.push(u.arbitrary()?);
    }
    let mut metadata = tokens.metadata(model, merges);
    let mut set = |key: &str, value| metadata.set(&format!("tokenizer.ggml.{key}"), value);
    set("pre", Value::from(*u.choose(&PRES)?));
    for key in IDS {
        if u.arbitrary()? {
            let id = if u.ratio(7, 8)? { u.int_in_range(0..=50)? } else { u.arbitrary()? };
            set(key, Value::U32(id));
        }
    }
    for key in FLAGS {
        if u.arbitrary()? {
            set(key, Value::Bool(u.arbitrary()?));
        }
    }
    if u.ratio(1, 4)? {
        set("precompiled_charsmap", Value::Array(Array::U8(u.arbitrary()?)));
    }
    Ok((metadata, u.arbitrary()?))
}

fuzz_target!(|bytes: &[u8]| {
    let Ok((metadata, text)) = build(&mut Unstructured::new(bytes)) else { return };
    let Ok(tokenizer) = Tokenizer::from_metadata(&metadata) else { return };
    for special in [false, true] {
        let options = EncodeOptions { add_special: special, parse_special: special };
        let Ok(ids) = tokenizer.encode(&text, options) else { continue };
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.len()), "{ids:?}");
        _ = tokenizer.decode_with(&ids, DecodeOptions { remove_special: special, special });
    }
    for id in 0..=tokenizer.len() as u32 {
        _ = (tokenizer.text(id), tokenizer.piece(id), tokenizer.is_end(id));
    }
});
