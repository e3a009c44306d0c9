// Weights in f16: two to a word. They are widened in registers.
@group(0) @binding(2) var<storage, read> weights: array<vec2<u32>>;

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let packed = weights[(4u * k4 + kk) * params.n4 + column4];
    return vec4(unpack2x16float(packed.x), unpack2x16float(packed.y));
}
