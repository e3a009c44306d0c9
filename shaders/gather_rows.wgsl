// y[h, i, c] = x[h, rows[i], c]: chosen rows of every head. A thread an element.
#import linear_index

struct Params {
    // Elements of y in this dispatch.
    count: u32,
    // Chosen rows of a head, and all rows of a head of x.
    chosen: u32,
    n: u32,
    columns: u32,
    // Where x and y begin in the bound parts, in elements.
    x_start: u32,
    y_start: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> rows: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_index(group, groups, local);
    if i >= params.count {
        return;
    }
    let column = i % params.columns;
    let row = i / params.columns % params.chosen;
    let head = i / (params.columns * params.chosen);
    y[params.y_start + i] = x[params.x_start + (head * params.n + rows[row]) * params.columns + column];
}
