// Blocks of 32 elements of 8 bits with a scale.
#import packed

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let block = k4 / 8u * 34u;
    let code = codes4(8u, block, k4 % 8u, kk, column4);
    let scale = halves4(block + 32u, column4);
    return scale * (vec4<f32>(code) - 128.0);
}
