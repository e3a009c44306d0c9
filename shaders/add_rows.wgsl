// y[m, s] = a[s] + b[m]: adds each matrix of b to every matrix of a stack. One invocation computes
// four elements.
#import linear_index

struct Params {
    // Groups of four elements of y, of the stack, and of a matrix.
    count4: u32,
    stack4: u32,
    period4: u32,
    // Position of the first matrix in b, in groups of four.
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
        let in_stack = i % params.stack4;
        y[i] = a[in_stack] + b[params.first4 + i / params.stack4 * params.period4 + in_stack % params.period4];
    }
}
