// Normalisation of rows: LayerNorm, or RMSNorm with RMS. A workgroup of LANES threads has one row.
// After the norm come a weight (WEIGHT) and a bias (SHIFT) for each column, or a modulation
// (MODULATED): y (1 + scale) + shift. INVERSE stores the factor only. SUBGROUP sums across the
// lanes of one subgroup, which must have at least LANES lanes.

struct Params {
    rows: u32,
    // Groups of four in a row of x, and the number of normalised ones.
    row4: u32,
    n4: u32,
    // Position of row 0 in the bound parts of x and the output, in groups of four. With INVERSE the
    // output's position is in elements.
    x4: u32,
    output4: u32,
    // Positions of the modulation's rows in their table, in groups of four.
    scale4: u32,
    shift4: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
#ifdef INVERSE
@group(0) @binding(2) var<storage, read_write> output: array<f32>;
#else
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;
#endif
#ifdef WEIGHT
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;
#endif
#ifdef SHIFT
@group(0) @binding(4) var<storage, read> shift: array<vec4<f32>>;
#endif
#ifdef MODULATED
@group(0) @binding(5) var<storage, read> modulation: array<vec4<f32>>;
#endif

#ifdef SUBGROUP
fn total(value: f32, lane: u32) -> f32 {
    return subgroupAdd(value);
}
#else
var<workgroup> shares: array<f32, LANES>;

// Every thread adds up all shares. Reads of one address by all threads are cheaper than the
// barriers of a tree. Between two sums there must be a barrier.
fn total(value: f32, lane: u32) -> f32 {
    shares[lane] = value;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < u32(LANES); i++) {
        sum += shares[i];
    }
    return sum;
}
#endif

fn sum_of(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}

@compute @workgroup_size(LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let lane = local.x;
    let row = group.y * groups.x + group.x;
    if row >= params.rows {
        return;
    }
    let start = params.x4 + row * params.row4;
    let count = f32(params.n4 * 4u);
    var sums = vec4(0.0);
#ifdef RMS
    for (var i = lane; i < params.n4; i += u32(LANES)) {
        let value = x[start + i];
        sums = fma(value, value, sums);
    }
    let factor = inverseSqrt(total(sum_of(sums), lane) / count + params.epsilon);
#else
    for (var i = lane; i < params.n4; i += u32(LANES)) {
        sums += x[start + i];
    }
    let rough = total(sum_of(sums), lane) / count;
    // With the mean subtracted, the squares are small. `rest` corrects the rounding error of the
    // mean.
    var squares = vec4(0.0);
    sums = vec4(0.0);
    for (var i = lane; i < params.n4; i += u32(LANES)) {
        let value = x[start + i] - rough;
        sums += value;
        squares = fma(value, value, squares);
    }
#ifndef SUBGROUP
    workgroupBarrier();
#endif
    let rest = total(sum_of(sums), lane) / count;
#ifndef SUBGROUP
    workgroupBarrier();
#endif
    let variance = total(sum_of(squares), lane) / count - rest * rest;
    let factor = inverseSqrt(variance + params.epsilon);
#endif
#ifdef INVERSE
    if lane == 0u {
        output[params.output4 + row] = factor;
    }
#else
    for (var i = lane; i < params.n4; i += u32(LANES)) {
#ifdef RMS
        var y = x[start + i] * factor;
#else
        var y = ((x[start + i] - rough) - rest) * factor;
#endif
#ifdef WEIGHT
        y *= weight[i];
#endif
#ifdef SHIFT
        y += shift[i];
#endif
#ifdef MODULATED
        y = fma(y, 1.0 + modulation[params.scale4 + i], modulation[params.shift4 + i]);
#endif
        output[params.output4 + row * params.row4 + i] = y;
    }
#endif
}
