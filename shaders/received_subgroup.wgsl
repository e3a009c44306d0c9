// Attention received, for devices without fast workgroup memory. One subgroup of 8 lanes computes
// the sums of 32 KEY_GROUPS keys of a head, with 8 ROW_GROUPS query rows a turn. The lanes lie
// along the keys, and share the rows of q by broadcast (see attention_subgroup). Needs subgroups of
// at least 8 lanes.
#import received

const ROWS = 8u * u32(ROW_GROUPS);

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let lane = local.x;
    let head = group.y;
    let first4 = params.first_key4 + group.x * 8u * u32(KEY_GROUPS) + lane;
#repeat C KEY_GROUPS
    let k_column_$C = k_head(head) + min(first4 + u32(C) * 8u, params.n_k4 - 1u);
    var sums_$C = vec4(0.0);
#end
    for (var query = params.first_query; query < params.end_query; query += ROWS) {
        var scores: array<array<vec4<f32>, KEY_GROUPS>, 8 * ROW_GROUPS>;
#repeat G ROW_GROUPS
        let q_row_$G = q_row(head, query + u32(G) * 8u + lane);
        let log2_$G = row_log2(head, query + u32(G) * 8u + lane);
#end
#import query_key_subgroup
        // The rows of a turn are summed first, which keeps the rounding error of long sums small.
#repeat C KEY_GROUPS
        var turn_$C = vec4(0.0);
#end
#repeat G ROW_GROUPS
#repeat R 8
        {
            let log2_sum = subgroupBroadcast(log2_$G, u32(R));
#repeat C KEY_GROUPS
            turn_$C += weights4(scores[G * 8 + R][C], log2_sum);
#end
        }
#end
#end
#repeat C KEY_GROUPS
        sums_$C += turn_$C;
#end
    }
#repeat C KEY_GROUPS
    if first4 + u32(C) * 8u < params.end_key4 {
        parts[params.parts4 + head * params.n_k4 + first4 + u32(C) * 8u - params.first_key4] = sums_$C;
    }
#end
}
