// Latents [channels, frames, height, width] to and from rows of patches, one row a token, tokens frame by frame, line by line.
// Into the model a row is ordered (channel, pt, ph, pw); out of it (UNPATCHIFY) it is (pt, ph, pw, channel). One invocation moves one
// channel of one token: whole-number divisions cost more than all else here.
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
    let token = i / params.channels;
    let c = i - token * params.channels;
    let tokens_x = params.width / params.pw;
    let tokens_in_frame = params.height / params.ph * tokens_x;
    let t = token / tokens_in_frame;
    let in_frame = token - t * tokens_in_frame;
    let y = in_frame / tokens_x;
    let x = in_frame - y * tokens_x;
    if t * params.pt >= params.frames {
        return;
    }
    let patch_size = params.pt * params.ph * params.pw;
#ifdef UNPATCHIFY
    let stride = params.channels;
    var element = token * params.row + c;
#else
    let stride = 1u;
    var element = token * params.row + c * patch_size;
#endif
    for (var f = t * params.pt; f < (t + 1u) * params.pt; f++) {
        for (var line = y * params.ph; line < (y + 1u) * params.ph; line++) {
            let first = ((c * params.frames + f) * params.height + line) * params.width + x * params.pw;
            for (var latent = first; latent < first + params.pw; latent++) {
#ifdef UNPATCHIFY
                output[latent] = input[element];
#else
                output[element] = input[latent];
#endif
                element += stride;
            }
        }
    }
#ifndef UNPATCHIFY
    if c == params.channels - 1u {
        for (; element < (token + 1u) * params.row; element++) {
            output[element] = 0.0;
        }
    }
#endif
}
