// Part of a function: adds q k^T to `scores`, an array<vec4<f32>, TM>, by chunks of 32 coordinates: `left` holds one of the query rows
// from `first` on, `right` one of the keys, of which a thread loads the group whose coordinate 0 is at `k_column`. (As a function of its
// own it takes half as long again to compile on a CPU.)
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
            product(&scores, local, depth4);
        }
