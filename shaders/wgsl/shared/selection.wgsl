// How the next id is chosen: written by the host before each step. The chain is llama.cpp's: repeat penalty,
// top-k, top-p, min-p, temperature, draw.
struct Selection {
    // Where the id goes in `selected`.
    ring: u32,
    sequence: u32,
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
    padding: u32,
}
