//! No shader has two barriers with no access to workgroup memory between them.
//!
//! Microsoft's FXC, with which DirectX 12 compiles on machines without DXC, leaves out such
//! barriers. If they meet over a loop's back edge, FXC leaves out both, one because of the other,
//! and the kernel is wrong.

use ditscope::cli::shaders::parse;
use ditscope::gpu::shader::{permutations, resolve};
use naga::valid::{Capabilities, FunctionInfo, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Barrier, Block, Expression, Function, Handle, Module, Statement};

#[test]
fn something_happens_between_two_barriers() {
    let permutations = permutations().unwrap();
    let (mut wrong, mut barriers) = (Vec::new(), 0);
    for permutation in &permutations {
        let (module, info) = parse(permutation).unwrap();
        let walk = Walk::of(&module, &info);
        barriers += walk.barriers;
        if walk.redundant > 0 {
            wrong.push(permutation.name());
        }
    }
    assert!(wrong.is_empty(), "barriers with nothing between them:\n{}", wrong.join("\n"));
    assert!(barriers > 100, "only {barriers} barriers were seen");
}

/// The kernels that were wrong had one barrier more at the start of this loop.
#[test]
fn a_barrier_too_many_in_a_shipped_shader_is_found() {
    let all = permutations().unwrap();
    for shader in ["attention_tile", "received_tile"] {
        for permutation in all.iter().filter(|permutation| permutation.shader == shader) {
            let source = resolve(shader, &permutation.defines).unwrap().source;
            let place = "let depth4 = min(8u, D4 - chunk4);";
            assert!(source.contains(place));
            assert_eq!(redundant(&source), 0, "{}", permutation.name());
            let wrong = source.replace(place, &format!("{place}\nworkgroupBarrier();"));
            assert!(redundant(&wrong) > 0, "{}", permutation.name());
        }
    }
}

#[test]
fn barriers_are_told_apart_by_what_lies_between_them() {
    let redundant_in = |body: &str| {
        redundant(&format!(
            "var<workgroup> shared_sums: array<f32, 64>;
            @group(0) @binding(0) var<storage, read_write> y: array<f32>;
            fn store(i: u32) {{ shared_sums[i] = 1.0; }}
            fn barrier() {{ workgroupBarrier(); }}
            fn load(p: ptr<workgroup, array<f32, 64>>) -> f32 {{ return (*p)[3]; }}
            @compute @workgroup_size(64)
            fn main(@builtin(local_invocation_index) i: u32) {{ {body} }}"
        ))
    };
    let b = "workgroupBarrier();";
    let right = [
        format!("{b}"),
        format!("{b} store(i); {b} y[i] = shared_sums[i];"),
        format!("{b} y[i] = load(&shared_sums); barrier();"),
        format!("for (var n = 0u; n < 4u; n++) {{ store(i); {b} y[i] = shared_sums[n]; {b} }}"),
        format!("for (var n = 0u; n < 4u; n++) {{ {b} store(i); {b} y[i] = shared_sums[n]; }}"),
        format!("{b} if i < 4u {{ store(i); }} {b}"),
        format!("{b} for (var n = 0u; n < i; n++) {{ y[i] += shared_sums[n]; }} {b}"),
        format!("{b} store(i); y[i] = workgroupUniformLoad(&shared_sums)[2]; store(i); {b}"),
        format!("switch 3u {{ case 1u: {{ {b} store(i); }} default: {{ {b} store(i); }} }} {b}"),
    ];
    for body in right {
        assert_eq!(redundant_in(&body), 0, "{body}");
    }
    let wrong = [
        format!("{b} {b}"),
        format!("{b} y[i] = 2.0; barrier();"),
        format!("{b} if i < 4u {{ y[i] = 2.0; }} {b}"),
        format!("store(i); {b} y[i] = workgroupUniformLoad(&shared_sums)[2];"),
        // Over the back edge, at the end of a loop, and around an inner loop.
        format!("for (var n = 0u; n < 4u; n++) {{ {b} store(i); {b} }}"),
        format!("for (var n = 0u; n < 4u; n++) {{ store(i); {b} }} y[i] = 1.0; {b}"),
        format!(
            "for (var n = 0u; n < 4u; n++) {{ {b} store(i); if n > i {{ continue; }} {b} y[i] = shared_sums[n]; {b} }}"
        ),
        format!(
            "for (var n = 0u; n < 4u; n++) {{
                for (var m = 0u; m < 4u; m++) {{ {b} store(i); }}
                {b} y[i] = shared_sums[n]; {b}
            }}"
        ),
    ];
    for body in wrong {
        assert!(redundant_in(&body) > 0, "{body}");
    }
}

/// The barriers of a shader that follow another one without an access between them.
fn redundant(source: &str) -> usize {
    let module = naga::front::wgsl::parse_str(source).unwrap_or_else(|error| panic!("{error}\n{source}"));
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).unwrap();
    Walk::of(&module, &info).redundant
}

/// Whether a path may have had nothing since its last barrier. `None` for unreachable code.
type State = Option<bool>;

