//! How much tensors differ, reduced on the GPU to two numbers for each pair.

use crate::gpu::arguments::arguments;
use crate::gpu::{Dispatch, ElementType, GpuError, Kernel, Result, Stream, Tensor, fold_groups};

use super::split::{fitting, ranges, window};

/// Threads of a workgroup.
const THREADS: u32 = 64;
/// Groups of four elements that a thread sums.
const TURNS: u32 = 16;
/// Elements that one workgroup sums.
const PART: usize = (THREADS * TURNS * 4) as usize;
/// The parts of a slot are padded to a multiple of this, so that every slot begins where a binding
/// may.
const PAIRS: usize = 32;

arguments! {
    /// Arguments of the first stage of `change.wgsl`: sums of parts.
    Change => ["change"] without "LAST";
    params ChangeParams {
        count: u32,
        a4: u32,
        b4: u32,
        delta4: u32,
        first_pair: u32,
    }
    tensors {
        a @ 1: Read F32,
        b @ 2: Read F32,
        pairs @ 3: ReadWrite F32,
    }
    flagged {
        delta @ 4: ReadWrite F32 if "DELTA",
    }
    constants {
        THREADS = THREADS,
        TURNS = TURNS,
    }
}

arguments! {
    /// Arguments of the last stage of `change.wgsl`: sums of the parts of every slot.
    ChangeSums => ["change"] with "LAST";
    params ChangeSumsParams {
        count: u32,
        stride: u32,
    }
    tensors {
        pairs @ 1: Read F32,
        y @ 2: ReadWrite F32,
    }
}

/// How much some tensors differ from others. Each pair of tensors has a slot, with two sums over
/// all elements: `|a - b|` and `|b|`. Their quotient is the relative change from `b` to `a`. The
/// order of additions is fixed, so the sums are the same on every run.
#[derive(Debug)]
pub struct Changes {
    /// Elements of every tensor.
    len: usize,
    /// Sums of parts, `[slots, parts, 2]`.
    pairs: Tensor,
}

impl Changes {
    /// Room for the changes of `slots` tensors of `len` elements.
    ///
    /// # Errors
    /// No slots, no elements, or an error of the GPU.
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
    /// Tensors of another size or type, a slot that does not exist, or an error of the GPU.
    pub fn measure(&self, cx: &mut Stream, slot: usize, a: &Tensor, b: &Tensor) -> Result<()> {
        self.dispatch(cx, slot, a, b, None)
    }

    /// Turns `before` into the delta `after - before`, in place, and measures the change from the
    /// delta `old` to it into a slot.
    ///
    /// # Errors
    /// As [`Self::measure`]. Also a number of elements that is no multiple of 4, and tensors that
    /// share memory with `before`.
    pub fn measure_delta(
        &self,
        cx: &mut Stream,
        slot: usize,
        before: &Tensor,
        after: &Tensor,
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
        self.dispatch(cx, slot, after, old, Some(before))
    }

    fn dispatch(&self, cx: &mut Stream, slot: usize, a: &Tensor, b: &Tensor, delta: Option<&Tensor>) -> Result<()> {
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
            let delta4 = delta.as_ref().map_or(0, |(_, delta4)| *delta4);
            let delta = delta.as_ref().map(|(delta, _)| delta);
            let params = ChangeParams { count: some.len() as u32, a4, b4, delta4, first_pair: (start / PART) as u32 };
            cx.dispatch(&Dispatch {
                kernel: &kernel,
                arguments: &Change { params, a: &a, b: &b, pairs: &pairs, delta },
                groups: fold_groups(some.len().div_ceil(PART)),
                flops: 4.0 * some.len() as f64,
            })?;
            start += some.len();
        }
        Ok(())
    }

    /// The two sums of every slot, `[slots, 2]`. A slot without a measurement has undefined sums.
    ///
    /// # Errors
    /// An error of the GPU.
    pub fn sums(&self, cx: &mut Stream) -> Result<Tensor> {
        let [slots, stride] = [0, 1].map(|axis| self.pairs.shape()[axis]);
        let sums = cx.empty("changes", &[slots, 2], ElementType::F32)?;
        let params = ChangeSumsParams { count: self.len.div_ceil(PART) as u32, stride: stride as u32 };
        cx.dispatch(&Dispatch {
            kernel: &Kernel::new("change").flag("LAST"),
            arguments: &ChangeSums { params, pairs: &self.pairs, y: &sums },
            groups: [slots as u32, 1, 1],
            flops: self.pairs.len() as f64,
        })?;
        Ok(sums)
    }
}

#[cfg(test)]
mod tests;
