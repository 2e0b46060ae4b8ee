//! Ids with a meaning of their own, and the tokens that end a generation: by the file's keys, by llama.cpp's
//! defaults and by the tokens' texts (`llama_vocab::impl::load` in llama-vocab.cpp).

use std::collections::BTreeSet;

use gguf::Metadata;

use super::TokenType;
use super::vocabulary::Vocabulary;
use crate::Result;

/// Ids with a meaning of their own: the file's, else llama.cpp's defaults for the kind of tokenizer, else
/// found by their texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begin of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// End of turn.
    pub eot: Option<u32>,
    /// End of message.
    pub eom: Option<u32>,
    /// Stands for text that has no token.
    pub unknown: Option<u32>,
    /// Between two texts, and after a text for encoders.
    pub separator: Option<u32>,
    /// Fills a row.
    pub padding: Option<u32>,
    /// Hides a word.
    pub mask: Option<u32>,
    /// The first token of a newline; padding in a vocabulary without one.
    pub newline: Option<u32>,
    /// Before the text in front of a hole.
    pub fim_prefix: Option<u32>,
    /// Before the text behind a hole.
    pub fim_suffix: Option<u32>,
    /// Where the hole is to be filled.
    pub fim_middle: Option<u32>,
    /// Fills a row of such texts.
    pub fim_padding: Option<u32>,
    /// Before the name of a repository.
    pub fim_repository: Option<u32>,
    /// Between the files of a repository.
    pub fim_separator: Option<u32>,
}

/// One of the ids.
type Field = fn(&mut SpecialIds) -> &mut Option<u32>;

/// Keys of ids, in the order in which they are read: of two for one id the later counts.
const KEYS: &[(&str, Field)] = &[
    ("bos", |ids| &mut ids.bos),
    ("eos", |ids| &mut ids.eos),
    ("eot", |ids| &mut ids.eot),
    ("eom", |ids| &mut ids.eom),
    ("unknown", |ids| &mut ids.unknown),
    // Misspelt in the format itself.
    ("seperator", |ids| &mut ids.separator),
    ("padding", |ids| &mut ids.padding),
    ("mask", |ids| &mut ids.mask),
    ("fim_pre", |ids| &mut ids.fim_prefix),
    ("fim_suf", |ids| &mut ids.fim_suffix),
    ("fim_mid", |ids| &mut ids.fim_middle),
    ("fim_pad", |ids| &mut ids.fim_padding),
    ("fim_rep", |ids| &mut ids.fim_repository),
    ("fim_sep", |ids| &mut ids.fim_separator),
    // Older names.
    ("prefix", |ids| &mut ids.fim_prefix),
    ("suffix", |ids| &mut ids.fim_suffix),
    ("middle", |ids| &mut ids.fim_middle),
];

