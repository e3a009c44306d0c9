// y[c] = factor * (sum over rows of x[r, c]), with rows in order. A thread sums one column.
#import linear_index

struct Params {
    rows: u32,
    // Columns of y.
    columns: u32,
    // Columns of x in memory.
    stride: u32,
    factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let column = linear_index(group, groups, local);
    if column >= params.columns {
        return;
    }
    // Runs of 16 rows are summed first, which keeps the rounding error of long sums small.
    var sum = 0.0;
    for (var first = 0u; first < params.rows; first += 16u) {
        var run = 0.0;
        for (var row = first; row < min(first + 16u, params.rows); row++) {
            run += x[row * params.stride + column];
        }
        sum += run;
    }
    y[column] = sum * params.factor;
}
