// The operations after a matrix product, on a finished group of four columns:
// y = f(x w * scale + bias). Then y may be multiplied by another matrix, or be added to the output
// with a gate for each column. The bits of `params.after` choose, and not permutations: all threads
// take the same branches, which cost nothing beside the product, while every further permutation
// takes time to compile.
#import activation

struct Params {
    // Rows of the result.
    m: u32,
    // Columns of the result, in groups of four.
    n4: u32,
    // Inner extent in groups of four. For a convolution, that of one tap.
    k4: u32,
    // First group of four of the gate vector.
    gate4: u32,
    // Factor of the weights.
    scale: f32,
    // The operations: bits of the constants below.
    after: u32,
    // Groups of four rows of the weights that share a scale, where weights have such scales.
    group4: u32,
    // Columns of the output in groups of four, and the first one of this product.
    y_n4: u32,
    y_column4: u32,
#ifdef CONV
    // First row to compute. Rows end at m.
    first_row: u32,
    // First elements of the bound parts of input and output, in groups of four.
    x_start4: u32,
    y_start4: u32,
    // Extents (t, y, x) of the input after upsampling. w is the number of doublings.
    input: vec4<u32>,
    // Extents (t, y, x) of the output.
    output: vec4<u32>,
    kernel: vec4<u32>,
    stride: vec4<u32>,
    // Zeros before the input.
    before: vec4<u32>,
    // Frame t of the result becomes frame x t + y of the output.
    frames: vec2<u32>,
#endif
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> y_out: array<vec4<f32>>;
// Without their bits in `after` the following are never read. Any tensor may then be bound.
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gate: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> gated_by: array<vec4<f32>>;

const BIAS = 1u;
const GELU = 2u;
const SILU = 4u;
const GATED_BY = 8u;
const GATE = 16u;
const RESIDUAL = 32u;

fn output_index(row: u32, column4: u32) -> u32 {
#ifdef CONV
    let frame_rows = params.output.y * params.output.z;
    let t = row / frame_rows;
    let to = (t * params.frames.x + params.frames.y) * frame_rows + row % frame_rows;
    return to * params.n4 + column4 - params.y_start4;
#else
    return row * params.y_n4 + params.y_column4 + column4;
#endif
}

fn store_product(row: u32, column4: u32, product: vec4<f32>) {
    let i = output_index(row, column4);
    var y = product * params.scale;
    if (params.after & BIAS) != 0u {
        y += bias[params.y_column4 + column4];
    }
    if (params.after & GELU) != 0u {
        y = gelu4(y);
    }
    if (params.after & SILU) != 0u {
        y = silu4(y);
    }
    if (params.after & GATED_BY) != 0u {
        y *= gated_by[i];
    }
    if (params.after & GATE) != 0u {
        y *= gate[params.gate4 + params.y_column4 + column4];
    }
    if (params.after & RESIDUAL) != 0u {
        y += y_out[i];
    }
    y_out[i] = y;
}
