// Softmax of each row in place over its first columns. The rest of the row becomes zero. A
// workgroup has one row.

struct Params {
    // Columns that take part.
    columns: u32,
    // Columns in memory, in groups of four.
    n4: u32,
    rows: u32,
}

const THREADS = 64u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> x: array<vec4<f32>>;

var<workgroup> parts: array<f32, THREADS>;

// Four values of a row. Columns that do not take part get a finite stand-in for minus infinity,
// whose exponential is zero.
fn value(row: u32, c4: u32) -> vec4<f32> {
    let columns = c4 * 4u + vec4(0u, 1u, 2u, 3u);
    return select(vec4(-3e38), x[row * params.n4 + c4], columns < vec4(params.columns));
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    // Folded workgroups past the end read the last row and store nothing. They cannot return here,
    // because all threads must reach the barriers.
    let index = group.y * groups.x + group.x;
    let row = min(index, params.rows - 1u);
    var most = vec4(-3e38);
    for (var c = local.x; c < params.n4; c += THREADS) {
        most = max(most, value(row, c));
    }
    parts[local.x] = max(max(most.x, most.y), max(most.z, most.w));
    workgroupBarrier();
    var top = parts[0];
    for (var i = 1u; i < THREADS; i++) {
        top = max(top, parts[i]);
    }
    workgroupBarrier();
    var sums = vec4(0.0);
    for (var c = local.x; c < params.n4; c += THREADS) {
        sums += exp(value(row, c) - top);
    }
    parts[local.x] = dot(sums, vec4(1.0));
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < THREADS; i++) {
        sum += parts[i];
    }
    if index >= params.rows {
        return;
    }
    for (var c = local.x; c < params.n4; c += THREADS) {
        x[row * params.n4 + c] = exp(value(row, c) - top) / sum;
    }
}
