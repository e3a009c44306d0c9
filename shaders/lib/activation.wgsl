// Activation functions.

// tanh by the exp of a negative number, which overflows on no driver.
fn tanh4(x: vec4<f32>) -> vec4<f32> {
    let e = exp(-2.0 * abs(x));
    return sign(x) * (1.0 - e) / (1.0 + e);
}

// GELU, tanh approximation: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
fn gelu4(x: vec4<f32>) -> vec4<f32> {
    return 0.5 * x * (1.0 + tanh4(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

// SiLU: x / (1 + exp(-x)).
fn silu4(x: vec4<f32>) -> vec4<f32> {
    return x / (1.0 + exp(-clamp(x, vec4(-80.0), vec4(80.0))));
}
