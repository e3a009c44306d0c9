// y[r, c] = x[r * stride, c]: evenly spread rows of a matrix. One invocation copies four elements.
#import linear_index

struct Params {
    // Groups of four elements of y, and of a row.
    count4: u32,
    columns4: u32,
    // Groups of four from one copied row to the next.
    stride4: u32,
    // Positions of the first rows in the views of x and y, in groups of four.
    x4: u32,
    y4: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_index(group, groups, local);
    if i < params.count4 {
        y[params.y4 + i] = x[params.x4 + i / params.columns4 * params.stride4 + i % params.columns4];
    }
}
