// Blocks of 256 elements of 5 bits. 32 elements share a scale and a minimum of 6 bits each.
#import packed

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let block = k4 / 64u * 180u;
    let at = k4 % 64u;
    let high = codes4(1u, block + 128u, at, kk, column4);
    let code = codes4(4u, block, at, kk, column4) | high << vec4(4u);
    let group = at / 8u;
    let scale = halves4(block + 176u, column4) * vec4<f32>(bytes4(block + 160u + group, column4));
    let least = halves4(block + 178u, column4) * vec4<f32>(bytes4(block + 168u + group, column4));
    return scale * vec4<f32>(code) - least;
}
