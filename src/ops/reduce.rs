//! How much tensors differ, reduced to two numbers for each pair on the GPU.

use crate::gpu::{Dispatch, ElementType, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::split::{fitting, ranges, window};

/// Elements that one workgroup sums; `THREADS * TURNS * 4` of the shader.
const PART: usize = 4096;

/// Pairs that the parts of a slot are padded to, so that each slot begins where a binding may.
const PAIRS: usize = 32;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    count: u32,
    a4: u32,
    b4: u32,
    delta4: u32,
    first_pair: u32,
}

/// How much some tensors differ from others, each pair of tensors in a slot of its own: `sum |a - b|` and `sum |b|` over all elements, whose
/// quotient is the relative change from `b` to `a`. Sums are trees of a fixed form, so they are the same on every run.
#[derive(Debug)]
pub struct Changes {
    /// Elements of the tensors.
    len: usize,
    /// Sums of parts, `[slots, parts, 2]`.
    pairs: Tensor,
}

impl Changes {
    /// Room for the changes of `slots` tensors of `len` elements.
    ///
    /// # Errors
    /// What the GPU reports, or nothing to measure.
    pub fn new(cx: &mut Stream, slots: usize, len: usize) -> Result<Self> {
        if slots == 0 || len == 0 {
            return Err(GpuError::shape("change", format!("{slots} slots for {len} elements")));
        }
        let parts = len.div_ceil(PART).next_multiple_of(PAIRS);
        Ok(Self { len, pairs: cx.empty("changes, parts", &[slots, parts, 2], ElementType::F32)? })
    }

    /// Measures the change from `b` to `a` into a slot.
    ///
    /// # Errors
    /// Tensors of another size or type, or a slot that there is not.
    pub fn measure(&self, cx: &mut Stream, slot: usize, a: &Tensor, b: &Tensor) -> Result<()> {
        self.dispatch(cx, slot, (a, b), None)
    }

    /// Turns `before` into `after - before`, in place, and measures its change from `old` into a slot.
    ///
    /// # Errors
    /// As [`Self::measure`]; tensors whose size is no multiple of 4, or that share memory with `before`.
    pub fn measure_delta(
        &self,
        cx: &mut Stream,
        slot: usize,
        (before, after): (&Tensor, &Tensor),
        old: &Tensor,
    ) -> Result<()> {
        let shared = before.shares_memory(after) || before.shares_memory(old);
        if before.len() != self.len
            || !self.len.is_multiple_of(4)
            || before.element_type() != ElementType::F32
            || shared
        {
            let message = format!("a delta {:?} of {} elements, shared memory: {shared}", before.shape(), self.len);
            return Err(GpuError::shape("change", message));
        }
        self.dispatch(cx, slot, (after, old), Some(before))
    }

    fn dispatch(&self, cx: &mut Stream, slot: usize, (a, b): (&Tensor, &Tensor), delta: Option<&Tensor>) -> Result<()> {
        let fits = |tensor: &Tensor| tensor.len() == self.len && tensor.element_type() == ElementType::F32;
        if !fits(a) || !fits(b) || slot >= self.pairs.shape()[0] {
            let message =
                format!("{:?} against {:?} into slot {slot} of {:?}", a.shape(), b.shape(), self.pairs.shape());
            return Err(GpuError::shape("change", message));
        }
        let pairs = self.pairs.slice(slot, 1);
        let kernel = Kernel::new("change").flag_if(delta.is_some(), "DELTA");
        let bindable = fitting(cx.gpu().caps().max_binding, 4);
        let mut start = 0;
        while start < self.len {
            let most = bindable.min((cx.dispatch_budget() / 4.0) as usize).max(PART);
            let Some(some) = ranges(self.len - start, most, PART).next() else { break };
            let part = |tensor| window(tensor, start, some.len());
            let ((a, a4), (b, b4), delta) = (part(a), part(b), delta.map(part));
            let mut tensors = vec![(1, &a), (2, &b), (3, &pairs)];
            tensors.extend(delta.as_ref().map(|(delta, _)| (4, delta)));
            let delta4 = delta.as_ref().map_or(0, |(_, delta4)| *delta4);
            let params = Params { count: some.len() as u32, a4, b4, delta4, first_pair: (start / PART) as u32 };
            cx.dispatch(&Dispatch {
                kernel: &kernel,
                tensors: &tensors,
                params: bytemuck::bytes_of(&params),
                groups: fold_groups(some.len().div_ceil(PART)),
                flops: 4.0 * some.len() as f64,
            })?;
            start += some.len();
        }
        Ok(())
    }

