// The right-hand matrix of a product: [k, n] row-major, read four neighbouring columns at a time.
// 16-bit weights stay packed in memory, and are widened in registers.
#ifdef WEIGHT_F32
@group(0) @binding(2) var<storage, read> weights: array<vec4<f32>>;

fn weight4(i: u32) -> vec4<f32> {
    return weights[i];
}
#else
@group(0) @binding(2) var<storage, read> weights: array<vec2<u32>>;

fn weight4(i: u32) -> vec4<f32> {
    let packed = weights[i];
#ifdef WEIGHT_F16
    return vec4(unpack2x16float(packed.x), unpack2x16float(packed.y));
#else
    // bfloat16 is the upper half of an f32.
    let low = bitcast<vec2<f32>>(packed << vec2(16u));
    let high = bitcast<vec2<f32>>(packed & vec2(0xffff0000u));
    return vec4(low.x, high.x, low.y, high.y);
#endif
}
#endif
