//! Every barrier of every shader separates something: an access to a variable of workgroup memory
//! before it from one after it, of which one is a write, with no other barrier between.
//!
//! Microsoft's FXC, with which DirectX 12 compiles on machines without DXC, leaves out other
//! barriers. If two of them meet over a loop's back edge, FXC leaves out both, one because of the
//! other, and the kernel is wrong.

use std::collections::{BTreeMap, BTreeSet};

use ditscope::cli::shaders::parse;
use ditscope::gpu::shader::{permutations, resolve};
use naga::valid::{Capabilities, FunctionInfo, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Barrier, Block, Expression, Function, Handle, Module, Statement};

#[test]
fn every_barrier_separates_two_accesses() {
    let permutations = permutations().unwrap();
    let (mut wrong, mut barriers) = (Vec::new(), 0);
    for permutation in &permutations {
        let (module, info) = parse(permutation).unwrap();
        let walk = Walk::of(&module, &info);
        barriers += walk.barriers.len();
        if walk.redundant() > 0 {
            wrong.push(permutation.name());
        }
    }
    assert!(wrong.is_empty(), "barriers that separate nothing:\n{}", wrong.join("\n"));
    assert!(barriers > 100, "only {barriers} barriers were seen");
}

/// The kernel that was wrong had one barrier more, at the end of its loop over keys.
#[test]
fn a_barrier_too_many_in_a_shipped_shader_is_found() {
    let all = permutations().unwrap();
    let tiles = all.iter().filter(|permutation| permutation.shader == "attention_tile");
    for permutation in tiles {
        let source = resolve("attention_tile", &permutation.defines).unwrap().source;
        let last = source.rfind(", local, 8u);").expect("the last product of a turn") + ", local, 8u);".len();
        assert_eq!(redundant(&source), 0, "{}", permutation.name());
        let wrong = format!("{} workgroupBarrier();{}", &source[..last], &source[last..]);
        assert!(redundant(&wrong) > 0, "{}", permutation.name());
    }
}

#[test]
fn barriers_are_told_apart_by_what_lies_between_them() {
    let redundant_in = |body: &str| {
        redundant(&format!(
            "var<workgroup> a: array<f32, 64>;
            var<workgroup> b: array<f32, 64>;
            @group(0) @binding(0) var<storage, read_write> y: array<f32>;
            fn store(i: u32) {{ a[i] = 1.0; }}
            fn barrier() {{ workgroupBarrier(); }}
            fn load() -> f32 {{ return a[3]; }}
            @compute @workgroup_size(64)
            fn main(@builtin(local_invocation_index) i: u32) {{ {body} }}"
        ))
    };
    let bar = "workgroupBarrier();";
    let right = [
        format!("store(i); {bar} y[i] = a[3];"),
        "y[i] = load(); barrier(); store(i);".to_owned(),
        format!("for (var n = 0u; n < 4u; n++) {{ store(i); {bar} y[i] = a[n]; {bar} }}"),
        format!("for (var n = 0u; n < 4u; n++) {{ {bar} store(i); {bar} y[i] = a[n]; }}"),
        format!("store(i); {bar} if i < 4u {{ y[i] = a[3]; }} {bar} store(i);"),
        format!("store(i); {bar} for (var n = 0u; n < i; n++) {{ y[i] += a[n]; }} {bar} store(i);"),
        "store(i); y[i] = workgroupUniformLoad(&a)[2]; store(i);".to_owned(),
        format!("store(i); switch i {{ case 1u: {{ y[i] = 3.0; }} default: {{ y[i] = 2.0; }} }} {bar} y[i] = a[3];"),
    ];
    for body in right {
        assert_eq!(redundant_in(&body), 0, "{body}");
    }
    let wrong = [
        bar.to_owned(),
        format!("store(i); {bar} {bar} y[i] = a[3];"),
        format!("store(i); {bar} y[i] = 2.0; barrier(); y[i] = a[3];"),
        // At the start, at the end, and between different variables.
        format!("{bar} store(i); {bar} y[i] = a[3];"),
        format!("store(i); {bar} y[i] = a[3]; {bar}"),
        format!("store(i); {bar} b[i] = 1.0; {bar} y[i] = a[3] + b[3];"),
        format!("y[i] = a[3]; {bar} y[i] = a[4];"),
        // Over the back edge, at the end of a loop, and around an inner loop.
        format!("for (var n = 0u; n < 4u; n++) {{ {bar} store(i); {bar} y[i] = a[n]; {bar} }}"),
        format!("for (var n = 0u; n < 4u; n++) {{ store(i); {bar} y[i] = a[n]; {bar} }} {bar} store(i);"),
        format!(
            "for (var n = 0u; n < 4u; n++) {{
                for (var m = 0u; m < 4u; m++) {{ {bar} a[m] = 1.0; {bar} y[i] = a[n]; }}
                {bar}
            }}"
        ),
    ];
    for body in wrong {
        assert!(redundant_in(&body) > 0, "{body}");
    }
}