    /// The two sums of every slot, `[slots, 2]`; undefined where nothing was measured.
    ///
    /// # Errors
    /// What the GPU reports.
    pub fn sums(&self, cx: &mut Stream) -> Result<Tensor> {
        let [slots, stride] = [0, 1].map(|axis| self.pairs.shape()[axis]);
        let sums = cx.empty("changes", &[slots, 2], ElementType::F32)?;
        cx.dispatch(&Dispatch {
            kernel: &Kernel::new("change").flag("LAST"),
            tensors: &[(1, &self.pairs), (2, &sums)],
            params: bytemuck::bytes_of(&[self.len.div_ceil(PART) as u32, stride as u32]),
            groups: [slots as u32, 1, 1],
            flops: self.pairs.len() as f64,
        })?;
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::*;

    /// CPU twin, in f64.
    fn change_cpu(a: &[f32], b: &[f32]) -> [f32; 2] {
        let difference: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).sum();
        [difference as f32, b.iter().map(|b| f64::from(b.abs())).sum::<f64>() as f32]
    }

    fn change(cx: &mut Stream, a: &Tensor, b: &Tensor) -> Vec<f32> {
        let changes = Changes::new(cx, 1, a.len()).unwrap();
        changes.measure(cx, 0, a, b).unwrap();
        let sums = changes.sums(cx).unwrap();
        cx.read(&sums).unwrap()
    }

    fn check(cx: &mut Stream, count: usize) {
        let (a, a_values) = random_tensor(cx, 1, &[count]);
        let (b, b_values) = random_tensor(cx, 2, &[count]);
        let got = change(cx, &a, &b);
        assert_close(&got, &change_cpu(&a_values, &b_values), 1e-6, &format!("{count} elements"));
        assert_eq!(change(cx, &a, &b), got, "{count} elements, again");
        if !count.is_multiple_of(4) {
            return;
        }
        let (delta, before) = random_tensor(cx, 3, &[count]);
        let changes = Changes::new(cx, 1, count).unwrap();
        changes.measure_delta(cx, 0, (&delta, &a), &b).unwrap();
        let want: Vec<f32> = a_values.iter().zip(&before).map(|(after, before)| after - before).collect();
        assert_eq!(cx.read(&delta).unwrap(), want, "{count} elements");
        let sums = changes.sums(cx).unwrap();
        let what = format!("a delta of {count} elements");
        assert_close(&cx.read(&sums).unwrap(), &change_cpu(&want, &b_values), 1e-6, &what);
    }

    #[test]
    fn change_agrees_with_the_twin_on_both_tiers() {
        for open in [gpu, base_gpu] {
            let (gpu, _turn) = open();
            let mut cx = stream(&gpu);
            for count in [1, 3, 4, 257, 4096, 4097, 50_003, 50_004, 1_000_001] {
                check(&mut cx, count);
            }
        }
    }

    /// Bindings of 64 KiB: many dispatches, each continuing the parts of the one before.
    #[test]
    fn change_is_split_at_the_limits() {
        let (_, _turn) = gpu();
        let mut cx = stream(&narrow_gpu(65_536));
        check(&mut cx, 100_003);
        check(&mut cx, 100_004);
        check(&mut cx, 65_536);
    }