fn join(a: State, b: State) -> State {
    match (a, b) {
        (Some(a), Some(b)) => Some(a || b),
        (a, b) => a.or(b),
    }
}

/// Where the paths of a block go that do not reach its end.
#[derive(Default)]
struct Exits {
    breaks: State,
    continues: State,
    returns: State,
}

/// A walk along all paths from the entry point, through calls. Loops are taken to run at least
/// once: a compiler that looks for accesses between two barriers sees those of a loop's body.
struct Walk<'a> {
    module: &'a Module,
    info: &'a ModuleInfo,
    barriers: usize,
    redundant: usize,
}

/// A function with what the validator knows about its expressions.
#[derive(Clone, Copy)]
struct Body<'a> {
    function: &'a Function,
    info: &'a FunctionInfo,
}

impl<'a> Walk<'a> {
    fn of(module: &'a Module, info: &'a ModuleInfo) -> Self {
        let mut walk = Self { module, info, barriers: 0, redundant: 0 };
        for (index, entry) in module.entry_points.iter().enumerate() {
            let body = Body { function: &entry.function, info: info.get_entry_point(index) };
            walk.block(body, &entry.function.body, Some(false), &mut Exits::default());
        }
        walk
    }

    fn callee(&self, function: Handle<Function>) -> Body<'a> {
        Body { function: &self.module.functions[function], info: &self.info[function] }
    }

    fn block(&mut self, body: Body<'a>, block: &Block, state: State, exits: &mut Exits) -> State {
        block.iter().fold(state, |state, statement| self.statement(body, statement, state, exits))
    }

    fn barrier(&mut self, state: State) -> State {
        self.barriers += 1;
        self.redundant += usize::from(state == Some(true));
        state.map(|_| true)
    }

    fn statement(&mut self, body: Body<'a>, statement: &Statement, state: State, exits: &mut Exits) -> State {
        match statement {
            Statement::ControlBarrier(barrier) if barrier.contains(Barrier::WORK_GROUP) => self.barrier(state),
            Statement::WorkGroupUniformLoad { .. } => {
                let loaded = self.barrier(state).map(|_| false);
                self.barrier(loaded)
            }
            Statement::Block(block) => self.block(body, block, state, exits),
            Statement::If { accept, reject, .. } => self.branches(body, &[accept, reject], state, exits),
            Statement::Switch { cases, .. } => {
                let mut inner = Exits::default();
                let blocks: Vec<&Block> = cases.iter().map(|case| &case.body).collect();
                let end = self.branches(body, &blocks, state, &mut inner);
                exits.continues = join(exits.continues, inner.continues);
                exits.returns = join(exits.returns, inner.returns);
                join(end, inner.breaks)
            }
            Statement::Loop { body: turn, continuing, break_if } => {
                let mut start = state;
                let mut after = None;
                // The second turn starts where the first one ended.
                for _ in 0..2 {
                    let mut inner = Exits::default();
                    let end = self.block(body, turn, start, &mut inner);
                    start = self.block(body, continuing, join(end, inner.continues), &mut inner);
                    exits.returns = join(exits.returns, inner.returns);
                    after = join(inner.breaks, start.filter(|_| break_if.is_some()));
                }
                after
            }
            Statement::Call { function, .. } => {
                let mut inner = Exits::default();
                let callee = self.callee(*function);
                let end = self.block(callee, &callee.function.body, state, &mut inner);
                join(end, inner.returns)
            }
            Statement::Break => {
                exits.breaks = join(exits.breaks, state);
                None
            }
            Statement::Continue => {
                exits.continues = join(exits.continues, state);
                None
            }
            Statement::Return { .. } => {
                exits.returns = join(exits.returns, state);
                None
            }
            Statement::Kill => None,
            other => state.map(|clean| clean && !self.accesses(body, other)),
        }
    }

    /// One of several blocks. If no block has a barrier, an access in one of them counts for all,
    /// because it is an access that a compiler sees.
    fn branches(&mut self, body: Body<'a>, blocks: &[&Block], state: State, exits: &mut Exits) -> State {
        let before = self.barriers;
        let ends: Vec<State> = blocks.iter().map(|block| self.block(body, block, state, exits)).collect();
        let end = ends.iter().copied().fold(None, join);
        let accessed = self.barriers == before && ends.contains(&Some(false));
        end.map(|clean| clean && !accessed)
    }

    /// Whether a statement without blocks reads or writes workgroup memory.
    fn accesses(&self, body: Body, statement: &Statement) -> bool {
        let shared = |pointer: Handle<Expression>| {
            let space = body.info[pointer].ty.inner_with(&self.module.types).pointer_space();
            space == Some(AddressSpace::WorkGroup)
        };
        match *statement {
            Statement::Emit(ref range) => range.clone().any(|expression| {
                matches!(body.function.expressions[expression], Expression::Load { pointer } if shared(pointer))
            }),
            Statement::Store { pointer, .. } | Statement::Atomic { pointer, .. } => shared(pointer),
            _ => false,
        }
    }
}
