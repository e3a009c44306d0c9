// Weights in bfloat16, which is the upper half of an f32: two to a word.
@group(0) @binding(2) var<storage, read> weights: array<vec2<u32>>;

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let packed = weights[(4u * k4 + kk) * params.n4 + column4];
    let low = bitcast<vec2<f32>>(packed << vec2(16u));
    let high = bitcast<vec2<f32>>(packed & vec2(0xffff0000u));
    return vec4(low.x, high.x, low.y, high.y);
}
