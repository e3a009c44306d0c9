// y[i] = a_weight * a[i] + b_weight * b[i] + y_weight * y[i], in place. One invocation computes
// four elements.
#import linear_index

struct Params {
    // Groups of four elements.
    count4: u32,
    // Position of the first element in the views of a, b and y, in groups of four.
    a4: u32,
    b4: u32,
    y4: u32,
    a_weight: f32,
    b_weight: f32,
    y_weight: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_index(group, groups, local);
    if i < params.count4 {
        let at = params.y4 + i;
        let terms = params.a_weight * a[params.a4 + i] + params.b_weight * b[params.b4 + i];
        y[at] = terms + params.y_weight * y[at];
    }
}
