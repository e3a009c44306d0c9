// Blocks of 256 elements of 3 bits. 16 elements share a scale of 6 bits.
#import packed

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let block = k4 / 64u * 114u;
    let at = k4 % 64u;
    let high = codes4(1u, block + 64u, at, kk, column4);
    let code = codes4(2u, block, at, kk, column4) | high << vec4(2u);
    let group = vec4<f32>(bytes4(block + 96u + at / 4u, column4)) - 32.0;
    return halves4(block + 112u, column4) * group * (vec4<f32>(code) - 4.0);
}
