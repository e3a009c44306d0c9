// Matrix product y[m, n] = x[m, k] w[k, n] with few columns, for devices without fast workgroup
// memory (CPU devices). One subgroup of 8 lanes computes 8 ROWS x 4 COLUMNS4 results. A lane
// computes ROWS whole rows, so that no lane idles. Each weight is loaded by one lane and broadcast
// to the others. Needs subgroups of at least 8 lanes.
#import product_input
#import weight_$FORMAT
#import product_store

// Loads of weights by a lane, for a group of four of the inner extent.
const LOADS = (4u * u32(COLUMNS4) + 7u) / 8u;

// Groups of four results of a lane, and the memory that they pass through: see matmul_subgroup.
const RESULTS = u32(ROWS) * u32(COLUMNS4);
var<workgroup> staged: array<vec4<f32>, RESULTS * 8u>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let lane = local.x;
    // Neighbouring workgroups share columns, so that these weights stay in the cache.
    let first_row = rows_from() + group.x * (8u * u32(ROWS));
    let first_column4 = group.y * u32(COLUMNS4);
    // Row among four and group of columns of each load.
    var w_kk: array<u32, LOADS>;
    var w_column4: array<u32, LOADS>;
    for (var load = 0u; load < LOADS; load++) {
        let i = min(load * 8u + lane, 4u * u32(COLUMNS4) - 1u);
        w_kk[load] = i / u32(COLUMNS4);
        w_column4[load] = min(first_column4 + i % u32(COLUMNS4), params.n4 - 1u);
    }
#repeat R ROWS
    let origin_$R = origin(first_row + u32(R) * 8u + lane);
#end
    var sums: array<array<vec4<f32>, COLUMNS4>, ROWS>;
    for (var tap = 0u; tap < taps(); tap++) {
        if tap_is_padding(first_row, first_row + 8u * u32(ROWS) - 1u, tap) {
            continue;
        }
#repeat R ROWS
        let at_$R = at_tap(origin_$R, tap);
#end
        for (var k4 = 0u; k4 < params.k4; k4++) {
            var w: array<vec4<f32>, LOADS>;
            for (var load = 0u; load < LOADS; load++) {
                w[load] = weight4(tap * params.k4 + k4, w_kk[load], w_column4[load]);
            }
#repeat R ROWS
            let x_$R = x4(at_$R, k4);
#end
#repeat KK 4
#repeat C COLUMNS4
            {
                let b = subgroupBroadcast(w[(u32(KK) * u32(COLUMNS4) + u32(C)) / 8u], (u32(KK) * u32(COLUMNS4) + u32(C)) % 8u);
#repeat R ROWS
                sums[R][C] = fma(vec4(x_$R[KK]), b, sums[R][C]);
#end
            }
#end
#end
        }
    }
#repeat R ROWS
#repeat C COLUMNS4
    staged[(u32(R) * u32(COLUMNS4) + u32(C)) * 8u + lane] = sums[R][C];
#end
#end
    // The compiler does not know these bounds, so it cannot unroll the loops again.
    let end_row = min(first_row + 8u * u32(ROWS), params.m);
    let end_column4 = min(first_column4 + u32(COLUMNS4), params.n4);
    for (var turn = first_row; turn < end_row; turn += 8u) {
        for (var column4 = first_column4; column4 < end_column4; column4++) {
            if turn + lane < params.m {
                let i = (turn - first_row) / 8u * u32(COLUMNS4) + column4 - first_column4;
                store_product(turn + lane, column4, staged[i * 8u + lane]);
            }
        }
    }
}
