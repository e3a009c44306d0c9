// What a matrix product does with a finished group of four columns: y = f(x w * scale + bias), then nothing, times another matrix,
// or added to what is there, weighted per column. Which of these is said by the bits of `params.after`, not by permutations: the
// branches are the same for all threads and cost nothing beside the product, while every permutation more is one more to compile.
#import activation

struct Params {
    // Rows of the result.
    m: u32,
    // Columns of the result, in groups of four.
    n4: u32,
    // Inner extent, in groups of four (of a convolution: of one tap).
    k4: u32,
    // First group of four of the gate vector.
    gate4: u32,
    // Scale of the weights (fp8 checkpoints have one per matrix).
    scale: f32,
    // What follows: the bits below.
    after: u32,
#ifdef CONV
    // First row to compute; rows end at m.
    first_row: u32,
    // Where the bound parts of input and output start, in groups of four.
    x_start4: u32,
    y_start4: u32,
    // Extents (t, y, x): input after upsampling, with the number of doublings in w; output.
    input: vec4<u32>,
    output: vec4<u32>,
    kernel: vec4<u32>,
    stride: vec4<u32>,
    // Zeros in front of the input.
    before: vec4<u32>,
    // Frame t of the result is frame x t + y of the output.
    frames: vec2<u32>,
#endif
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> y_out: array<vec4<f32>>;
// Those of the following that `after` does not ask for are never read; any other tensor may be bound in their place.
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
    return row * params.n4 + column4;
#endif
}

fn store_product(row: u32, column4: u32, product: vec4<f32>) {
    let i = output_index(row, column4);
    var y = product * params.scale;
    if (params.after & BIAS) != 0u {
        y += bias[column4];
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
        y *= gate[params.gate4 + column4];
    }
    if (params.after & RESIDUAL) != 0u {
        y += y_out[i];
    }
    y_out[i] = y;
}
