// Attention paid: the sum of the softmax weights of chosen keys, for each query row and head. A
// thread has one query row. Only few keys are chosen (the words of a subject). q is read once for
// each of them, mostly from the cache.

struct Params {
    n_q: u32,
    n_k4: u32,
    // First query row of this dispatch, and the row after its last one.
    first_query: u32,
    end_query: u32,
    first_head: u32,
    // Number of chosen keys.
    chosen: u32,
    // Position of the first head's first row in the bound part of q and k, in groups of four.
    q4: u32,
    k4: u32,
    // log2 e times the factor of the scores.
    scale: f32,
    // bias[head * head_stride + key + offset - query * query_stride]
    bias_head_stride: u32,
    bias_query_stride: u32,
    bias_offset: u32,
}

const LOG2_E = 1.4426950408889634;
const D4 = u32(HEAD_DIM) / 4u;

@group(0) @binding(0) var<uniform> params: Params;
// [heads, n_q, d]
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
// [heads, d, n_k]: keys contiguous
@group(0) @binding(2) var<storage, read> k: array<f32>;
// [heads, n_q]
@group(0) @binding(3) var<storage, read> log_sum: array<f32>;
@group(0) @binding(4) var<storage, read> keys: array<u32>;
// [heads, n_q]
@group(0) @binding(5) var<storage, read_write> parts: array<f32>;
#ifdef BIAS
@group(0) @binding(6) var<storage, read> bias: array<f32>;
#endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let head = group.y;
    let query = params.first_query + group.x * 64u + local.x;
    if query >= params.end_query {
        return;
    }
    let q_row = params.q4 + (head * params.n_q + query - params.first_query) * D4;
    let k_head = (params.k4 + head * u32(HEAD_DIM) * params.n_k4) * 4u;
    let row = (params.first_head + head) * params.n_q + query;
    let log2_sum = LOG2_E * log_sum[row];
    var sum = 0.0;
    for (var i = 0u; i < params.chosen; i++) {
        let key = keys[i];
        var product = 0.0;
        for (var d4 = 0u; d4 < D4; d4++) {
            let at = k_head + d4 * 16u * params.n_k4 + key;
            let column = vec4(k[at], k[at + 4u * params.n_k4], k[at + 8u * params.n_k4], k[at + 12u * params.n_k4]);
            product += dot(q[q_row + d4], column);
        }
        var score = product * params.scale;
#ifdef BIAS
        score += LOG2_E * bias[(params.first_head + head) * params.bias_head_stride + key + params.bias_offset
            - query * params.bias_query_stride];
#endif
        sum += exp2(score - log2_sum);
    }
    parts[row] = sum;
}
