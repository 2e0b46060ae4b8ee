// ln(1 + e^x); x itself above 20, as llama.cpp has it.
fn softplus(x: f32) -> f32 {
    // For small e^x the logarithm of 1 + e^x loses it; its series keeps it.
    let power = exp(min(x, 20.0));
    let small = power * (1.0 - power * (0.5 - power / 3.0));
    return select(select(log(1.0 + power), small, power < 0.004), x, x > 20.0);
}
