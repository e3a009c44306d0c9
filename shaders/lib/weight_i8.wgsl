// Whole numbers from -128 to 127 with scales.
#import packed_scale

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let code = vec4<i32>(bytes4(4u * k4 + kk, column4) ^ vec4(128u)) - 128;
    return vec4<f32>(code) * scale4(k4, column4);
}
