// Matrix product y[m, n] = x[m, k] w[k, n] for GPUs. A workgroup of 16 x 16 threads computes a tile
// of 16 TM x 64 results from tiles of x and w in workgroup memory. A thread computes TM x 4
// results. WebGPU's default limits are enough.
#import product_input
#import weight_$FORMAT
#import product_store

const ROWS = 16u * u32(TM);
// Groups of four of the inner extent that are staged at a time.
const DEPTH4 = 4u;
// Groups of four in a row of the x tile. One is padding against bank conflicts.
const STRIDE = DEPTH4 + 1u;
const TURNS = ROWS / 64u;

var<workgroup> x_tile: array<vec4<f32>, ROWS * STRIDE>;
var<workgroup> w_tile: array<vec4<f32>, DEPTH4 * 4u * 16u>;

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let thread = local.y * 16u + local.x;
    let first_row = rows_from() + group.y * ROWS;
    let column4 = group.x * 16u + local.x;
    // DEPTH4 threads load a row of x, so 256 threads load 64 rows a turn.
    let depth4 = thread % DEPTH4;
    var origins: array<Origin, TURNS>;
    for (var turn = 0u; turn < TURNS; turn++) {
        origins[turn] = origin(first_row + turn * 64u + thread / DEPTH4);
    }
    var sums: array<vec4<f32>, TM>;
    for (var tap = 0u; tap < taps(); tap++) {
        if tap_is_padding(first_row, first_row + ROWS - 1u, tap) {
            continue;
        }
        var at: array<u32, TURNS>;
        for (var turn = 0u; turn < TURNS; turn++) {
            at[turn] = at_tap(origins[turn], tap);
        }
        for (var k4 = 0u; k4 < params.k4; k4 += DEPTH4) {
            for (var turn = 0u; turn < TURNS; turn++) {
                var value = vec4(0.0);
                if k4 + depth4 < params.k4 {
                    value = x4(at[turn], k4 + depth4);
                }
                x_tile[(turn * 64u + thread / DEPTH4) * STRIDE + depth4] = value;
            }
            // A thread loads one group of four columns of w.
            let w_k4 = k4 + local.y / 4u;
            var value = vec4(0.0);
            if w_k4 < params.k4 && column4 < params.n4 {
                value = weight4(tap * params.k4 + w_k4, local.y % 4u, column4);
            }
            w_tile[thread] = value;
            workgroupBarrier();
            for (var d = 0u; d < DEPTH4; d++) {
                let w0 = w_tile[(d * 4u + 0u) * 16u + local.x];
                let w1 = w_tile[(d * 4u + 1u) * 16u + local.x];
                let w2 = w_tile[(d * 4u + 2u) * 16u + local.x];
                let w3 = w_tile[(d * 4u + 3u) * 16u + local.x];
#repeat ROW TM
                {
                    let a = x_tile[(local.y * u32(TM) + u32(ROW)) * STRIDE + d];
                    sums[ROW] = fma(a.xxxx, w0, fma(a.yyyy, w1, fma(a.zzzz, w2, fma(a.wwww, w3, sums[ROW]))));
                }
#end
            }
            workgroupBarrier();
        }
    }
    if column4 >= params.n4 {
        return;
    }
#repeat ROW TM
    if first_row + local.y * u32(TM) + u32(ROW) < params.m {
        store_product(first_row + local.y * u32(TM) + u32(ROW), column4, sums[ROW]);
    }
#end
}
