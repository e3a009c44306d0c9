// Shared by the kernels of attention received: each key's sum of softmax weights over some query
// rows of a head. The attention stored the logarithms of the rows' sums. Scores are exponents of
// two: `scale` is multiplied by log2 e. With SAMPLED, queries are positions in a list of query
// rows.

struct Params {
    // Query rows of the whole tensors.
    n_q: u32,
    // Groups of four keys, as the rows of k are padded.
    n_k4: u32,
    // First query of this dispatch, and the query after its last one. Every workgroup sums over all
    // of them.
    first_query: u32,
    end_query: u32,
    // First query row of the bound part of q.
    bound_row: u32,
    // First group of four keys of this dispatch, and the group after its last one.
    first_key4: u32,
    end_key4: u32,
    // First head of this dispatch.
    first_head: u32,
    // Position of the first head's first row in the bound part of q and k, and of its first sum in
    // the bound part of the result, in groups of four.
    q4: u32,
    k4: u32,
    parts4: u32,
    scale: f32,
}

const LOG2_E = 1.4426950408889634;
// Groups of four in a row of q and a column of k.
const D4 = u32(HEAD_DIM) / 4u;

@group(0) @binding(0) var<uniform> params: Params;
// [heads, n_q, d]
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
// [heads, d, n_k]: keys contiguous
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
// [heads, n_q]
@group(0) @binding(3) var<storage, read> log_sum: array<f32>;
// [heads, n_k] of one part of the query rows
@group(0) @binding(4) var<storage, read_write> parts: array<vec4<f32>>;
#ifdef SAMPLED
// Sorted query rows
@group(0) @binding(5) var<storage, read> rows: array<u32>;
#endif

// The row of a query. Queries past the end repeat the last one.
fn row_of(query: u32) -> u32 {
    let last = min(query, params.end_query - 1u);
#ifdef SAMPLED
    return rows[last];
#else
    return last;
#endif
}

// First group of four of a query's row.
fn q_row(head: u32, query: u32) -> u32 {
    return params.q4 + (head * params.n_q + row_of(query) - params.bound_row) * D4;
}

// First group of four of coordinate 0 of k.
fn k_head(head: u32) -> u32 {
    return params.k4 + head * u32(HEAD_DIM) * params.n_k4;
}

// log2 of a query row's sum. Queries past the end get a value so large that their weights become 0.
fn row_log2(head: u32, query: u32) -> f32 {
    let row = (params.first_head + head) * params.n_q + row_of(query);
    return select(1e30, LOG2_E * log_sum[row], query < params.end_query);
}

// Weights of four keys for a query row.
fn weights4(product: vec4<f32>, log2_sum: f32) -> vec4<f32> {
    return exp2(fma(product, vec4(params.scale), vec4(-log2_sum)));
}
