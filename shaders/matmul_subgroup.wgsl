// Matrix product y[m, n] = x[m, k] w[k, n] for devices without fast workgroup memory (CPU rasterisers): one subgroup of 8 lanes makes
// 8 ROW_GROUPS x 32 LANE_COLUMNS results. Lane l loads x of rows l, l + 8, ... and spreads it by broadcast; loads are dear there,
// and each one made here feeds many multiply-adds. Needs subgroups of at least 8 lanes.
#import product_input
#import weight
#import product_store

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let lane = local.x;
    let first_row = rows_from() + group.y * (8u * u32(ROW_GROUPS));
    let column4 = group.x * (8u * u32(LANE_COLUMNS)) + lane;
    var sums: array<array<vec4<f32>, LANE_COLUMNS>, 8 * ROW_GROUPS>;
#repeat G ROW_GROUPS
    let origin_$G = origin(first_row + u32(G) * 8u + lane);
#end
    for (var tap = 0u; tap < taps(); tap++) {
        if tap_is_padding(first_row, first_row + 8u * u32(ROW_GROUPS) - 1u, tap) {
            continue;
        }
#repeat G ROW_GROUPS
        let at_$G = at_tap(origin_$G, tap);
#end
        for (var k4 = 0u; k4 < params.k4; k4++) {
#repeat G ROW_GROUPS
            let x_$G = x4(at_$G, k4);
#end
#repeat KK 4
            {
#repeat C LANE_COLUMNS
                let w_$C = weight4(((tap * params.k4 + k4) * 4u + u32(KK)) * params.n4 + min(column4 + u32(C) * 8u, params.n4 - 1u));
#end
#repeat G ROW_GROUPS
#repeat R 8
                {
                    let a = vec4(subgroupBroadcast(x_$G[KK], u32(R)));
#repeat C LANE_COLUMNS
                    sums[G * 8 + R][C] = fma(a, w_$C, sums[G * 8 + R][C]);
#end
                }
#end
#end
            }
#end
        }
    }
#repeat G ROW_GROUPS
#repeat R 8
    if first_row + u32(G) * 8u + u32(R) < params.m {
#repeat C LANE_COLUMNS
        if column4 + u32(C) * 8u < params.n4 {
            store_product(first_row + u32(G) * 8u + u32(R), column4 + u32(C) * 8u, sums[G * 8 + R][C]);
        }
#end
    }
#end
#end
}
