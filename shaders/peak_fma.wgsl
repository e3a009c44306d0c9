// Multiply-adds without memory, for the highest speed of a device. A thread has 12 independent
// chains, which keep the units busy and fit 16 registers.

struct Params {
    turns: u32,
    factor: f32,
    summand: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> output: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let factor = vec4(params.factor);
    let summand = vec4(params.summand);
#repeat CHAIN 3
    var sum_$CHAIN = vec4(f32(id.x) + f32(CHAIN));
#end
    for (var turn = 0u; turn < params.turns; turn++) {
#repeat UNROLLED 8
#repeat CHAIN 3
        sum_$CHAIN = fma(sum_$CHAIN, factor, summand);
#end
#end
    }
    output[id.x] = sum_0 + sum_1 + sum_2;
}
