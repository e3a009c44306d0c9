//! Shared by the kernel tests: devices, random values, and the measure of error.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::gpu::{Gpu, GpuOptions, Stream, StreamOptions, Tensor, Tier};

/// Devices for one test at a time.
struct Rig {
    turn: Mutex<()>,
    full: OnceLock<Gpu>,
    base: OnceLock<Gpu>,
}

/// The rigs of all kernel tests. A CPU driver compiles and runs the work of a device on one thread,
/// so a single device would leave cores idle. A device for each test would compile the same kernels
/// again and again.
static RIGS: [Rig; 2] = [const { Rig { turn: Mutex::new(()), full: OnceLock::new(), base: OnceLock::new() } }; 2];

/// A free rig. If none is free, waits for the next one in turn.
fn rig() -> (&'static Rig, MutexGuard<'static, ()>) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let free = RIGS.iter().find_map(|rig| Some((rig, rig.turn.try_lock().ok()?)));
    free.unwrap_or_else(|| {
        let rig = &RIGS[NEXT.fetch_add(1, Ordering::Relaxed) % RIGS.len()];
        (rig, rig.turn.lock().unwrap_or_else(PoisonError::into_inner))
    })
}

/// A device of the full tier, with poisoned memory and checked shaders. No other test gets the
/// device as long as the guard lives. Its adapter may lack every optional feature.
pub fn gpu() -> (Gpu, MutexGuard<'static, ()>) {
    let (rig, turn) = rig();
    (opened(&rig.full, Tier::Full), turn)
}

/// As [`gpu`], with the base tier.
pub fn base_gpu() -> (Gpu, MutexGuard<'static, ()>) {
    let (rig, turn) = rig();
    (opened(&rig.base, Tier::Base), turn)
}

/// As [`gpu`], with the guards of all rigs. Tests that measure time use it, so that no other kernel
/// test runs at the same time.
pub fn alone() -> (Gpu, [MutexGuard<'static, ()>; 2]) {
    let turns = RIGS.each_ref().map(|rig| rig.turn.lock().unwrap_or_else(PoisonError::into_inner));
    (opened(&RIGS[0].full, Tier::Full), turns)
}

/// A new device whose bindings have at most so many bytes.
pub fn narrow_gpu(max_binding: impl Into<Option<u64>>) -> Gpu {
    open(&GpuOptions::checked().with_max_binding(max_binding))
}

fn opened(device: &OnceLock<Gpu>, tier: Tier) -> Gpu {
    device.get_or_init(|| open(&GpuOptions::checked().with_tier(tier))).clone()
}

/// Opens a device. Options from [`GpuOptions::checked`] give all devices the same kernels, so that
/// a driver with a cache on disk (Mesa) compiles each kernel once.
fn open(options: &GpuOptions) -> Gpu {
    Gpu::open(options).expect("tests need a Vulkan, Metal or DX12 adapter")
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
