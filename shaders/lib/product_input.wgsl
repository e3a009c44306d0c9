// The left-hand matrix of a product. A plain matrix lies in memory row by row. With CONV the matrix
// is never stored: row r belongs to output pixel r of a convolution, and the inner extent runs over
// the kernel's taps, each with all channels of one input pixel.

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;

#ifdef CONV
// The position (t, y, x) in the input where the kernel of a row starts. Negative positions lie in
// the padding.
alias Origin = vec3<i32>;

const OUTSIDE = 0xffffffffu;

fn taps() -> u32 {
    return params.kernel.x * params.kernel.y * params.kernel.z;
}

// The row that workgroups count rows from.
fn rows_from() -> u32 {
    return params.first_row;
}

fn origin(row: u32) -> Origin {
    // Rows past the end repeat the last one, and are not stored.
    let r = min(row, params.m - 1u);
    let line = r / params.output.z;
    let at = vec3(line / params.output.y, line % params.output.y, r % params.output.z);
    return vec3<i32>(at * params.stride.xyz) - vec3<i32>(params.before.xyz);
}

fn tap_offset(tap: u32) -> vec3<i32> {
    let line = tap / params.kernel.z;
    return vec3<i32>(vec3(line / params.kernel.y, line % params.kernel.y, tap % params.kernel.z));
}

// Whether a tap lies in the padding for all of the rows first..=last. True is always right. False
// may be wrong for padding along x, and along y if the rows belong to several frames.
fn tap_is_padding(first: u32, last: u32, tap: u32) -> bool {
    let offset = tap_offset(tap);
    let a = origin(first) + offset;
    let b = origin(last) + offset;
    let rows_end = i32(params.input.y);
    return b.x < 0 || (a.x == b.x && (b.y < 0 || a.y >= rows_end));
}

// First group of four channels of the input pixel that a tap reads for a row. OUTSIDE for padding.
fn at_tap(origin: Origin, tap: u32) -> u32 {
    // As unsigned numbers, negative positions lie beyond the last one.
    let at = vec3<u32>(origin + tap_offset(tap));
    if any(at >= params.input.xyz) {
        return OUTSIDE;
    }
    // Nearest-neighbour upsampling in the image plane: two neighbours read the same pixel.
    let up = params.input.w;
    let pixel = (at.x * (params.input.y >> up) + (at.y >> up)) * (params.input.z >> up) + (at.z >> up);
    return pixel * params.k4 - params.x_start4;
}

fn x4(at: u32, k4: u32) -> vec4<f32> {
    let inside = at != OUTSIDE;
    return select(vec4(0.0), x[select(0u, at + k4, inside)], inside);
}
#else
// The first group of four of a row.
alias Origin = u32;

fn taps() -> u32 {
    return 1u;
}

fn rows_from() -> u32 {
    return 0u;
}

fn origin(row: u32) -> Origin {
    return min(row, params.m - 1u) * params.k4;
}

fn tap_is_padding(first: u32, last: u32, tap: u32) -> bool {
    return false;
}

fn at_tap(origin: Origin, tap: u32) -> u32 {
    return origin;
}

fn x4(at: u32, k4: u32) -> vec4<f32> {
    return x[at + k4];
}
#endif
