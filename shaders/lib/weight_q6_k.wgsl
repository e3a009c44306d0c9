// Blocks of 256 elements of 6 bits. 16 elements share a scale of 8 bits.
#import packed

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let block = k4 / 64u * 210u;
    let at = k4 % 64u;
    let high = codes4(2u, block + 128u, at, kk, column4);
    let code = codes4(4u, block, at, kk, column4) | high << vec4(4u);
    let group = vec4<f32>(bytes4(block + 192u + at / 4u, column4)) - 128.0;
    return halves4(block + 208u, column4) * group * (vec4<f32>(code) - 32.0);
}
