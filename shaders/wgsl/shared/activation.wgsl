// Activations of feed-forward networks: GELU in ggml's form, CLAMPED_SWIGLU as gpt-oss has it, SIGMOID, else SiLU.

fn activate(x: f32) -> f32 {
#ifdef GELU
    // tanh's argument is clamped: some drivers compute it as (e^2x - 1) / (e^2x + 1) and overflow.
    let inner = clamp(0.7978845608028654 * (x + 0.044715 * x * x * x), -15.0, 15.0);
    return 0.5 * x * (1.0 + tanh(inner));
#else
#ifdef CLAMPED_SWIGLU
    let limited = min(x, 7.0);
    return limited / (1.0 + exp(-1.702 * limited));
#else
#ifdef SIGMOID
    return 1.0 / (1.0 + exp(-x));
#else
    return x / (1.0 + exp(-x));
#endif
#endif
#endif
}

// activation(gate) * up.
fn gate_times_up(gate: f32, up: f32) -> f32 {
#ifdef CLAMPED_SWIGLU
    return activate(gate) * (clamp(up, -7.0, 7.0) + 1.0);
#else
    return activate(gate) * up;
#endif
}
