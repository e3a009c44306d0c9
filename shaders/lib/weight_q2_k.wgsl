// Blocks of 256 elements of 2 bits. 16 elements share a scale and a minimum of 4 bits each.
#import packed

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let block = k4 / 64u * 84u;
    let at = k4 % 64u;
    let code = codes4(2u, block, at, kk, column4);
    let group = bytes4(block + 64u + at / 4u, column4);
    let scale = halves4(block + 80u, column4) * vec4<f32>(group & vec4(15u));
    let least = halves4(block + 82u, column4) * vec4<f32>(group >> vec4(4u));
    return scale * vec4<f32>(code) - least;
}
