// y[i] = x_weight * x[i] + y_weight * y[i], in place. One invocation handles four elements.
#import linear_index

struct Params {
    // Groups of four elements.
    count4: u32,
    // Where the first one lies in the views of x and y, in groups of four.
    x4: u32,
    y4: u32,
    x_weight: f32,
    y_weight: f32,
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
        let at = params.y4 + i;
        y[at] = params.x_weight * x[params.x4 + i] + params.y_weight * y[at];
    }
}