    /// More than 65,535 workgroups are folded over two dimensions; no binding here is that large, so six stand for them.
    #[test]
    fn folded_workgroups_sum_the_right_parts() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        let count = 4 * PART + 17;
        let (a, a_values) = random_tensor(&mut cx, 1, &[count]);
        let (b, b_values) = random_tensor(&mut cx, 2, &[count]);
        let pairs = cx.empty("pairs", &[5, 2], ElementType::F32).unwrap();
        let params = Params { count: count as u32, a4: 0, b4: 0, delta4: 0, first_pair: 0 };
        cx.dispatch(&Dispatch {
            kernel: &Kernel::new("change"),
            tensors: &[(1, &a), (2, &b), (3, &pairs)],
            params: bytemuck::bytes_of(&params),
            groups: [2, 3, 1],
            flops: 1.0,
        })
        .unwrap();
        let parts = a_values.chunks(PART).zip(b_values.chunks(PART));
        let want: Vec<f32> = parts.flat_map(|(a, b)| change_cpu(a, b)).collect();
        assert_close(&cx.read(&pairs).unwrap(), &want, 1e-6, "folded");
    }

    #[test]
    fn changes_of_many_tensors_share_one_result() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        // Of two parts each.
        let shape = [37, 148];
        let changes = Changes::new(&mut cx, 5, 37 * 148).unwrap();
        let mut want = Vec::new();
        for slot in [3, 0, 4] {
            let (a, a_values) = random_tensor(&mut cx, slot as u64, &shape);
            let (b, b_values) = random_tensor(&mut cx, 9, &shape);
            changes.measure(&mut cx, slot, &a, &b).unwrap();
            want.push((slot, change_cpu(&a_values, &b_values)));
        }
        let sums = changes.sums(&mut cx).unwrap();
        assert_eq!(sums.shape(), [5, 2]);
        let sums = cx.read(&sums).unwrap();
        for (slot, want) in want {
            assert_close(&sums[2 * slot..][..2], &want, 1e-6, &format!("slot {slot}"));
        }
    }

    /// So long that a slot has more parts than one alignment's worth.
    #[test]
    fn long_deltas_have_their_own_slots() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        let count = 140_000;
        let changes = Changes::new(&mut cx, 2, count).unwrap();
        let mut want = Vec::new();
        for slot in [0, 1] {
            let (delta, before) = random_tensor(&mut cx, slot, &[count]);
            let (after, after_values) = random_tensor(&mut cx, slot + 2, &[count]);
            let (old, old_values) = random_tensor(&mut cx, slot + 4, &[count]);
            changes.measure_delta(&mut cx, slot as usize, (&delta, &after), &old).unwrap();
            let deltas: Vec<f32> = after_values.iter().zip(&before).map(|(after, before)| after - before).collect();
            want.extend(change_cpu(&deltas, &old_values));
        }
        let sums = changes.sums(&mut cx).unwrap();
        assert_close(&cx.read(&sums).unwrap(), &want, 1e-6, "long deltas");
    }

    #[test]
    fn wrong_shapes_are_refused_and_nan_is_not_hidden() {
        let (gpu, _turn) = gpu();
        let mut cx = stream(&gpu);
        assert!(Changes::new(&mut cx, 1, 0).is_err() && Changes::new(&mut cx, 0, 8).is_err());
        let changes = Changes::new(&mut cx, 3, 8).unwrap();
        let mut tensor = |len: usize| cx.zeros("zeros", &[len], ElementType::F32).unwrap();
        let (a, b, short) = (tensor(8), tensor(8), tensor(4));
        for (x, y, slot) in [(&a, &short, 0), (&short, &a, 0), (&a, &b, 3)] {
            assert!(matches!(changes.measure(&mut cx, slot, x, y), Err(GpuError::Shape { .. })), "{slot}");
        }
        for (before, old) in [(&short, &b), (&a, &b), (&b, &b)] {
            assert!(matches!(changes.measure_delta(&mut cx, 0, (before, &a), old), Err(GpuError::Shape { .. })));
        }
        let ragged = Changes::new(&mut cx, 1, 3).unwrap();
        let mut three = || cx.zeros("zeros", &[3], ElementType::F32).unwrap();
        let (x, y, z) = (three(), three(), three());
        assert!(ragged.measure_delta(&mut cx, 0, (&x, &y), &z).is_err());
        let nan = cx.upload("nan", &[1.0, f32::NAN, 0.0], &[3]).unwrap();
        assert!(change(&mut cx, &nan, &nan).iter().all(|x| x.is_nan()));
    }
}
