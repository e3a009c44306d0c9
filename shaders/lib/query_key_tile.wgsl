// Part of a function: adds q k^T to `scores`, an array<vec4<f32>, TM>, in chunks of 32 coordinates.
// `left` holds a chunk of the query rows from `first` on, and `right` a chunk of the keys. A thread
// loads the group of keys whose coordinate 0 is at `k_column`. The text is imported into a
// function, because a function of its own takes 1.5 times as long to compile on a CPU.
        for (var chunk4 = 0u; chunk4 < D4; chunk4 += 8u) {
            let depth4 = min(8u, D4 - chunk4);
            workgroupBarrier();
            // 8 threads load a row, so 128 threads load 16 rows of q, or 16 coordinates of k, at a
            // time.
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
