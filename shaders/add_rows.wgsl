// y[i] = a[i] + b[first + i mod period]: adds one matrix of a stack to every matrix of another. One invocation adds four elements.
#import linear_index

struct Params {
    // Groups of four elements of a and y.
    count4: u32,
    // Groups of four elements of the matrix.
    period4: u32,
    // Where it begins in b, in groups of four.
    first4: u32,
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
        y[i] = a[i] + b[params.first4 + i % params.period4];
    }
}