/// The barriers of a shader that separate nothing.
fn redundant(source: &str) -> usize {
    let module = naga::front::wgsl::parse_str(source).unwrap_or_else(|error| panic!("{error}\n{source}"));
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).unwrap();
    Walk::of(&module, &info).redundant()
}

/// Reads and writes of workgroup variables: a bit for each variable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Accesses {
    reads: u64,
    writes: u64,
}

impl Accesses {
    fn add(&mut self, other: Self) {
        self.reads |= other.reads;
        self.writes |= other.writes;
    }

    fn conflict(self, after: Self) -> bool {
        self.writes & (after.reads | after.writes) != 0 || self.reads & after.writes != 0
    }
}

/// A barrier: the calls that lead to it, and its number in the function.
type Site = Vec<usize>;

/// The accesses before and after a barrier, up to the next barriers.
#[derive(Debug, Default)]
struct Sides {
    before: Accesses,
    after: Accesses,
}

/// What may have happened on the paths to a point. `None` for unreachable code.
type State = Option<Paths>;

#[derive(Clone, Debug, Default)]
struct Paths {
    /// The last barriers.
    last: BTreeSet<Site>,
    /// Accesses since then.
    since: Accesses,
}

fn join(a: State, b: State) -> State {
    match (a, b) {
        (Some(mut a), Some(b)) => {
            a.last.extend(b.last);
            a.since.add(b.since);
            Some(a)
        }
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

/// A walk along all paths from the entry point, through calls.
struct Walk<'a> {
    module: &'a Module,
    info: &'a ModuleInfo,
    barriers: BTreeMap<Site, Sides>,
    /// The statements on the way to the current one, by their addresses.
    calls: Site,
}

/// A function with what the validator knows about its expressions.
#[derive(Clone, Copy)]
struct Body<'a> {
    function: &'a Function,
    info: &'a FunctionInfo,
}

impl<'a> Walk<'a> {
    fn of(module: &'a Module, info: &'a ModuleInfo) -> Self {
        let mut walk = Self { module, info, barriers: BTreeMap::new(), calls: Site::new() };
        for (index, entry) in module.entry_points.iter().enumerate() {
            let body = Body { function: &entry.function, info: info.get_entry_point(index) };
            walk.block(body, &entry.function.body, Some(Paths::default()), &mut Exits::default());
        }
        walk
    }

    fn redundant(&self) -> usize {
        self.barriers.values().filter(|sides| !sides.before.conflict(sides.after)).count()
    }

    fn block(&mut self, body: Body<'a>, block: &Block, state: State, exits: &mut Exits) -> State {
        block.iter().fold(state, |state, statement| self.statement(body, statement, state, exits))
    }

    /// The `part`-th barrier of a statement.
    fn barrier(&mut self, statement: &Statement, part: usize, state: State) -> State {
        let paths = state?;
        let mut site = self.calls.clone();
        site.extend([std::ptr::from_ref(statement).addr(), part]);
        self.barriers.entry(site.clone()).or_default().before.add(paths.since);
        Some(Paths { last: [site].into(), since: Accesses::default() })
    }

    fn access(&mut self, accesses: Accesses, state: State) -> State {
        let mut paths = state?;
        paths.since.add(accesses);
        for site in &paths.last {
            self.barriers.entry(site.clone()).or_default().after.add(accesses);
        }
        Some(paths)
    }

