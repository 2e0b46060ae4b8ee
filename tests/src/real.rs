//! The two real models: goldens, files, and the checks that every executor must pass.

use std::path::PathBuf;

use engine::KvType;
use engine::internals::select::{log_softmax, top};
use engine::{EncodeOptions, Tokenizer};
use engine::{SequenceId, StepToken};
use serde::Deserialize;

use crate::golden::folder;
use crate::stepper::{Stepper, argmax};

/// A real model: golden and file.
#[derive(Debug)]
pub struct RealModel {
    /// The golden's name in `real/`.
    pub golden: &'static str,
    /// The file's name where `engine pull` puts it.
    pub file: &'static str,
}

/// SmolLM2 135M Instruct, Q4_1.
pub const SMOLLM2: RealModel = RealModel {
    golden: "smollm2-135m-instruct.q4_1.json",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
};
/// Gemma 3 270M, Q4_K_M.
pub const GEMMA3: RealModel =
    RealModel { golden: "gemma3-270m.q4_k_m.json", file: "gemma-3-270m-q4_k_m.gguf" };

/// What llama.cpp computed for a real model.
#[derive(Debug, Deserialize)]
pub struct Real {
    /// Prompts and their continuations.
    pub prompts: Vec<Prompt>,
    /// Texts and ids.
    pub tokenize: Vec<Tokenize>,
    /// Conversations and their text.
    #[serde(default)]
    pub chat: Vec<Chat>,
}

/// One prompt.
#[derive(Debug, Deserialize)]
pub struct Prompt {
    /// Its name.
    pub id: String,
    /// Its text.
    pub text: String,
    /// Its ids as fed.
    pub tokens: Vec<u32>,
    /// Its ids where control tokens in the text are not recognised, if those differ.
    pub tokens_parse_special_false: Option<Vec<u32>>,
    /// With weights expanded to F32 and an F32 cache.
    pub exact: Continuation,
    /// As llama.cpp runs by default.
    pub native: Continuation,
}

/// A greedy continuation.
#[derive(Debug, Deserialize)]
pub struct Continuation {
    /// The ids chosen.
    pub chosen_ids: Vec<u32>,
    /// The first positions in detail.
    pub steps: Vec<Step>,
    /// First minus second logit at every position.
    pub top2_gap: Vec<f64>,
    /// `eos` or `limit`.
    pub stop_type: String,
}

/// One position.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// The ten most likely ids with their log-probabilities.
    pub top: Vec<(u32, f64)>,
}

/// A text's ids.
#[derive(Debug, Deserialize)]
pub struct Tokenize {
    /// The text.
    pub text: String,
    /// With specials added and recognised.
    pub special: Vec<u32>,
    /// With neither.
    pub plain: Vec<u32>,
    /// What the plain ids say as text.
    pub detok_plain: String,
}

/// A conversation and its text.
#[derive(Debug, Deserialize)]
pub struct Chat {
    /// The messages.
    pub messages: Vec<engine::Message>,
    /// The text that the template makes of them.
    pub prompt: String,
}

impl RealModel {
    /// The golden.
    ///
    /// # Panics
    /// If it is missing or unreadable.
    pub fn load(&self) -> Real {
        let path = folder().join("real").join(self.golden);
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("golden {}: {error}", path.display()));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("golden {}: {error}", path.display()))
    }

    /// The model's file, as `engine pull` leaves it.
    ///
    /// # Panics
    /// If it is not there: `tests/run` fetches it.
    pub fn path(&self) -> PathBuf {
        let home = engine::internals::cache::folder().expect("a home folder");
        let path = home.join("models").join(self.file);
        assert!(path.exists(), "{} is missing: tests/run fetches it", path.display());
        path
    }
}

/// Whether the whole tier of tests is asked for (`tests/run --full`).
pub fn full_tier() -> bool {
    std::env::var_os("ENGINE_TEST_FULL").is_some()
}

/// Checks all of a golden's ids against a tokenizer.
///
/// # Panics
/// If one differs.
pub fn check_tokenizer(golden: &Real, tokenizer: &Tokenizer) {
    let special = EncodeOptions::default();
    let plain = EncodeOptions { add_special: false, parse_special: false };
    let unparsed = EncodeOptions { parse_special: false, ..special };
    for prompt in &golden.prompts {
        assert_eq!(
            tokenizer.encode(&prompt.text, special).unwrap(),
            prompt.tokens,
            "{}",
            prompt.id
        );
        if let Some(ids) = &prompt.tokens_parse_special_false {
            assert_eq!(&tokenizer.encode(&prompt.text, unparsed).unwrap(), ids, "{}", prompt.id);
        }
    }
    for case in &golden.tokenize {
        assert_eq!(tokenizer.encode(&case.text, special).unwrap(), case.special, "{:?}", case.text);
        assert_eq!(tokenizer.encode(&case.text, plain).unwrap(), case.plain, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&case.plain), case.detok_plain, "{:?}", case.text);
    }
}

