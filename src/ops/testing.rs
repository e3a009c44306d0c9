//! Shared by the kernel tests: devices, random values, and the measure of error.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::gpu::{Gpu, GpuOptions, Stream, StreamOptions, Tensor, Tier};

/// Devices that one test at a time works with.
struct Rig {
    turn: Mutex<()>,
    full: OnceLock<Gpu>,
    base: OnceLock<Gpu>,
}

/// All kernel tests share two rigs: a driver that has no GPU compiles and runs what is given to a
/// device on one thread, so a single device would leave cores idle, and one a test would take
/// minutes.
static RIGS: [Rig; 2] = [const { Rig { turn: Mutex::new(()), full: OnceLock::new(), base: OnceLock::new() } }; 2];

/// A rig that is free, or the next one in turn once it is.
fn rig() -> (&'static Rig, MutexGuard<'static, ()>) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let free = RIGS.iter().find_map(|rig| Some((rig, rig.turn.try_lock().ok()?)));
    free.unwrap_or_else(|| {
        let rig = &RIGS[NEXT.fetch_add(1, Ordering::Relaxed) % RIGS.len()];
        (rig, rig.turn.lock().unwrap_or_else(PoisonError::into_inner))
    })
}

/// A device for a kernel test, which holds it as long as the guard: poisoned memory, checked
/// shaders.
pub fn gpu() -> (Gpu, MutexGuard<'static, ()>) {
    let (rig, turn) = rig();
    (opened(&rig.full, Tier::Full), turn)
}

/// The same with WebGPU's default limits and no optional feature.
pub fn base_gpu() -> (Gpu, MutexGuard<'static, ()>) {
    let (rig, turn) = rig();
    (opened(&rig.base, Tier::Base), turn)
}

/// The same as [`gpu`] with all rigs held, for tests that measure time: no other kernel test runs
/// beside them.
pub fn alone() -> (Gpu, [MutexGuard<'static, ()>; 2]) {
    let turns = RIGS.each_ref().map(|rig| rig.turn.lock().unwrap_or_else(PoisonError::into_inner));
    (opened(&RIGS[0].full, Tier::Full), turns)
}

/// A device of its own whose bindings hold at most so many bytes.
pub fn narrow_gpu(max_binding: impl Into<Option<u64>>) -> Gpu {
    open(&GpuOptions { max_binding: max_binding.into(), ..Default::default() })
}

fn opened(device: &OnceLock<Gpu>, tier: Tier) -> Gpu {
    device.get_or_init(|| open(&GpuOptions { tier, ..Default::default() })).clone()
}

/// Poisoned memory and checked shaders: the same kernels for all, so that a driver compiles each
/// once.
fn open(options: &GpuOptions) -> Gpu {
    let options = GpuOptions { poison: true, checked_shaders: true, ..options.clone() };
    Gpu::open(&options).expect("tests need a Vulkan, Metal or DX12 adapter")
}

/// A stream on a device.
pub fn stream(gpu: &Gpu) -> Stream {
    Stream::new(gpu, StreamOptions::default())
}

/// Uniform random values in [-1, 1). The same seed gives the same values (splitmix64).
pub fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..count).map(|_| (next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// A random f32 tensor and its values.
pub fn random_tensor(cx: &mut Stream, seed: u64, shape: &[usize]) -> (Tensor, Vec<f32>) {
    let values = random(seed, shape.iter().product());
    (cx.upload("random", &values, shape).expect("upload"), values)
}

/// Asserts ||got - want|| / ||want|| <= limit in f64. NaN fails.
#[track_caller]
pub fn assert_close(got: &[f32], want: &[f32], limit: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(want).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let size = norm(&mut want.iter().map(|v| f64::from(*v)));
    let error = difference / size.max(1e-30);
    assert!(error <= limit, "{what}: relative error {error:.3e} > {limit:.1e}");
}
