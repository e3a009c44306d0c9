// Matrix product y[m, n] = x[m, k] w[k, n] for devices without fast workgroup memory (CPU devices).
// One subgroup of 8 lanes computes 8 ROW_GROUPS x 32 LANE_COLUMNS results. Lane l loads x of rows
// l, l + 8, ... and broadcasts it. Loads are slow on such devices, and here each load serves many
// multiply-adds. Needs subgroups of at least 8 lanes.
#import product_input
#import weight_$FORMAT
#import product_store

// Groups of four results of a lane.
const RESULTS = 8u * u32(ROW_GROUPS) * u32(LANE_COLUMNS);

// The results, between their registers and the operations after a product. A loop cannot index
// registers. A lane only reads what it wrote itself, so no barrier is needed. Storing results in a
// loop, instead of in unrolled code, makes the driver's compilation 3 to 10 times shorter.
var<workgroup> staged: array<vec4<f32>, RESULTS * 8u>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let lane = local.x;
    // Neighbouring workgroups share columns, so that these weights stay in the cache.
    let first_row = rows_from() + group.x * (8u * u32(ROW_GROUPS));
    let column4 = group.y * (8u * u32(LANE_COLUMNS)) + lane;
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
                let w_$C = weight4(tap * params.k4 + k4, u32(KK), min(column4 + u32(C) * 8u, params.n4 - 1u));
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
#repeat C LANE_COLUMNS
    staged[((u32(G) * 8u + u32(R)) * u32(LANE_COLUMNS) + u32(C)) * 8u + lane] = sums[G * 8 + R][C];
#end
#end
#end
    // The compiler does not know these bounds, so it cannot unroll the loops again.
    let first_block = group.y * u32(LANE_COLUMNS);
    let end_row = min(first_row + 8u * u32(ROW_GROUPS), params.m);
    let end_block = min(first_block + u32(LANE_COLUMNS), (params.n4 + 7u) / 8u);
    for (var row = first_row; row < end_row; row++) {
        for (var block = first_block; block < end_block; block++) {
            if block * 8u + lane < params.n4 {
                let i = (row - first_row) * u32(LANE_COLUMNS) + block - first_block;
                store_product(row, block * 8u + lane, staged[i * 8u + lane]);
            }
        }
    }
}
