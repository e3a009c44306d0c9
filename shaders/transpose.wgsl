// y[c, r] = x[r, c]. Columns of y past the rows of x are zero. A thread transposes a block of 4 x
// 4.

struct Params {
    // Rows of x.
    rows: u32,
    // Columns of x and of y, in groups of four.
    x4: u32,
    y4: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y_out: array<vec4<f32>>;

fn row(r: u32, c4: u32) -> vec4<f32> {
    return select(vec4(0.0), x[min(r, params.rows - 1u) * params.x4 + c4], r < params.rows);
}

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.x4 || id.y >= params.y4 {
        return;
    }
    let block = transpose(mat4x4(
        row(id.y * 4u, id.x),
        row(id.y * 4u + 1u, id.x),
        row(id.y * 4u + 2u, id.x),
        row(id.y * 4u + 3u, id.x),
    ));
#repeat I 4
    y_out[(id.x * 4u + u32(I)) * params.y4 + id.y] = block[I];
#end
}
