//! Tokenizers against llama.cpp's ids.

use std::path::PathBuf;

use engine::{EncodeOptions, Tokenizer};
use engine_tests::golden::{Tiny, tiny_names};
use gguf::Gguf;

const PLAIN: EncodeOptions = EncodeOptions { add_special: false, parse_special: false };

#[test]
fn tiny_models() {
    for name in tiny_names() {
        let golden = Tiny::load(&name);
        let file = Gguf::open(golden.path()).unwrap();
        let tokenizer = Tokenizer::from_metadata(&file.metadata).unwrap();
        for case in &golden.tokenize {
            assert_eq!(
                tokenizer.encode(&case.text, PLAIN).unwrap(),
                case.ids,
                "{name}: {:?}",
                case.text
            );
            let special = EncodeOptions::default();
            assert_eq!(tokenizer.encode(&case.text, special).unwrap(), case.ids_special, "{name}");
            assert_eq!(tokenizer.decode(&case.ids), case.text, "{name}");
        }
    }
}

/// llama.cpp's own vocabulary tests, where `ENGINE_GOLDENS` names the folder that holds them.
#[test]
fn vocabularies_of_llama_cpp() {
    let Some(folder) = std::env::var_os("ENGINE_GOLDENS") else {
        println!("SKIPPED: ENGINE_GOLDENS does not name the folder of vocabularies");
        return;
    };
    let folder = PathBuf::from(folder).join("tokenizers");
    for name in [
        "bert-bge",
        "command-r",
        "deepseek-llm",
        "gemma-4",
        "gpt-2",
        "llama-bpe",
        "llama-spm",
        "phi-3",
        "qwen2",
        "qwen35",
        "starcoder",
    ] {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        let file = Gguf::open(&path).unwrap();
        let tokenizer = Tokenizer::from_metadata(&file.metadata).unwrap();
        let read = |extension: &str| {
            let path = format!("{}.{extension}", path.display());
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let (texts, ids) = (read("inp"), read("out"));
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        let ids: Vec<Vec<u32>> = ids
            .lines()
            .map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect())
            .collect();
        let mut tested = 0;
        for (text, ids) in texts.iter().zip(&ids) {
            assert_eq!(&tokenizer.encode(text, PLAIN).unwrap(), ids, "{name}: {text:?}");
            tested += 1;
        }
        assert!(tested > 40, "{name}: {tested} cases");
        println!("{name}: {tested} texts");
    }
}
