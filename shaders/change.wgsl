// The sums of |a - b| and of |b|, in two stages. In the first stage a workgroup sums 1024 groups of
// four into one pair. In the second one (LAST) a workgroup sums the pairs of a slot. The order of
// additions follows from the sizes alone, so that the result is the same on every run. With DELTA,
// `delta` first becomes a - delta, and the sums are those of |delta - b| and |b|.

#ifdef LAST
struct Params {
    // Pairs of a slot.
    count: u32,
    // Pairs from one slot to the next.
    stride: u32,
}

@group(0) @binding(1) var<storage, read> pairs: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec2<f32>>;
#else
struct Params {
    // Elements of a and b in this dispatch.
    count: u32,
    // Their positions in the bound parts, in groups of four.
    a4: u32,
    b4: u32,
    delta4: u32,
    // First pair of this dispatch.
    first_pair: u32,
}

@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> pairs: array<vec2<f32>>;
#ifdef DELTA
@group(0) @binding(4) var<storage, read_write> delta: array<vec4<f32>>;
#endif
#endif
@group(0) @binding(0) var<uniform> params: Params;

const THREADS = 64u;
// Groups of four that a thread sums in the first stage.
const TURNS = 16u;

var<workgroup> shares: array<vec2<f32>, THREADS>;

// The sum of all threads' shares, valid in thread 0.
fn total(thread: u32, share: vec2<f32>) -> vec2<f32> {
    shares[thread] = share;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            shares[thread] += shares[thread + half];
        }
    }
    return shares[thread];
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    var share = vec2(0.0);
#ifdef LAST
    for (var i = thread; i < params.count; i += THREADS) {
        share += pairs[group.x * params.stride + i];
    }
    let sum = total(thread, share);
    if thread == 0u {
        y[group.x] = sum;
    }
#else
    let index = group.y * groups.x + group.x;
    let count4 = (params.count + 3u) / 4u;
    for (var turn = 0u; turn < TURNS; turn++) {
        let i = (index * TURNS + turn) * THREADS + thread;
        if i < count4 {
            let valid = vec4(i * 4u) + vec4(0u, 1u, 2u, 3u) < vec4(params.count);
            let old = b[params.b4 + i];
#ifdef DELTA
            let at = params.delta4 + i;
            let value = a[params.a4 + i] - delta[at];
            delta[at] = value;
#else
            let value = a[params.a4 + i];
#endif
            let difference = select(vec4(0.0), abs(value - old), valid);
            share += vec2(dot(difference, vec4(1.0)), dot(select(vec4(0.0), abs(old), valid), vec4(1.0)));
        }
    }
    let sum = total(thread, share);
    // Folded workgroups past the end store nothing.
    if thread == 0u && index * TURNS * THREADS < count4 {
        pairs[params.first_pair + index] = sum;
    }
#endif
}
