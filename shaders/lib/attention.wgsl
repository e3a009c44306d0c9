// Shared by the attention kernels: softmax(q k^T scale + bias) v of some heads and query rows.
// Scores are exponents of two, because GPUs compute 2^x directly: `scale` and the bias are
// multiplied by log2 e.

struct Params {
    // Query rows and keys of the whole tensors.
    n_q: u32,
    n_k: u32,
    // Groups of four keys, as the rows of k are padded.
    n_k4: u32,
    // First query row of this dispatch, and the row after its last one.
    first_query: u32,
    end_query: u32,
    // First head of this dispatch.
    first_head: u32,
    // Position of the first head's first row in the bound part of q, k, v and the output, in groups
    // of four.
    q4: u32,
    k4: u32,
    v4: u32,
    output4: u32,
    // Groups of four in a row of the output: all heads.
    output_row4: u32,
    scale: f32,
    // bias[head * head_stride + key + offset - query * query_stride]
    bias_head_stride: u32,
    bias_query_stride: u32,
    bias_offset: u32,
}

const LOG2_E = 1.4426950408889634;
const LN_2 = 0.6931471805599453;
// A finite stand-in for minus infinity: far below any score, and the sum of two is still finite.
const LOWEST = -1e30;
// Groups of four in a row of q and a column of k.
const D4 = u32(HEAD_DIM) / 4u;

@group(0) @binding(0) var<uniform> params: Params;
// [heads, n_q, d]
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
// [heads, d, n_k]: keys contiguous
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
// [heads, n_k, d]
@group(0) @binding(3) var<storage, read> v: array<VALUE>;
// [n_q, heads * d]
@group(0) @binding(4) var<storage, read_write> output: array<VALUE>;
#ifdef BIAS
@group(0) @binding(5) var<storage, read> bias: array<f32>;
#endif
#ifdef LOG_SUM
// [heads, n_q]
@group(0) @binding(6) var<storage, read_write> log_sum: array<f32>;
#endif

// First group of four of a query row. Rows past the end read the last one.
fn q_row(head: u32, query: u32) -> u32 {
    return params.q4 + (head * params.n_q + min(query, params.end_query - 1u) - params.first_query) * D4;
}

// First group of four of coordinate 0 of k.
fn k_head(head: u32) -> u32 {
    return params.k4 + head * u32(HEAD_DIM) * params.n_k4;
}

// Scores of four neighbouring keys for a query, as exponents of two. Keys past the end get LOWEST.
fn score4(product: vec4<f32>, head: u32, query: u32, key: u32) -> vec4<f32> {
    let keys = vec4(key) + vec4(0u, 1u, 2u, 3u);
    var score = product * params.scale;
#ifdef BIAS
    let last = params.n_k - 1u;
    let base = (params.first_head + head) * params.bias_head_stride + params.bias_offset
        - min(query, params.end_query - 1u) * params.bias_query_stride;
    score += LOG2_E * vec4(
        bias[base + min(keys.x, last)],
        bias[base + min(keys.y, last)],
        bias[base + min(keys.z, last)],
        bias[base + min(keys.w, last)],
    );
#endif
    return select(vec4(LOWEST), score, keys < vec4(params.n_k));
}

fn max_of(x: vec4<f32>) -> f32 {
    return max(max(x.x, x.y), max(x.z, x.w));
}

fn sum_of(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}
