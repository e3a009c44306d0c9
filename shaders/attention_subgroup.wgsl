// Attention for devices without fast workgroup memory (CPU devices). One subgroup of 8 lanes
// computes 8 ROW_GROUPS query rows. In q k^T the lanes lie along the keys, 32 KEY_GROUPS of them a
// turn. In p v the lanes lie along the columns of v. The lanes share the other operand by
// broadcast, so that every load is wide and serves many multiply-adds. Needs subgroups of at least
// 8 lanes.
#import attention

const ROWS = 8u * u32(ROW_GROUPS);
// Keys of a turn.
const KEYS = 32u * u32(KEY_GROUPS);
// Elements of VALUE in a row of v.
const COLUMNS = u32(HEAD_DIM) / u32(WIDTH);

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let lane = local.x;
    let head = group.y;
    let first = params.first_query + group.x * ROWS;
    let v_head = (params.v4 * 4u + head * params.n_k * u32(HEAD_DIM)) / u32(WIDTH);
#repeat J LANE_COLUMNS
    let column_$J = min(lane + u32(J) * 8u, COLUMNS - 1u);
#end
#repeat G ROW_GROUPS
    let q_row_$G = q_row(head, first + u32(G) * 8u + lane);
#end
    var results: array<array<VALUE, LANE_COLUMNS>, 8 * ROW_GROUPS>;
    // For each row: the largest score so far, which is the same in all lanes, and this lane's share
    // of the sum of 2^(score - largest).
    var largest: array<f32, 8 * ROW_GROUPS>;
    var sums: array<f32, 8 * ROW_GROUPS>;
#repeat G ROW_GROUPS
#repeat R 8
    largest[G * 8 + R] = LOWEST;
#end
#end
    for (var key = 0u; key < params.n_k; key += KEYS) {
        // q k^T: a lane holds four neighbouring keys of each group.
        var scores: array<array<vec4<f32>, KEY_GROUPS>, 8 * ROW_GROUPS>;
#repeat C KEY_GROUPS
        let k_column_$C = k_head(head) + min(key / 4u + u32(C) * 8u + lane, params.n_k4 - 1u);
#end
#import query_key_subgroup
        // Online softmax: scores become 2^(score - largest), and earlier sums are rescaled to the
        // new largest score.
#repeat G ROW_GROUPS
#repeat R 8
        {
            let query = first + u32(G) * 8u + u32(R);
            var top = largest[G * 8 + R];
#repeat C KEY_GROUPS
            let score_$C = score4(scores[G * 8 + R][C], head, query, key + (u32(C) * 8u + lane) * 4u);
            top = max(top, max_of(score_$C));
#end
            top = subgroupMax(top);
            let rescale = exp2(largest[G * 8 + R] - top);
            largest[G * 8 + R] = top;
            sums[G * 8 + R] *= rescale;
#repeat C KEY_GROUPS
            let weight_$C = exp2(score_$C - top);
            scores[G * 8 + R][C] = weight_$C;
            sums[G * 8 + R] += sum_of(weight_$C);
#end
#repeat J LANE_COLUMNS
            results[G * 8 + R][J] *= rescale;
#end
        }
#end
#end
        // p v, key after key. A lane holds some columns.
#repeat C KEY_GROUPS
        for (var l = 0u; l < 8u; l++) {
#repeat KK 4
            {
                let row = v_head + min(key + u32(C) * 32u + l * 4u + u32(KK), params.n_k - 1u) * COLUMNS;
#repeat J LANE_COLUMNS
                let v_$J = v[row + column_$J];
#end
#repeat G ROW_GROUPS
#repeat R 8
                {
                    let p = VALUE(subgroupShuffle(scores[G * 8 + R][C][KK], l));
#repeat J LANE_COLUMNS
                    results[G * 8 + R][J] = fma(p, v_$J, results[G * 8 + R][J]);
#end
                }
#end
#end
            }
#end
        }
#end
    }
#repeat G ROW_GROUPS
#repeat R 8
    {
        let query = first + u32(G) * 8u + u32(R);
        let sum = subgroupAdd(sums[G * 8 + R]);
        if query < params.end_query {
            let row = (params.output4 + (query - params.first_query) * params.output_row4) * 4u / u32(WIDTH) + head * COLUMNS;
#repeat J LANE_COLUMNS
            if lane + u32(J) * 8u < COLUMNS {
                output[row + lane + u32(J) * 8u] = results[G * 8 + R][J] / sum;
            }
#end
#ifdef LOG_SUM
            if lane == 0u {
                log_sum[(params.first_head + head) * params.n_q + query] = LN_2 * (largest[G * 8 + R] + log2(sum));
            }
#endif
        }
    }
#end
#end
}
