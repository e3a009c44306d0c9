// Blocks of 32 elements of 4 bits with a scale.
#import packed

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let block = k4 / 8u * 18u;
    let code = codes4(4u, block, k4 % 8u, kk, column4);
    let scale = halves4(block + 16u, column4);
    return scale * (vec4<f32>(code) - 8.0);
}
