//! Which file of a repository a name means, by the rules of llama.cpp's `common/download.cpp`: among files that are
//! models, the one of the quantization asked for, else Q4_K_M, else Q8_0, else the first; of a split one, part 1.

use anyhow::{Context as _, Result, bail};
use gguf::SplitName;

use super::name::{Name, Pick, is_gguf};

/// The quantizations that are taken where a name says none, in order.
const DEFAULT_TAGS: [&str; 2] = ["Q4_K_M", "Q8_0"];

/// Parts of names that make a .gguf file something beside a model, and what (llama.cpp's `gguf_filename_is_model`).
const BESIDE: [(&str, &str); 6] = [
    ("mmproj", "a projector for images or sound"),
    ("imatrix", "an importance matrix"),
    ("mtp-", "a draft head"),
    ("eagle3-", "a draft model"),
    ("dflash-", "a draft model"),
    ("dspark-", "a draft model"),
];

/// Words of names that make a file something beside a model where others are there too: llama.cpp does not know them,
/// but files are so named.
const RATHER_NOT: [&str; 11] = [
    "mmproj",
    "imatrix",
    "mtp",
    "draft",
    "drafter",
    "eagle",
    "eagle2",
    "eagle3",
    "dflash",
    "dspark",
    "speculator",
];

/// What a .gguf file is if it is no model, by its name.
pub fn beside_a_model(path: &str) -> Option<&'static str> {
    let file = base_name(path);
    BESIDE.iter().find(|(part, _)| file.contains(part)).map(|(_, what)| *what)
}

