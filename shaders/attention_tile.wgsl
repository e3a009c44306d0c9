// Attention for GPUs. A workgroup of 8 x 16 threads computes 16 TM query rows, with 32 keys a turn.
// Both products are small matrix products of a [16 TM, 32] and a [32, 32] tile in workgroup memory,
// with TM x 4 results for each thread. q k^T sums over chunks of 32 coordinates, and p v computes
// chunks of 32 columns. WebGPU's default limits are enough (at most 15 KiB of workgroup memory).
#import attention
#import tile_product

// In the product p v, `left` holds the weights p and `right` a chunk of v.

// The largest score of each row among four keys.
var<workgroup> tops: array<f32, ROWS * 8u>;

@compute @workgroup_size(8, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let local = id.xy;
    let thread = local.y * 8u + local.x;
    let head = group.y;
    let first = params.first_query + group.x * ROWS;
    let v_head = params.v4 + head * params.n_k * D4;
#repeat CHUNK CHUNKS
    var results_$CHUNK: array<vec4<f32>, TM>;
#end
    // For each row: the largest score so far, and this thread's share of the sum of 2^(score -
    // largest).
    var largest: array<f32, TM>;
    var sums: array<f32, TM>;
#repeat ROW TM
    largest[ROW] = LOWEST;
#end
    for (var key = 0u; key < params.n_k; key += 32u) {
        var scores = array<vec4<f32>, TM>();
        let k_column = k_head(head) + min(key / 4u + local.x, params.n_k4 - 1u);
#import query_key_tile
#repeat ROW TM
        scores[ROW] = score4(scores[ROW], head, first + local.y * u32(TM) + u32(ROW), key + local.x * 4u);
        tops[(local.y * u32(TM) + u32(ROW)) * 8u + local.x] = max_of(scores[ROW]);
#end
        // Nobody reads the tiles of q and k after this barrier. The next turn begins with a
        // barrier, so that there is none at the end of a turn.
        workgroupBarrier();
        // Online softmax: earlier sums are rescaled to the new largest score.
#repeat ROW TM
        {
            let row = local.y * u32(TM) + u32(ROW);
            var top = largest[ROW];
            for (var i = 0u; i < 8u; i++) {
                top = max(top, tops[row * 8u + i]);
            }
            let rescale = exp2(largest[ROW] - top);
            largest[ROW] = top;
            let weights = exp2(scores[ROW] - top);
            sums[ROW] = sums[ROW] * rescale + sum_of(weights);
            left[row * STRIDE + local.x] = weights;
#repeat CHUNK CHUNKS
            results_$CHUNK[ROW] *= rescale;
#end
        }
#end
#repeat CHUNK CHUNKS
        {
#unless CHUNK 0
            workgroupBarrier();
#endif
            // Keys past the end have weight 0. Columns past the end are not stored.
            let column4 = min(u32(CHUNK) * 8u + local.x, D4 - 1u);
            for (var row = local.y; row < 32u; row += 16u) {
                right[row * 8u + local.x] = v[v_head + min(key + row, params.n_k - 1u) * D4 + column4];
            }
            workgroupBarrier();
            product(&results_$CHUNK, local, 8u);
        }
#end
    }
    // 8 threads hold the shares of a row's sum.
#repeat ROW TM
    tops[(local.y * u32(TM) + u32(ROW)) * 8u + local.x] = sums[ROW];
#end
    workgroupBarrier();
#repeat ROW TM
    {
        let row = local.y * u32(TM) + u32(ROW);
        let query = first + row;
        var sum = 0.0;
        for (var i = 0u; i < 8u; i++) {
            sum += tops[row * 8u + i];
        }
        if query < params.end_query {
            let start = params.output4 + (query - params.first_query) * params.output_row4 + head * D4;
#repeat CHUNK CHUNKS
            if u32(CHUNK) * 8u + local.x < D4 {
                output[start + u32(CHUNK) * 8u + local.x] = results_$CHUNK[ROW] / sum;
            }
#end
#ifdef LOG_SUM
            if local.x == 0u {
                log_sum[(params.first_head + head) * params.n_q + query] = LN_2 * (largest[ROW] + log2(sum));
            }
#endif
        }
    }
#end
}
