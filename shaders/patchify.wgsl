// Latents [channels, frames, height, width] to and from rows of patches, one row a token, tokens frame by frame, line by line.
// Into the model a row is ordered (channel, pt, ph, pw); out of it (UNPATCHIFY) it is (pt, ph, pw, channel). One invocation writes one element.
#import linear_index

struct Params {
    channels: u32,
    // Latent extents.
    frames: u32,
    height: u32,
    width: u32,
    // Patch extents.
    pt: u32,
    ph: u32,
    pw: u32,
    // Elements of a row, padding included.
    row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = linear_index(group, groups, local);
    let tokens_y = params.height / params.ph;
    let tokens_x = params.width / params.pw;
#ifdef UNPATCHIFY
    if i >= params.channels * params.frames * params.height * params.width {
        return;
    }
    let x = i % params.width;
    let y = i / params.width % params.height;
    let f = i / (params.width * params.height) % params.frames;
    let c = i / (params.width * params.height * params.frames);
    let token = (f / params.pt * tokens_y + y / params.ph) * tokens_x + x / params.pw;
    let within = ((f % params.pt * params.ph + y % params.ph) * params.pw + x % params.pw) * params.channels + c;
    output[i] = input[token * params.row + within];
#else
    let tokens = params.frames / params.pt * tokens_y * tokens_x;
    if i >= tokens * params.row {
        return;
    }
    let token = i / params.row;
    let within = i % params.row;
    let patch_size = params.pt * params.ph * params.pw;
    let c = within / patch_size;
    if c >= params.channels {
        output[i] = 0.0;
        return;
    }
    let f = token / (tokens_y * tokens_x) * params.pt + within / (params.ph * params.pw) % params.pt;
    let y = token / tokens_x % tokens_y * params.ph + within / params.pw % params.ph;
    let x = token % tokens_x * params.pw + within % params.pw;
    output[i] = input[((c * params.frames + f) * params.height + y) * params.width + x];
#endif
}
