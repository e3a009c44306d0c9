// A small matrix product of a [16 TM, 32] and a [32, 32] tile in workgroup memory. 8 x 16 threads
// compute TM x 4 results each.

const ROWS = 16u * u32(TM);
// Groups of four in a row of the left tile. One is padding against bank conflicts.
const STRIDE = 9u;

var<workgroup> left: array<vec4<f32>, ROWS * STRIDE>;
var<workgroup> right: array<vec4<f32>, 32 * 8>;

// sums += (rows of `left`) (columns of `right`) over `depth4` groups of four of the inner extent.
fn product(sums: ptr<function, array<vec4<f32>, TM>>, local: vec2<u32>, depth4: u32) {
    for (var d = 0u; d < depth4; d++) {
        let b0 = right[(d * 4u + 0u) * 8u + local.x];
        let b1 = right[(d * 4u + 1u) * 8u + local.x];
        let b2 = right[(d * 4u + 2u) * 8u + local.x];
        let b3 = right[(d * 4u + 3u) * 8u + local.x];
#repeat ROW TM
        {
            let a = left[(local.y * u32(TM) + u32(ROW)) * STRIDE + d];
            (*sums)[ROW] = fma(a.xxxx, b0, fma(a.yyyy, b1, fma(a.zzzz, b2, fma(a.wwww, b3, (*sums)[ROW]))));
        }
#end
    }
}
