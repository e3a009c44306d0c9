// Index of this invocation in a grid that is folded over two dimensions (see `fold_groups` on the
// host). Workgroups have 64 invocations.
fn linear_index(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return (group.y * groups.x + group.x) * 64u + local;
}