    fn statement(&mut self, body: Body<'a>, statement: &Statement, state: State, exits: &mut Exits) -> State {
        match statement {
            Statement::ControlBarrier(barrier) if barrier.contains(Barrier::WORK_GROUP) => {
                self.barrier(statement, 0, state)
            }
            Statement::WorkGroupUniformLoad { pointer, .. } => {
                let read = Accesses { reads: self.variable(body, *pointer), writes: 0 };
                let state = self.barrier(statement, 0, state);
                let state = self.access(read, state);
                self.barrier(statement, 1, state)
            }
            Statement::Block(block) => self.block(body, block, state, exits),
            Statement::If { accept, reject, .. } => {
                let accepted = self.block(body, accept, state.clone(), exits);
                let rejected = self.block(body, reject, state, exits);
                join(accepted, rejected)
            }
            Statement::Switch { cases, .. } => {
                let mut inner = Exits::default();
                let ends = cases.iter().map(|case| self.block(body, &case.body, state.clone(), &mut inner));
                let end = ends.fold(None, join);
                exits.continues = join(exits.continues.take(), inner.continues);
                exits.returns = join(exits.returns.take(), inner.returns);
                join(end, inner.breaks)
            }
            Statement::Loop { body: turn, continuing, break_if } => {
                let (mut start, mut after) = (state, None);
                // Later turns start where the turn before ended.
                for _ in 0..3 {
                    let mut inner = Exits::default();
                    let end = self.block(body, turn, start.clone(), &mut inner);
                    let end = self.block(body, continuing, join(end, inner.continues), &mut Exits::default());
                    exits.returns = join(exits.returns.take(), inner.returns);
                    after = join(after, join(inner.breaks, end.clone().filter(|_| break_if.is_some())));
                    start = join(start, end);
                }
                after
            }
            Statement::Call { function, .. } => {
                let callee = Body { function: &self.module.functions[*function], info: &self.info[*function] };
                let mut inner = Exits::default();
                self.calls.push(std::ptr::from_ref(statement).addr());
                let end = self.block(callee, &callee.function.body, state, &mut inner);
                self.calls.pop();
                join(end, inner.returns)
            }
            Statement::Break => {
                exits.breaks = join(exits.breaks.take(), state);
                None
            }
            Statement::Continue => {
                exits.continues = join(exits.continues.take(), state);
                None
            }
            Statement::Return { .. } => {
                exits.returns = join(exits.returns.take(), state);
                None
            }
            Statement::Kill => None,
            other => {
                let accesses = self.accesses(body, other);
                if accesses == Accesses::default() { state } else { self.access(accesses, state) }
            }
        }
    }

    /// The accesses of a statement without blocks.
    fn accesses(&self, body: Body, statement: &Statement) -> Accesses {
        match *statement {
            Statement::Emit(ref range) => {
                let loaded = range.clone().map(|expression| match body.function.expressions[expression] {
                    Expression::Load { pointer } => self.variable(body, pointer),
                    _ => 0,
                });
                Accesses { reads: loaded.fold(0, |all, variable| all | variable), writes: 0 }
            }
            Statement::Store { pointer, .. } => Accesses { reads: 0, writes: self.variable(body, pointer) },
            Statement::Atomic { pointer, .. } => {
                let variable = self.variable(body, pointer);
                Accesses { reads: variable, writes: variable }
            }
            _ => Accesses::default(),
        }
    }

    /// The bit of the workgroup variable that a pointer points into, 0 for other memory. naga lets
    /// no pointer to workgroup memory be an argument.
    fn variable(&self, body: Body, pointer: Handle<Expression>) -> u64 {
        let space = body.info[pointer].ty.inner_with(&self.module.types).pointer_space();
        if space != Some(AddressSpace::WorkGroup) {
            return 0;
        }
        match body.function.expressions[pointer] {
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.variable(body, base),
            Expression::GlobalVariable(variable) => 1 << (variable.index() % 64),
            _ => u64::MAX,
        }
    }
}
