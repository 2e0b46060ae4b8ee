// How the next id of a sequence is chosen: written by the host before each step, one for each row that is chosen from. The
// chain is llama.cpp's: repeat penalty, top-k, top-p, min-p, temperature, draw.
struct Selection {
    // Which of the step's rows of logits.
    row: u32,
    // Of the sequence: where the id goes in `selected`, and whose recent ids count.
    seat: u32,
    // Of the random numbers.
    stream: u32,
    // Of the token that the logits belong to, plus one.
    position: u32,
    seed_low: u32,
    seed_high: u32,
    top_k: u32,
    temperature: f32,
    top_p: f32,
    min_p: f32,
    penalty: f32,
    // 1: the largest logit.
    greedy: u32,
}

// Words of a sequence's recent ids: how many there have been, then a ring of the last 64.
const RECENT_WORDS: u32 = 65u;
