// Blocks of 256 elements of 4 bits. 32 elements share a scale and a minimum of 6 bits each.
#import packed

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let block = k4 / 64u * 148u;
    let at = k4 % 64u;
    let code = codes4(4u, block, at, kk, column4);
    let group = at / 8u;
    let scale = halves4(block + 144u, column4) * vec4<f32>(bytes4(block + 128u + group, column4));
    let least = halves4(block + 146u, column4) * vec4<f32>(bytes4(block + 136u + group, column4));
    return scale * vec4<f32>(code) - least;
}