/// Whether a file is one to take only where there is no other.
fn is_rather_not(path: &str) -> bool {
    let file = base_name(path);
    // MTP in capitals says that a whole model has such a head, unless the name begins with it.
    file.split(|c: char| !c.is_ascii_alphanumeric()).enumerate().any(|(at, word)| {
        let lower = word.to_ascii_lowercase();
        RATHER_NOT.contains(&lower.as_str()) && (lower != "mtp" || at == 0 || word == "mtp")
    })
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_first_part(path: &str) -> bool {
    SplitName::parse(path).is_none_or(|split| split.part == 1)
}

/// The file of a list that a name asks for; of a split model its first part.
///
/// # Errors
/// What the list holds instead.
pub fn choose(files: &[String], name: &Name) -> Result<String> {
    let folder = match &name.pick {
        Pick::File(file) => return by_name(files, name, file),
        Pick::Folder(folder) => Some(format!("{folder}/")),
        _ => None,
    };
    let within: Vec<&String> = files
        .iter()
        .filter(|file| folder.as_deref().is_none_or(|folder| file.starts_with(folder)))
        .collect();
    let mut models: Vec<&String> = within
        .iter()
        .copied()
        .filter(|file| is_gguf(file) && beside_a_model(file).is_none() && is_first_part(file))
        .collect();
    if models.iter().any(|file| !is_rather_not(file)) {
        models.retain(|file| !is_rather_not(file));
    }
    let find = |tag: &str, fits: fn(Option<char>) -> bool| {
        models.iter().find(|file| has_tag(file, tag, fits)).map(|file| (*file).clone())
    };
    let chosen = match &name.pick {
        Pick::Tag(tag) => find(tag, ends_a_tag).or_else(|| find(tag, ends_a_word)),
        _ => DEFAULT_TAGS
            .iter()
            .find_map(|tag| find(tag, ends_a_tag))
            .or_else(|| models.first().map(|file| (*file).clone())),
    };
    if let Some(chosen) = chosen {
        return Ok(chosen);
    }
    match &name.pick {
        Pick::Tag(tag) if !models.is_empty() => {
            let list: Vec<&str> = models.iter().map(|file| file.as_str()).collect();
            bail!("{} has no {tag}; its files: {}", name.repo, list.join(", "))
        }
        _ => bail!("{}", what_it_holds(name, &within)),
    }
}

/// A file by its name: its path, or its last part where one file alone has it.
fn by_name(files: &[String], name: &Name, wanted: &str) -> Result<String> {
    if let Some(what) = beside_a_model(wanted) {
        bail!("{wanted} of {} is {what}, not a model", name.repo);
    }
    let same = |file: &&String| file.eq_ignore_ascii_case(wanted);
    let same_base =
        |file: &&String| !wanted.contains('/') && base_name(file).eq_ignore_ascii_case(wanted);
    let bases: Vec<&String> = files.iter().filter(same_base).collect();
    let found = files
        .iter()
        .find(|file| *file == wanted)
        .or_else(|| files.iter().find(same))
        .or_else(|| bases.first().copied().filter(|_| bases.len() == 1));
    let Some(found) = found else {
        if bases.len() > 1 {
            let list: Vec<&str> = bases.iter().map(|file| file.as_str()).collect();
            bail!(
                "{} has several files {wanted}: write the folder too, one of {}",
                name.repo,
                list.join(", ")
            );
        }
        let list: Vec<&str> =
            files.iter().map(String::as_str).filter(|file| is_gguf(file)).collect();
        bail!("{} has no file {wanted}; its .gguf files: {}", name.repo, list.join(", "))
    };
    Ok(SplitName::parse(found).map_or_else(|| found.clone(), |split| split.name_of(1)))
}

/// What may follow a tag in a file's name, as in llama.cpp's pattern.
fn ends_a_tag(after: Option<char>) -> bool {
    matches!(after, Some('.' | '-'))
}

/// What may follow a tag that is found nowhere with a dot or a dash behind it, such as a folder's name.
fn ends_a_word(after: Option<char>) -> bool {
    !after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a path has a tag, in any case, that ends as `fits` says. llama.cpp takes a tag's letters wherever they
/// stand; here F16 does not find BF16, nor Q4_XS IQ4_XS.
fn has_tag(path: &str, tag: &str, fits: fn(Option<char>) -> bool) -> bool {
    let (path, tag) = (path.to_lowercase(), tag.to_lowercase());
    let mut from = 0;
    while let Some(at) = path[from..].find(&tag).map(|at| at + from) {
        let end = at + tag.len();
        if fits(path[end..].chars().next()) && !within_longer_tag(&path[..at], &tag) {
            return true;
        }
        from = at + tag.chars().next().map_or(1, char::len_utf8);
    }
    false
}

/// Whether a letter before a tag makes another quantization of it: BF16, IQ4_XS, TQ1_0, MXFP4.
fn within_longer_tag(before: &str, tag: &str) -> bool {
    let letters: &[&str] = match tag.as_bytes() {
        [b'f', b'p', ..] => &["mx", "nv", "b"],
        [b'f', ..] => &["b"],
        [b'q', ..] => &["i", "t"],
        _ => &[],
    };
    letters.iter().any(|letter| {
        before
            .strip_suffix(letter)
            .is_some_and(|rest| !rest.ends_with(|c: char| c.is_ascii_alphanumeric()))
    })
}

/// A sentence for a repository without a model: what its files are, and what to do.
fn what_it_holds(name: &Name, files: &[&String]) -> String {
    let repo = match &name.pick {
        Pick::Folder(folder) => format!("{folder} of {}", name.repo),
        _ => name.repo.clone(),
    };
    if files.is_empty() {
        return format!("{repo} holds no files");
    }
    let ggufs: Vec<&str> =
        files.iter().map(|file| file.as_str()).filter(|file| is_gguf(file)).collect();
    if let Some(first) = ggufs.first() {
        if ggufs.iter().all(|file| beside_a_model(file).is_some()) {
            let what = beside_a_model(first).unwrap_or("something else");
            return format!("{repo} holds no model: {first} is {what}");
        }
        return format!("{repo} holds only later parts of models: {}", ggufs.join(", "));
    }
    let held = [
        (".safetensors", "safetensors"),
        (".bin", "PyTorch weights"),
        (".pth", "PyTorch weights"),
        (".pt", "PyTorch weights"),
        (".onnx", "ONNX"),
        (".h5", "Keras weights"),
        (".ggml", "GGML files older than GGUF"),
    ];
    let found = held.iter().find_map(|(extension, what)| {
        files.iter().find(|file| file.ends_with(extension)).map(|file| (file, what))
    });
    match found {
        Some((file, what)) => format!(
            "{repo} holds no .gguf file but {what} ({file}): it must be converted to GGUF first; the hub often has a \
             repository that did, look for {}-GGUF",
            base_name(&name.repo)
        ),
        None => format!("{repo} holds no .gguf file"),
    }
}

/// The files that make up a chosen model: all parts of a split one, in order.
///
/// # Errors
/// A file that the list lacks.
pub fn parts(files: &[String], chosen: &str, name: &Name) -> Result<Vec<String>> {
    let split = SplitName::parse(chosen);
    let count = split.as_ref().map_or(1, |split| split.count);
    // As many as the list has at the most: the count is a number in a name.
    (1..=count)
        .map(|part| {
            let part = split.as_ref().map_or_else(|| chosen.into(), |split| split.name_of(part));
            files.contains(&part).then_some(part.clone()).with_context(|| {
                format!("{} lacks {part}: the model is there only in part", name.repo)
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(files: &[&str], name: &str) -> Result<String, String> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_string()).collect();
        choose(&files, &Name::parse(name).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_that_a_name_asks_for() {
        let files = [
            "README.md",
            "m-BF16.gguf",
            "m-F16.gguf",
            "m-IQ4_XS.gguf",
            "m-Q2_K.gguf",
            "m-Q4_0_4_4.gguf",
            "m-Q4_K_M.gguf",
            "m.Q8_0-00001-of-00002.gguf",
            "m.Q8_0-00002-of-00002.gguf",
            "sub/m-UD-Q4_K_XL.gguf",
            "t_q5_k_m.gguf",
        ];
        for (name, right) in [
            ("a/b", "m-Q4_K_M.gguf"),
            ("a/b:latest", "m-Q4_K_M.gguf"),
            ("a/b:q8_0", "m.Q8_0-00001-of-00002.gguf"),
            ("a/b:F16", "m-F16.gguf"),
            ("a/b:bf16", "m-BF16.gguf"),
            ("a/b:Q4_K_XL", "sub/m-UD-Q4_K_XL.gguf"),
            ("a/b:Q5_K_M", "t_q5_k_m.gguf"),
            ("a/b:m-Q2_K", "m-Q2_K.gguf"),
            ("a/b:m-Q2_K.gguf", "m-Q2_K.gguf"),
            ("a/b:m.Q8_0-00002-of-00002.gguf", "m.Q8_0-00001-of-00002.gguf"),
            ("a/b:m-ud-q4_k_xl.gguf", "sub/m-UD-Q4_K_XL.gguf"),
        ] {
            assert_eq!(chosen(&files, name).as_deref(), Ok(right), "{name}");
        }
        for name in ["a/b:Q4_K", "a/b:Q4_0", "a/b:Q4", "a/b:XS2", "a/b:Q4_XS", "a/b:Q3_K_M.gguf"] {
            assert!(chosen(&files, name).unwrap_err().contains("m-Q2_K.gguf"), "{name}");
        }
    }

    #[test]
    fn a_name_of_several_files_needs_its_folder() {
        let files = ["a/m-Q8_0.gguf", "b/m-Q8_0.gguf"];
        let error = chosen(&files, "u/r:m-Q8_0.gguf").unwrap_err();
        assert!(error.contains("write the folder too, one of a/m-Q8_0.gguf, b/m"), "{error}");
        assert_eq!(chosen(&files, "u/r:b/m-Q8_0.gguf").as_deref(), Ok("b/m-Q8_0.gguf"));
    }

    #[test]
    fn what_is_no_model_is_left_out() {
        for beside in [
            "mmproj-Q4_K_M.gguf",
            "a-mmproj-q4_k_m.gguf",
            "imatrix.gguf",
            "a.imatrix.Q4_K_M.gguf",
            "mtp-a-Q4_K_M.gguf",
            "eagle3-a-Q4_K_M.gguf",
            "dflash-a-Q4_K_M.gguf",
            "dspark-a-Q4_K_M.gguf",
            "a-draft-Q4_K_M.gguf",
            "draft/DRAFT-a-Q4_K_M.gguf",
            "a-eagle-Q4_K_M.gguf",
            "MMPROJ-Q4_K_M.gguf",
            "MTP-a.Q4_K_M.gguf",
        ] {
            assert_eq!(
                chosen(&[beside, "z-Q2_K.gguf"], "a/b").as_deref(),
                Ok("z-Q2_K.gguf"),
                "{beside}"
            );
            assert!(chosen(&[beside, "z-Q2_K.gguf"], "a/b:Q4_K_M").is_err(), "{beside}");
        }
        for file in ["mmproj-F16.gguf", "imatrix.gguf", "mtp-m.gguf"] {
            assert!(
                chosen(&[file], &format!("a/b:{file}")).unwrap_err().contains("not a model"),
                "{file}"
            );
            assert!(chosen(&[file], "a/b").unwrap_err().contains(file), "{file}");
        }
        // A repository of drafters is asked for by name.
        assert_eq!(chosen(&["m-DRAFT-Q4_K_M.gguf"], "a/b").as_deref(), Ok("m-DRAFT-Q4_K_M.gguf"));
        assert_eq!(
            chosen(&["a-MTP-Q4_K_M.gguf", "b-Q8_0.gguf"], "a/b").as_deref(),
            Ok("a-MTP-Q4_K_M.gguf")
        );
    }

    #[test]
    fn repositories_without_a_model_say_what_they_hold() {
        let cases: [(&[&str], &str); 5] = [
            (&["config.json", "model.safetensors"], "converted to GGUF"),
            (&["pytorch_model.bin"], "PyTorch"),
            (&["README.md"], "no .gguf file"),
            (&["m-00002-of-00002.gguf"], "later parts"),
            (&[], "no files"),
        ];
        for (files, said) in cases {
            for name in ["a/b", "a/b:Q8_0"] {
                let error = chosen(files, name).unwrap_err();
                assert!(error.contains(said), "{name}: {error}");
            }
        }
    }

    /// Lists of files and what llama.cpp takes of them, recorded by tests/make/hub_choices.py.
    #[test]
    fn as_llama_cpp_chooses() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/cases/hub-choices.jsonl");
        let text = std::fs::read_to_string(path).unwrap();
        let (mut same, mut on_purpose) = (0, 0);
        for line in text.lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let strings = |key: &str| -> Vec<String> {
                let array = case[key].as_array().unwrap();
                array.iter().map(|file| file.as_str().unwrap().to_string()).collect()
            };
            let files = strings("files");
            let mut name = Name::of("a/b");
            if let Some(tag) = case["tag"].as_str() {
                name.pick = Pick::Tag(tag.into());
            }
            let there = case["chosen"].as_str();
            let here = choose(&files, &name).ok();
            if here.as_deref() == there {
                same += 1;
                let parts = here.and_then(|here| parts(&files, &here, &name).ok());
                assert!(parts.is_none_or(|parts| parts == strings("parts")), "{line}");
                continue;
            }
            on_purpose += 1;
            // llama.cpp finds a tag inside a longer one, and none that a folder alone bears.
            let tag = case["tag"].as_str().unwrap().to_lowercase();
            let longer = there.is_some_and(|there| {
                ["b", "i", "t"]
                    .iter()
                    .any(|letter| there.to_lowercase().contains(&format!("{letter}{tag}")))
            });
            let loose = there.is_none()
                && here.as_ref().is_some_and(|here| {
                    !has_tag(here, &tag, ends_a_tag) && has_tag(here, &tag, ends_a_word)
                });
            assert!(longer || loose, "{line}\nhere: {here:?}");
        }
        assert!(same >= 480 && on_purpose <= 60, "{same} the same, {on_purpose} on purpose");
    }
}
