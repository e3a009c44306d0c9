// Weights in one byte each. Behind them stand their scales, in f32: one for each column, or for
// each group of rows of a column.
#import packed

fn scale4(k4: u32, column4: u32) -> vec4<f32> {
    return floats4(4u * (params.k4 + k4 / params.group4), column4);
}
