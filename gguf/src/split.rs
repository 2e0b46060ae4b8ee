//! Names of the parts of a split model: `NAME-00001-of-00003.gguf`.

/// A part's name taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitName {
    /// What stands before `-00001-of-00003.gguf`.
    pub prefix: String,
    /// The part's number, from 1.
    pub part: u32,
    /// The number of parts.
    pub count: u32,
}

impl SplitName {
    /// Takes a file name or path apart; none if it is not the name of a part.
    pub fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (prefix, part) = rest.rsplit_once('-')?;
        let number = |digits: &str| {
            (digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit()))
                .then(|| digits.parse::<u32>().ok())?
        };
        let (part, count) = (number(part)?, number(count)?);
        (part >= 1 && part <= count).then(|| Self { prefix: prefix.into(), part, count })
    }

    /// The name of another part of the same model.
    pub fn name_of(&self, part: u32) -> String {
        split_file_name(&self.prefix, part, self.count)
    }
}

/// The name of part `part` (from 1) of `count`, as llama.cpp's gguf-split writes it.
pub fn split_file_name(prefix: &str, part: u32, count: u32) -> String {
    format!("{prefix}-{part:05}-of-{count:05}.gguf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let name = SplitName::parse("dir/model-q4-00002-of-00003.gguf").unwrap();
        assert_eq!(name, SplitName { prefix: "dir/model-q4".into(), part: 2, count: 3 });
        assert_eq!(name.name_of(1), "dir/model-q4-00001-of-00003.gguf");
        for not_a_part in
            ["model.gguf", "a-1-of-2.gguf", "a-00000-of-00002.gguf", "a-00003-of-00002.gguf"]
        {
            assert_eq!(SplitName::parse(not_a_part), None, "{not_a_part}");
        }
    }
}
