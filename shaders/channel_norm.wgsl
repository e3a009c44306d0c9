// RMS norm over the channels of each pixel: y = x / max(|x|, 1e-12) * gamma, where gamma contains
// the square root of the number of channels. Then SiLU, with SILU. A thread computes one pixel.
#import activation

struct Params {
    // The pixel after the last one of this dispatch.
    pixels: u32,
    // First pixel of this dispatch.
    first: u32,
    // Channels, in groups of four.
    c4: u32,
    // First elements of the bound parts, in groups of four.
    x_start4: u32,
    y_start4: u32,
    // Pixel of the output that pixel 0 of x is written to.
    y_pixel: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y_out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let pixel = params.first + (group.y * groups.x + group.x) * 64u + local.x;
    if pixel >= params.pixels {
        return;
    }
    let source = pixel * params.c4 - params.x_start4;
    let place = (pixel + params.y_pixel) * params.c4 - params.y_start4;
    var squares = vec4(0.0);
    for (var c = 0u; c < params.c4; c++) {
        let value = x[source + c];
        squares = fma(value, value, squares);
    }
    let factor = 1.0 / max(sqrt(dot(squares, vec4(1.0))), 1e-12);
    for (var c = 0u; c < params.c4; c++) {
        var y = x[source + c] * factor * gamma[c];
#ifdef SILU
        y = silu4(y);
#endif
        y_out[place + c] = y;
    }
}
