//! The choice among the variants of a kernel: measured on the adapter, once for a class of shapes,
//! or by a fixed rule.
//!
//! Measuring costs a job little. Small calls follow the rule, and only variants that may win on
//! this kind of device are measured (`ditscope bench` measures nearly all).

use std::time::Instant;

use crate::gpu::{Gpu, GpuError, Result, Stream};

use super::selftest;

/// Calls of fewer floating-point operations follow the rule: their latency is longer than any gain.
const WORTH_MEASURING: f64 = 1e7;
/// Another variant is chosen only if it is faster than the rule's by this factor. Smaller
/// differences are noise.
const CLEARLY: f64 = 1.05;
/// Seconds of measuring a variant, after its first run.
const SECONDS: f64 = 0.01;
/// Measurements of a variant. The best one counts.
const ROUNDS: usize = 3;

/// A variant with the name that is remembered.
pub(super) trait Named: Copy + PartialEq {
    fn name(self) -> String;
}

/// A test of a variant on the device, see [`selftest`].
pub(super) type Test<'a, V> = Box<dyn Fn(&mut Stream, V) -> Result<selftest::Error> + 'a>;

/// A choice to make.
pub(super) struct Choice<'a, V> {
    /// Kernel family and [`extent_class`]es.
    pub class: String,
    /// What a test of a variant holds for: the kernel's permutation without the variant.
    pub kernel: String,
    /// Tests a variant, before it is first used on the adapter.
    pub test: Test<'a, V>,
    /// Every variant that the device can run.
    pub available: &'a [V],
    /// The variants worth measuring. The fixed rule is the first one.
    pub candidates: &'a [V],
    /// Floating-point operations of the call.
    pub flops: f64,
}

/// The variants of a kernel that are worth measuring on this kind of device, the likeliest first.
///
/// Workgroup memory is slow on CPUs, so a CPU with subgroups gets the subgroup variants. GPUs get
/// the tiles. A GPU with subgroups of at most 16 lanes also gets `rival`, a subgroup variant: its
/// workgroups of 8 lanes leave at most half of such a subgroup idle.
pub(super) fn candidates<V: Copy>(gpu: &Gpu, subgroups: [V; 2], tiles: [V; 2], rival: V) -> Vec<V> {
    match gpu.caps().subgroup_min {
        Some(8..) if gpu.caps().cpu => subgroups.to_vec(),
        Some(8..=16) => vec![tiles[0], tiles[1], rival],
        _ => tiles[..if gpu.caps().cpu { 1 } else { 2 }].to_vec(),
    }
}

/// The class of an extent. Extents up to 64 have a class each, because their remainders leave lanes
/// idle. Larger ones share the class of the next power of two.
pub(super) fn extent_class(extent: usize) -> usize {
    if extent <= 64 { extent } else { extent.next_power_of_two() }
}

