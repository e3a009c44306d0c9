// Attention received, for GPUs. A workgroup of 8 x 16 threads computes the sums of 32 keys of a
// head, with 16 TM query rows a turn, by the small matrix products of attention_tile. WebGPU's
// default limits are enough.
#import received
#import tile_product

@compute @workgroup_size(8, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let local = id.xy;
    let head = group.y;
    let key4 = params.first_key4 + group.x * 8u + local.x;
    let k_column = k_head(head) + min(key4, params.n_k4 - 1u);
    var sums = vec4(0.0);
    for (var query = params.first_query; query < params.end_query; query += ROWS) {
        var scores = array<vec4<f32>, TM>();
        let first = query;
#import query_key_tile
        var turn = vec4(0.0);
#repeat ROW TM
        turn += weights4(scores[ROW], row_log2(head, query + local.y * u32(TM) + u32(ROW)));
#end
        sums += turn;
    }
    // 16 threads hold the shares of a key's sum.
    workgroupBarrier();
    left[local.y * STRIDE + local.x] = sums;
    workgroupBarrier();
    if local.y == 0u && key4 < params.end_key4 {
        var sum = vec4(0.0);
        for (var i = 0u; i < 16u; i++) {
            sum += left[i * STRIDE + local.x];
        }
        parts[params.parts4 + head * params.n_k4 + key4 - params.first_key4] = sum;
    }
}