/// How far log-probabilities of the recorded ids were from the exact ones: ours and llama.cpp's own.
#[derive(Debug, Default, Clone, Copy)]
pub struct Distance {
    /// The largest difference of ours.
    pub ours_max: f64,
    /// The sum of ours.
    pub ours_sum: f64,
    /// The largest difference of llama.cpp's default.
    pub native_max: f64,
    /// The sum of llama.cpp's, and how many were comparable.
    pub native_sum: f64,
    /// How many of ours were compared.
    pub ours_count: usize,
    /// How many of llama.cpp's were compared.
    pub native_count: usize,
}

impl Distance {
    /// Adds another prompt's.
    pub fn add(&mut self, other: Distance) {
        self.ours_max = self.ours_max.max(other.ours_max);
        self.native_max = self.native_max.max(other.native_max);
        self.ours_sum += other.ours_sum;
        self.native_sum += other.native_sum;
        self.ours_count += other.ours_count;
        self.native_count += other.native_count;
    }
}

/// How far a position may be from the golden.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// The most likely id must be the golden's where that leads by more than this.
    pub clear_lead: f64,
    /// The largest difference of a log-probability.
    pub bound: f64,
}

impl Allowed {
    /// For class f32 with a cache of a type.
    pub fn f32(kv: KvType) -> Self {
        match kv {
            KvType::F32 => Self { clear_lead: 0.02, bound: 0.01 },
            _ => Self::f16_tiles(),
        }
    }

    /// For class f16-tiles, whatever the cache.
    pub fn f16_tiles() -> Self {
        Self { clear_lead: 0.1, bound: 0.05 }
    }

    /// Only measured, not judged by position: int8 is judged by its distances.
    pub fn anything() -> Self {
        Self { clear_lead: f64::INFINITY, bound: f64::INFINITY }
    }
}

/// Feeds a prompt and the golden's continuation at once and checks every position: the most likely id
/// wherever the golden's lead is clear, and the recorded log-probabilities.
///
/// # Panics
/// If one is too far off.
pub fn check_teacher_forced(
    stepper: &mut dyn Stepper,
    prompt: &Prompt,
    sequence: SequenceId,
    allowed: &Allowed,
) -> Distance {
    let &Allowed { clear_lead, bound } = allowed;
    let exact = &prompt.exact;
    let mut ids = prompt.tokens.clone();
    ids.extend_from_slice(&exact.chosen_ids[..exact.chosen_ids.len() - 1]);
    let mut tokens = StepToken::run(sequence, 0, &ids, true);
    for token in &mut tokens[..prompt.tokens.len() - 1] {
        token.want_logits = false;
    }
    let rows = stepper.step(&tokens);
    assert_eq!(rows.len(), exact.chosen_ids.len(), "{}", prompt.id);
    let mut distance = Distance::default();
    // llama.cpp's default runs freely: comparable as long as it chose the same ids.
    let same = exact
        .chosen_ids
        .iter()
        .zip(&prompt.native.chosen_ids)
        .take_while(|(exact, native)| exact == native)
        .count();
    for (index, row) in rows.iter().enumerate() {
        let (expected, gap) = (exact.chosen_ids[index], exact.top2_gap[index]);
        assert!(
            argmax(row) == expected || gap <= clear_lead,
            "{} position {index}: {} instead of {expected}, which leads by {gap}",
            prompt.id,
            argmax(row)
        );
        let Some(step) = exact.steps.get(index) else { continue };
        let log_probabilities = log_softmax(row);
        for &(id, exact_log) in &step.top {
            let ours = (log_probabilities[id as usize] - exact_log).abs();
            assert!(
                ours <= bound,
                "{} position {index} id {id}: log-probability {} instead of {exact_log}, allowed {bound}",
                prompt.id,
                log_probabilities[id as usize]
            );
            distance.ours_max = distance.ours_max.max(ours);
            distance.ours_sum += ours;
            distance.ours_count += 1;
            let native = prompt.native.steps.get(index).filter(|_| index <= same);
            let native = native.and_then(|step| step.top.iter().find(|(other, _)| *other == id));
            if let Some((_, native_log)) = native {
                let native = (native_log - exact_log).abs();
                distance.native_max = distance.native_max.max(native);
                distance.native_sum += native;
                distance.native_count += 1;
            }
        }
        assert_eq!(top(&log_probabilities, 1)[0].0, argmax(row));
    }
    distance
}
