// Part of a function: adds q k^T to `scores`, an array<array<vec4<f32>, KEY_GROUPS>, 8 *
// ROW_GROUPS>. A lane has the groups of four keys whose coordinate 0 is at k_column_0, k_column_1,
// ... It loads the query rows at q_row_0, q_row_1, ... and broadcasts them to all lanes.
        for (var d4 = 0u; d4 < D4; d4++) {
#repeat G ROW_GROUPS
            let q_$G = q[q_row_$G + d4];
#end
#repeat KK 4
            {
#repeat C KEY_GROUPS
                let k_$C = k[k_column_$C + (d4 * 4u + u32(KK)) * params.n_k4];
#end
#repeat G ROW_GROUPS
#repeat R 8
                {
                    let a = vec4(subgroupBroadcast(q_$G[KK], u32(R)));
#repeat C KEY_GROUPS
                    scores[G * 8 + R][C] = fma(a, k_$C, scores[G * 8 + R][C]);
#end
                }
#end
#end
            }
#end
        }