impl<V: Named> Choice<'_, V> {
    /// The variant to use. `run` does the work once with a given variant, without lasting effects.
    /// Variants that are wrong on this adapter are not used.
    ///
    /// # Errors
    /// The errors of `run`, or no variant is right.
    pub(super) fn decide(&self, cx: &mut Stream, run: impl Fn(&mut Stream, V) -> Result<()>) -> Result<V> {
        let gpu = cx.gpu().clone();
        let rule = self.first_passing(cx)?;
        if !gpu.choices().measured() || self.flops < WORTH_MEASURING || self.candidates.len() == 1 {
            return Ok(rule);
        }
        if let Some(chosen) = self.remembered(&gpu)
            && self.passes(cx, chosen)?
        {
            return Ok(chosen);
        }
        let mut measured = Vec::with_capacity(self.candidates.len());
        for &variant in self.candidates {
            if self.passes(cx, variant)? {
                measured.push((variant, seconds(cx, &mut |cx| run(cx, variant))?));
            }
        }
        Ok(self.settle(&gpu, rule, &measured))
    }

    /// The first variant that is right on this adapter: the fixed rule's, else another candidate,
    /// else any other.
    ///
    /// # Errors
    /// No variant is right, or an error of the GPU.
    pub(super) fn first_passing(&self, cx: &mut Stream) -> Result<V> {
        let others = self.available.iter().filter(|variant| !self.candidates.contains(variant));
        for &variant in self.candidates.iter().chain(others) {
            if self.passes(cx, variant)? {
                return Ok(variant);
            }
        }
        Err(GpuError::NoVariant(self.kernel.clone()))
    }

    /// Whether a variant is right on this adapter. It is tested before its first use, if the answer
    /// can be remembered.
    ///
    /// # Errors
    /// The device is lost, or the job was cancelled.
    pub(super) fn passes(&self, cx: &mut Stream, variant: V) -> Result<bool> {
        let gpu = cx.gpu().clone();
        let what = format!("{} by {}", self.kernel, variant.name());
        gpu.choices().judge(&what, || {
            // A pause must not fall between the marker and its removal.
            let error = cx.in_one_go(|cx| (self.test)(cx, variant))?;
            Ok(error.fault())
        })
    }

    /// The variant to use after measurements in seconds. An earlier choice holds. Otherwise the
    /// fastest variant is chosen if the choice can be remembered, and the rule's variant if not. A
    /// single candidate is always chosen.
    pub(super) fn settle(&self, gpu: &Gpu, rule: V, measured: &[(V, f64)]) -> V {
        if self.candidates.len() == 1 {
            return rule;
        }
        // A variant that is remembered but was not measured has become wrong.
        if let Some(chosen) = self.remembered(gpu).filter(|chosen| measured.iter().any(|(v, _)| v == chosen)) {
            return chosen;
        }
        let handicapped = |&(variant, seconds): &(V, f64)| if variant == rule { seconds } else { seconds * CLEARLY };
        let fastest =
            measured.iter().min_by(|a, b| handicapped(a).total_cmp(&handicapped(b))).map_or(rule, |best| best.0);
        // Small calls follow the rule, so nothing is remembered for them.
        let worth = gpu.choices().measured() && self.flops >= WORTH_MEASURING;
        let held = worth.then(|| gpu.choices().remember(&self.class, &fastest.name())).flatten();
        held.and_then(|name| self.by_name(&name)).unwrap_or(rule)
    }

    fn remembered(&self, gpu: &Gpu) -> Option<V> {
        self.by_name(&gpu.choices().get(&self.class)?)
    }

    fn by_name(&self, name: &str) -> Option<V> {
        self.available.iter().copied().find(|variant| variant.name() == name)
    }
}

/// Seconds of one call: the best of a few rounds. A round has many calls if they are short, so that
/// submitting and waiting weigh little.
///
/// # Errors
/// The errors of `run` and of the device.
pub(super) fn seconds(cx: &mut Stream, run: &mut dyn FnMut(&mut Stream) -> Result<()>) -> Result<f64> {
    // The first run compiles the kernel, and is not measured.
    run(cx)?;
    cx.finish()?;
    let mut timed = |cx: &mut Stream, calls: usize| -> Result<f64> {
        let (start, processor) = (Instant::now(), processor_seconds(cx.gpu()));
        for _ in 0..calls {
            run(cx)?;
        }
        cx.finish()?;
        let worked = processor.and_then(|before| Some(processor_seconds(cx.gpu())? - before));
        // The system adds up a thread's time only when the thread stops, which may come after a
        // short call.
        let worked = worked.filter(|seconds| *seconds > 0.0);
        // On a CPU device the process's own time counts, spread over the processors, so that other
        // programs do not disturb the measurement.
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let seconds = worked.map_or(start.elapsed().as_secs_f64(), |worked| worked / processors);
        Ok(seconds.max(1e-9) / calls as f64)
    };
    // A pause must not fall into a round.
    let mut round = |cx: &mut Stream, calls| cx.in_one_go(|cx| timed(cx, calls));
    let first = round(cx, 1)?;
    if first > 10.0 * SECONDS {
        return Ok(first);
    }
    let calls = (SECONDS / ROUNDS as f64 / first.max(1e-6)).clamp(1.0, 100.0) as usize;
    let mut best = first;
    for _ in 0..ROUNDS {
        best = best.min(round(cx, calls)?);
    }
    Ok(best)
}

