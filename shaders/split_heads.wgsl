// Splits one column block of a projection, [n, heads * d], into heads: [heads, n, d], or with
// TRANSPOSED [heads, d, n], where n is padded by zeros to a multiple of 4. NORM multiplies by a
// factor for each row and a weight for each column. ROPE then turns by the angles of rotary
// position embedding. A thread moves a block of 4 rows x 4 columns.

struct Params {
    // Rows of the whole tensors, and the padded rows in groups of four.
    n: u32,
    n4: u32,
    // First row of this dispatch, a multiple of 4, and its number of groups of four rows.
    first_row: u32,
    row_groups: u32,
    // First head of this dispatch, and its number of heads.
    first_head: u32,
    heads: u32,
    // Groups of four columns of a head.
    d4: u32,
    // Position of the first row in the bound part of x, and the length of a row, in groups of four.
    x4: u32,
    x_row4: u32,
    // Positions of the first row in the bound parts of the rotations and the output, in groups of
    // four.
    rope4: u32,
    output4: u32,
    // Position of the first row's factor, and the distance from one row's factor to the next.
    factor_first: u32,
    factor_stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;
#ifdef NORM
// One factor for each row, and one weight for each column of the block.
@group(0) @binding(3) var<storage, read> factors: array<f32>;
@group(0) @binding(4) var<storage, read> weight: array<vec4<f32>>;
#endif
#ifdef ROPE
// [n, d]: the cosine and the sine of every pair of columns, one pair after another.
@group(0) @binding(5) var<storage, read> rotations: array<vec4<f32>>;
#endif

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let thread = (group.y * groups.x + group.x) * 64u + local.x;
    let width4 = params.heads * params.d4;
    let rows = thread / width4;
    if rows >= params.row_groups {
        return;
    }
    let head = (thread % width4) / params.d4;
    let column4 = thread % params.d4;
    // Column of the block.
    let wide4 = params.first_head * params.d4 + thread % width4;
#ifdef TRANSPOSED
    var block: array<vec4<f32>, 4>;
#endif
#repeat R 4
    {
        let row = rows * 4u + u32(R);
        if params.first_row + row < params.n {
            var value = x[params.x4 + row * params.x_row4 + wide4];
#ifdef NORM
            value *= factors[params.factor_first + row * params.factor_stride] * weight[wide4];
#endif
#ifdef ROPE
            let turn = rotations[params.rope4 + row * params.d4 + column4];
            value = vec4(
                value.x * turn.x - value.y * turn.y,
                value.x * turn.y + value.y * turn.x,
                value.z * turn.z - value.w * turn.w,
                value.z * turn.w + value.w * turn.z,
            );
#endif
#ifdef TRANSPOSED
            block[R] = value;
#else
            output[params.output4 + (head * params.n + params.first_row + row) * params.d4 + column4] = value;
#endif
        }
    }
#end
#ifdef TRANSPOSED
    let first = params.output4 + (head * params.d4 + column4) * 4u * params.n4 + params.first_row / 4u + rows;
#repeat C 4
    output[first + u32(C) * params.n4] = vec4(block[0][C], block[1][C], block[2][C], block[3][C]);
#end
#endif
}
