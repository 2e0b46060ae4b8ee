// Activations of a gated feed-forward network: GELU in ggml's form, else SiLU.

fn activate(x: f32) -> f32 {
#ifdef GELU
    // tanh's argument is clamped: some drivers compute it as (e^2x - 1) / (e^2x + 1) and overflow.
    let inner = clamp(0.7978845608028654 * (x + 0.044715 * x * x * x), -15.0, 15.0);
    return 0.5 * x * (1.0 + tanh(inner));
#else
    return x / (1.0 + exp(-x));
#endif
}