/// Processor time of this process's threads, in seconds. `None` unless the device is a CPU and the
/// system tells (Linux).
fn processor_seconds(gpu: &Gpu) -> Option<f64> {
    if !gpu.caps().cpu {
        return None;
    }
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        // The file of a thread that has just ended does not exist.
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split(' ').next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
    }
    (nanoseconds > 0.0).then_some(nanoseconds * 1e-9)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::gpu::GpuOptions;
    use crate::ops::testing;

    impl Named for u64 {
        fn name(self) -> String {
            format!("{self} ms")
        }
    }

    const ALL: [u64; 4] = [6, 1, 30, 0];

    fn choice(flops: f64) -> Choice<'static, u64> {
        let test = Box::new(|_: &mut Stream, _| Ok(selftest::Error(0.0)));
        Choice { class: "work".into(), kernel: "work".into(), test, available: &ALL, candidates: &ALL[..3], flops }
    }

    /// Decides among variants that work for as many milliseconds as their number. Returns the
    /// chosen variant, and the variants that ran.
    fn decide(cx: &mut Stream, choice: &Choice<u64>) -> (u64, Vec<u64>) {
        let ran = RefCell::new(Vec::new());
        let run = |cx: &mut Stream, variant: u64| {
            ran.borrow_mut().push(variant);
            // A busy loop, because on a CPU processor time is measured.
            let (start, limit) = (processor_seconds(cx.gpu()), std::time::Duration::from_millis(variant));
            let clock = Instant::now();
            let done = |cx: &Stream| match (start, processor_seconds(cx.gpu())) {
                (Some(start), Some(now)) => now - start >= limit.as_secs_f64(),
                _ => clock.elapsed() >= limit,
            };
            while !done(cx) {}
            Ok(())
        };
        let chosen = choice.decide(cx, run).unwrap();
        let mut ran = ran.into_inner();
        ran.dedup();
        (chosen, ran)
    }

    #[test]
    fn the_fastest_is_chosen_once_and_remembered() {
        let (_, _turns) = testing::alone();
        let folder = tempfile::tempdir().unwrap();
        let options = GpuOptions { choices: Some(folder.path().join("kernels.json")), ..Default::default() };
        for ran in [vec![6, 1, 30], vec![]] {
            let gpu = Gpu::open(&options).unwrap();
            let mut cx = testing::stream(&gpu);
            assert_eq!(decide(&mut cx, &choice(1.0)), (6, vec![]), "small calls follow the rule");
            assert_eq!(decide(&mut cx, &choice(1e9)), (1, ran));
        }
        let gpu = Gpu::open(&options).unwrap();
        let alone = Choice { candidates: &ALL[..1], ..choice(1e9) };
        assert_eq!(alone.settle(&gpu, 6, &[(6, 6e-3), (1, 1e-3)]), 6, "a single candidate wins even if it is slower");
        // An unknown name counts as no choice.
        let text = std::fs::read_to_string(folder.path().join("kernels.json")).unwrap();
        std::fs::write(folder.path().join("kernels.json"), text.replace("1 ms", "7 ms")).unwrap();
        let mut cx = testing::stream(&Gpu::open(&options).unwrap());
        assert_eq!(decide(&mut cx, &choice(1e9)).1, ALL[..3]);
    }

    /// Variants that are wrong, or that cannot be compiled, are not used. If no other candidate is
    /// right, one that is not worth measuring is taken.
    #[test]
    fn wrong_variants_are_set_aside() {
        let (_, _turn) = testing::gpu();
        let folder = tempfile::tempdir().unwrap();
        let options = GpuOptions { choices: Some(folder.path().join("kernels.json")), ..Default::default() };
        for (wrong, chosen) in [(vec![6], 1), (vec![1], 6), (vec![6, 1, 30], 0)] {
            let gpu = Gpu::open(&options).unwrap();
            let test = |_: &mut Stream, variant| match variant {
                1 if wrong.contains(&1) => Err(GpuError::Device("no pipeline".into())),
                variant => Ok(selftest::Error(if wrong.contains(&variant) { f64::NAN } else { 0.0 })),
            };
            let mut cx = testing::stream(&gpu);
            for flops in [1.0, 1e9] {
                let choice = Choice { test: Box::new(test), ..choice(flops) };
                let (got, ran) = decide(&mut cx, &choice);
                let rule_holds = flops < WORTH_MEASURING && !wrong.contains(&6);
                assert_eq!(got, if rule_holds { 6 } else { chosen }, "{wrong:?}");
                assert!(ran.iter().all(|variant| !wrong.contains(variant)), "{wrong:?}: {ran:?}");
            }
            assert_eq!(gpu.choices().take_news().len(), wrong.len());
            gpu.choices().forget().unwrap();
        }
        let gpu = Gpu::open(&options).unwrap();
        let test = Box::new(|_: &mut Stream, _| Ok(selftest::Error(1.0)));
        let error = Choice { test, ..choice(1e9) }.first_passing(&mut testing::stream(&gpu)).unwrap_err();
        assert!(matches!(error, GpuError::NoVariant(_)), "{error}");
    }

    #[test]
    fn without_a_file_the_rule_holds() {
        let (gpu, _turn) = testing::gpu();
        assert_eq!(decide(&mut testing::stream(&gpu), &choice(1e9)), (6, vec![]));
    }
}
