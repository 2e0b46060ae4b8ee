// Candidates for the next id: what a pass of the search for the largest logits reads and leaves. The first pass
// (FIRST) reads logits, the others what the pass before has kept. Each row that is chosen from has candidates of its own.
#import shared/selection

struct Params {
    // Candidates of a row that this pass reads.
    count: u32,
    // Room for a row's candidates.
    room: u32,
}

#ifdef FIRST
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> flags: array<u32>;
@group(0) @binding(3) var<storage, read> selections: array<Selection>;
#else
@group(0) @binding(0) var<storage, read> candidates: array<vec2<u32>>;
#endif
@group(0) @binding(2) var<storage, read_write> kept: array<vec2<u32>>;
@group(0) @binding(4) var<uniform> params: Params;

const NO_LOGIT: f32 = -3.4e38;

struct Candidate {
    logit: f32,
    id: u32,
}

// Candidate `index` of the selection, or one that comes after all others if there are not so many. Sets the selection's flag
// to 1 if its logit is no finite number.
fn candidate_at(selection: u32, index: u32) -> Candidate {
    if index >= params.count {
        return Candidate(NO_LOGIT, 0xffffffffu);
    }
#ifdef FIRST
    let logit = logits[selections[selection].row * params.count + index];
    // By bits: a compiler may assume that there are no NaNs.
    if (bitcast<u32>(logit) & 0x7f800000u) == 0x7f800000u {
        flags[selection] = 1u;
        return Candidate(NO_LOGIT, index);
    }
    return Candidate(logit, index);
#else
    let candidate = candidates[selection * params.room + index];
    return Candidate(bitcast<f32>(candidate.x), candidate.y);
#endif
}

fn keep(selection: u32, index: u32, candidate: Candidate) {
    kept[selection * params.room + index] = vec2<u32>(bitcast<u32>(candidate.logit), candidate.id);
}

// The larger logit comes first, of equal ones the smaller id.
fn comes_first(a: Candidate, b: Candidate) -> bool {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}
