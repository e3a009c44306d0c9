// Blocks of 32 elements of 5 bits with a scale.
#import packed

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let block = k4 / 8u * 22u;
    let high = codes4(1u, block + 16u, k4 % 8u, kk, column4);
    let code = codes4(4u, block, k4 % 8u, kk, column4) | high << vec4(4u);
    let scale = halves4(block + 20u, column4);
    return scale * (vec4<f32>(code) - 16.0);
}
