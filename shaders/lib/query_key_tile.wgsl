// q k^T by tile products, which must be imported before, as must q, k and their indices.

// scores += (query rows from `first` on) (a tile of 32 keys, of which a thread has the group `key4`), by chunks of 32 coordinates:
// `left` holds one of q, `right` one of k.
fn query_key(scores: ptr<function, array<vec4<f32>, TM>>, local: vec2<u32>, head: u32, first: u32, key4: u32) {
    let k_column = k_head(head) + min(key4, params.n_k4 - 1u);
    for (var chunk4 = 0u; chunk4 < D4; chunk4 += 8u) {
        let depth4 = min(8u, D4 - chunk4);
        workgroupBarrier();
        // A row of q by 8 threads, so 128 threads fill 16 rows at a time; of k likewise 16 coordinates.
        if local.x < depth4 {
#repeat ROW TM
            left[(u32(ROW) * 16u + local.y) * STRIDE + local.x] =
                q[q_row(head, first + u32(ROW) * 16u + local.y) + chunk4 + local.x];
#end
        }
        for (var row = local.y; row < depth4 * 4u; row += 16u) {
            right[row * 8u + local.x] = k[k_column + (chunk4 * 4u + row) * params.n_k4];
        }
        workgroupBarrier();
        product(scores, local, depth4);
    }
}
