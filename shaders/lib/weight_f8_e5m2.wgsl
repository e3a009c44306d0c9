// Floats of 5 exponent and 2 mantissa bits with scales: the upper byte of an f16.
#import packed_scale

fn weight4(k4: u32, kk: u32, column4: u32) -> vec4<f32> {
    let code = bytes4(4u * k4 + kk, column4);
    let magnitude = code & vec4(127u);
    var bits = (magnitude << vec4(21u)) + vec4(112u << 23u);
    bits = select(bits, bitcast<vec4<u32>>(vec4<f32>(magnitude) * 0x1p-16f), magnitude < vec4(4u));
    // Infinity and NaN.
    bits = select(bits, bits + vec4(112u << 23u), magnitude >= vec4(124u));
    return bitcast<vec4<f32>>(bits | (code & vec4(128u)) << vec4(24u)) * scale4(k4, column4);
}
