// Weights of 8 and fewer bits stay packed in memory. Their bytes form a matrix of as many columns
// as the weights have, and are unpacked in registers. Four neighbouring columns have one byte each
// in a word. `src/ops/packed.rs` puts the bytes in this order.
@group(0) @binding(2) var<storage, read> weights: array<u32>;

// One byte of each of four columns.
fn bytes4(row: u32, column4: u32) -> vec4<u32> {
    return (vec4(weights[row * params.n4 + column4]) >> vec4(0u, 8u, 16u, 24u)) & vec4(255u);
}

// One f16 of each of four columns. It takes two rows.
fn halves4(row: u32, column4: u32) -> vec4<f32> {
    let i = row * params.n4 + 2u * column4;
    return vec4(unpack2x16float(weights[i]), unpack2x16float(weights[i + 1u]));
}

// One f32 of each of four columns. It takes four rows.
fn floats4(row: u32, column4: u32) -> vec4<f32> {
    let i = row * params.n4 + 4u * column4;
    return bitcast<vec4<f32>>(vec4(weights[i], weights[i + 1u], weights[i + 2u], weights[i + 3u]));
}

// Codes of 1, 2, 4 or 8 bits that begin with row `first`: element 4 k4 + kk of each of four
// columns. A byte holds neighbouring elements, the first one in its lowest bits.
fn codes4(bits: u32, first: u32, k4: u32, kk: u32, column4: u32) -> vec4<u32> {
    let word = weights[(first + k4 * bits / 2u + kk * bits / 8u) * params.n4 + column4];
    let shift = (k4 * bits * 4u % 8u + kk * bits) % 8u;
    return (vec4(word) >> (vec4(0u, 8u, 16u, 24u) + shift)) & vec4((1u << bits) - 1u);
}
