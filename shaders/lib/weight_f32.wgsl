// Weights in f32, see packed.wgsl for those of 8 and fewer bits. `weight4` gives row 4 k4 + kk of
// the matrix [k, n] in the four columns from 4 column4 on.
@group(0) @binding(2) var<storage, read> weights: array<vec4<f32>>;

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    return weights[(4u * k4 + kk) * params.n4 + column4];
}
