//! The README's tables of what is verified and how: made here from the goldens that the other tests run, and compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use engine::internals::spec::known_architectures;
use engine_tests::golden::folder;
use gguf::{Format, Gguf};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    arch: String,
    kind: String,
}

/// What other tests check of architectures that have no golden, or beyond it.
const BEYOND: &[(&str, &str)] = &[
    ("deepseek2", "decompressed keys and values (`variants`)"),
    ("granitemoe", "as mixtral with factors of 1 (`variants`)"),
    ("gemma3", "Gemma 3 270M (`real`)"),
    ("llama", "SmolLM2 135M (`real`); fused experts (`variants`)"),
    ("qwen2", "scaled products (`variants`)"),
    ("qwen3", "fused q, k, v (`variants`)"),
];

/// The goldens by architecture, and the formats that are in them.
fn goldens() -> BTreeMap<String, Vec<(String, String)>> {
    let mut by_architecture: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder().join("tiny")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let golden: Golden =
                serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            by_architecture.entry(golden.arch).or_default().push((name, golden.kind));
        }
    }
    for names in by_architecture.values_mut() {
        names.sort();
    }
    by_architecture
}

fn architectures() -> String {
    let goldens = goldens();
    let mut table = String::from(
        "| architecture | against llama.cpp, on reference, GPU and CPU | besides |\n|---|---|---|\n",
    );
    for architecture in known_architectures() {
        let names = goldens.get(architecture).cloned().unwrap_or_default();
        let besides =
            BEYOND.iter().find(|(name, _)| *name == architecture).map_or("", |(_, how)| how);
        assert!(!names.is_empty() || !besides.is_empty(), "nothing verifies {architecture}");
        // Of a family of files that differ by format alone the table needs their number.
        let (plain, formats): (Vec<_>, Vec<_>) =
            names.iter().partition(|(name, _)| !name.contains('.'));
        let what = |kind: &str| if kind == "embedding" { "vectors" } else { "logits" };
        let kind = names.first().map_or("", |(_, kind)| what(kind));
        let list: Vec<&str> = plain.iter().map(|(name, _)| name.as_str()).collect();
        let more = if formats.is_empty() {
            String::new()
        } else {
            format!(" and {} in other formats", formats.len())
        };
        let goldens = match (list.len(), formats.len()) {
            (0, 0) => "no golden".to_string(),
            _ => format!("{kind}: {}{more}", list.join(", ")),
        };
        let _ = writeln!(table, "| {architecture} | {goldens} | {besides} |");
    }
    for architecture in goldens.keys() {
        assert!(known_architectures().any(|known| known == architecture), "{architecture}");
    }
    table
}

fn formats() -> String {
    let mut models: BTreeMap<Format, Vec<String>> = BTreeMap::new();
    for (name, _) in goldens().into_values().flatten() {
        let file = Gguf::open(folder().join("tiny").join(format!("{name}.gguf"))).unwrap();
        for tensor in file.tensors.iter().filter(|tensor| tensor.rows() > 1) {
            let names = models.entry(file.format(tensor).unwrap()).or_default();
            if !names.contains(&name) {
                names.push(name.clone());
            }
        }
    }
    let mut table = String::from(
        "| format | decoding | kernels, each executor | whole models |\n|---|---|---|---:|\n",
    );
    for &format in Format::ALL {
        let decoding = match format {
            Format::Q8_1 | Format::Q8_K => "half a step from the numbers rounded",
            _ => "bit for bit as ggml",
        };
        let count = models.get(&format).map_or(0, Vec::len);
        let _ = writeln!(
            table,
            "| {} | {decoding} | within 2^-20 of the sum of products | {count} |",
            format.name()
        );
    }
    table
}

#[test]
fn the_readme_says_what_is_verified() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    for (name, table) in [("architectures", architectures()), ("formats", formats())] {
        let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let inside = readme
            .split_once(&start)
            .and_then(|(_, rest)| rest.split_once(&end))
            .map_or("", |(inside, _)| inside);
        assert!(inside == table, "between {start}and {end} the README should have\n{table}");
    }
}