/// Texts by which an id is found that no key names. Where a vocabulary has several of them, llama.cpp takes
/// whichever its hash table gives first; here it is the first of the list.
const BY_TEXT: &[(Field, &[&str])] = &[
    (
        |ids| &mut ids.eot,
        &[
            "<|eot_id|>",
            "<|im_end|>",
            "<|end|>",
            "<end_of_turn>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<EOT>",
            "_<EOT>",
            "[EOT]",
            "<｜end▁of▁sentence｜>",
            "<end_of_utterance>",
        ],
    ),
    (|ids| &mut ids.eom, &["<|eom_id|>"]),
    (
        |ids| &mut ids.fim_prefix,
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    ),
    (
        |ids| &mut ids.fim_suffix,
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    ),
    (
        |ids| &mut ids.fim_middle,
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    ),
    (|ids| &mut ids.fim_padding, &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"]),
    (
        |ids| &mut ids.fim_repository,
        &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
    ),
    (|ids| &mut ids.fim_separator, &["<|file_sep|>"]),
];

/// Tokens that end a generation by their text, and that are control tokens whatever the file says of them.
const END_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Marks of gpt-oss's messages, which always match in a text as user-defined tokens do.
const HARMONY_MARKS: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// What tokens mean.
pub struct Meanings {
    /// Ids with a meaning of their own.
    pub ids: SpecialIds,
    /// Tokens that end a generation.
    pub ends: BTreeSet<u32>,
    /// Tokens that the file has as control tokens and that became user-defined ones: no text for people.
    pub marks: BTreeSet<u32>,
}

/// Reads the ids that a file names, over `defaults`. An id beyond the vocabulary is told of in `warnings`, and
/// the default is kept: files with an id one too large were published.
pub fn read_ids(
    metadata: &Metadata,
    vocabulary: &Vocabulary,
    defaults: SpecialIds,
    warnings: &mut Vec<String>,
) -> Result<SpecialIds> {
    let tokens = vocabulary.len();
    let mut ids = defaults;
    for (name, field) in KEYS {
        let id = field(&mut ids);
        *id = id.filter(|&id| (id as usize) < tokens);
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(found) = metadata.get(&key) else { continue };
        match found.as_u64() {
            Some(new) if new < tokens as u64 => *id = Some(new as u32),
            _ if found.as_f64().is_none() => {
                return Err(metadata.wrong(&key, found, "a token's id").into());
            }
            _ => {
                let instead = id.map_or_else(
                    || "it is not used".into(),
                    |id| {
                        let text = vocabulary.texts.get(id as usize).unwrap_or_default();
                        format!("{id} ({:?}) is used", String::from_utf8_lossy(text))
                    },
                );
                warnings.push(format!(
                    "{}: {key} is {found}, the vocabulary has {tokens} tokens: {instead}",
                    metadata.file()
                ));
            }
        }
    }
    Ok(ids)
}

/// Finds by their texts what the keys do not say, and the tokens that end a generation; corrects the kinds of
/// tokens that files are known to have wrong.
pub fn find_meanings(
    vocabulary: &Vocabulary,
    types: &mut [TokenType],
    mut ids: SpecialIds,
) -> Meanings {
    let id_of = |text: &str| vocabulary.id(text.as_bytes());
    for (field, texts) in BY_TEXT {
        let field = field(&mut ids);
        if field.is_none() {
            *field = texts.iter().find_map(|text| id_of(text));
            if let Some(id) = *field {
                types[id as usize] = TokenType::Control;
            }
        }
    }
    let mut ends: BTreeSet<u32> =
        [ids.fim_padding, ids.fim_repository, ids.fim_separator].into_iter().flatten().collect();
    for id in END_TEXTS.iter().filter_map(|text| id_of(text)) {
        ends.insert(id);
        types[id as usize] = TokenType::Control;
    }
    let mut marks = BTreeSet::new();
    let mut make_user_defined = |types: &mut [TokenType], id: u32| {
        let kind = &mut types[id as usize];
        if matches!(kind, TokenType::Control | TokenType::Unknown) {
            marks.insert(id);
        }
        *kind = TokenType::UserDefined;
    };
    for id in HARMONY_MARKS.iter().filter_map(|text| id_of(text)) {
        make_user_defined(types, id);
    }
    ends.extend([ids.eos, ids.eot, ids.eom].into_iter().flatten());
    let is_end = |ends: &BTreeSet<u32>, text: &str| id_of(text).filter(|id| ends.contains(id));
    let has = |ends: &BTreeSet<u32>, text: &str| is_end(ends, text).is_some();
    // In gpt-oss's and Solar's format it ends a message, and the answer goes on.
    if let Some(end) = is_end(&ends, "<|end|>") {
        let call = has(&ends, "<|call|>") || has(&ends, "<|calls|>");
        if call && (has(&ends, "<|return|>") || has(&ends, "<|flush|>")) {
            ends.remove(&end);
            make_user_defined(types, end);
        }
    }
    // Struck-out text in these vocabularies, no mark.
    let struck_out = has(&ends, "<|tool_response>") || has(&ends, "<|plamo:eos|>");
    if struck_out && let Some(end) = is_end(&ends, "</s>") {
        ends.remove(&end);
        types[end as usize] = TokenType::Normal;
    }
    Meanings { ids, ends, marks }
}
