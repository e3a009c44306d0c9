// Floats of 4 exponent and 3 mantissa bits with scales. The type has no infinities.
#import packed_scale

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let code = bytes4(4u * k4 + kk, column4);
    let magnitude = code & vec4(127u);
    var bits = (magnitude << vec4(20u)) + vec4(120u << 23u);
    bits = select(bits, bitcast<vec4<u32>>(vec4<f32>(magnitude) * 0x1p-9f), magnitude < vec4(8u));
    bits = select(bits, vec4(0x7fc00000u), magnitude == vec4(127u));
    return bitcast<vec4<f32>>(bits | (code & vec4(128u)) << vec4(24u)) * scale4(k4, column4);
}
